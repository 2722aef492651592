/** Makes the session of each part once, when an image first reaches it, and runs it. */

import { BundleError } from "../errors.js";
import { exactKernelEntries } from "../ort/exact_kernel.js";
import { installedVersion, loadFailure } from "../ort/version.js";

/** Holds the sessions of a bundle by part name. */
export class Sessions {
  /**
   * @param {object} ort onnxruntime-node or onnxruntime-web
   * @param {import("../bundle/bundle.js").Bundle} bundle whose parts are run
   * @param {object} options of every session, from `sessionOptions`
   */
  constructor(ort, bundle, options) {
    this.ort = ort;
    this.bundle = bundle;
    this.options = options;
    this.made = new Map();
  }

  get manifest() {
    return this.bundle.manifest;
  }

  /** Gives the session of a part; its files are verified before it is made. */
  async get(name) {
    const known = this.made.get(name);
    if (known !== undefined) return known;
    const making = this.make(name);
    this.made.set(name, making);
    try {
      const session = await making;
      this.made.set(name, session);
      return session;
    } catch (error) {
      this.made.delete(name);
      throw error;
    }
  }

  /** Runs a part; `fetches` are tensors that it writes to. */
  async run(name, feeds, fetches) {
    const known = this.made.get(name);
    const session = known?.run === undefined ? await this.get(name) : known;
    try {
      return await (fetches === undefined ? session.run(feeds) : session.run(feeds, fetches));
    } catch (error) {
      throw new BundleError(
        `${this.manifest.part(name).graph}: ${installedVersion(this.ort)} cannot run it: ${reasonOf(error)}`,
        { cause: error },
      );
    }
  }

  /** Counts the tokens that a part gives; null where tensors to write to are no use, or the count is unknown. */
  async outputTokens(name) {
    if (!this.options.isNative) return null;
    const session = await this.get(name);
    const found = session.outputMetadata?.find?.((output) => output.name === "tokens_out")?.shape?.[1];
    return typeof found === "number" ? found : null;
  }

  /** Makes the sessions of some parts. */
  async warm(names) {
    for (const name of names) await this.get(name);
  }

  /** Frees what the sessions hold. */
  async release() {
    const sessions = await Promise.allSettled(this.made.values());
    this.made.clear();
    for (const { value } of sessions) await value?.release?.();
  }

  async make(name) {
    const part = this.manifest.part(name);
    const { model, externalData } = await this.bundle.checkedPart(part, this.options.isNative);
    const exact = this.manifest.saturates ? await exactKernelEntries(this.ort, this.options) : {};
    const { extra, ...options } = this.options.session;
    const session = { ...extra.session, ...exact };
    try {
      return await this.ort.InferenceSession.create(model, {
        ...options,
        extra: { ...extra, session },
        ...(externalData.length > 0 ? { externalData } : {}),
      });
    } catch (error) {
      throw new BundleError(loadFailure(this.ort, part.graph, reasonOf(error)), { cause: error });
    }
  }
}

/** Gives ONNX Runtime's message on one line. */
function reasonOf(error) {
  return String(error?.message ?? error).replaceAll(/\s+/g, " ").trim();
}
