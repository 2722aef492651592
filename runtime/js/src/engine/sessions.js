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
    this.making = new Map();
    this.made = new Map();
    this.tokenCounts = new Map();
  }

  get manifest() {
    return this.bundle.manifest;
  }

  /** Gives the session of a part; its files are verified before it is made, once for all calls that wait for it. */
  get(name) {
    if (this.made.has(name)) return Promise.resolve(this.made.get(name));
    if (!this.making.has(name)) {
      const making = this.make(name).finally(() => this.making.delete(name));
      this.making.set(name, making);
    }
    return this.making.get(name);
  }

  /**
   * Runs a part; `fetches` are tensors that it writes to.
   *
   * Not an async function: after each block the processor's caches hold its weights, and every step here is cold.
   */
  run(name, feeds, fetches) {
    const session = this.made.get(name);
    if (session === undefined) return this.get(name).then(() => this.run(name, feeds, fetches));
    const running = fetches === undefined ? session.run(feeds) : session.run(feeds, fetches);
    return running.catch((error) => {
      const { graph } = this.manifest.part(name);
      throw new BundleError(`${graph}: ${installedVersion(this.ort)} cannot run it: ${reasonOf(error)}`, {
        cause: error,
      });
    });
  }

  /** Tells how many tokens a part gives, for a tensor that it can write to; null where it makes its own. */
  outputTokens(name) {
    return this.tokenCounts.get(name) ?? null;
  }

  /** Makes the sessions of some parts. */
  async warm(names) {
    for (const name of names) await this.get(name);
  }

  /** Frees what the sessions hold. */
  async release() {
    await Promise.allSettled(this.making.values());
    const sessions = [...this.made.values()];
    this.made.clear();
    for (const session of sessions) await session.release?.();
  }

  async make(name) {
    const part = this.manifest.part(name);
    const { model, externalData } = await this.bundle.checkedPart(part, this.options.isNative);
    const exact = this.manifest.saturates ? await exactKernelEntries(this.ort, this.options) : {};
    const { extra, ...options } = this.options.session;
    let session;
    try {
      session = await this.ort.InferenceSession.create(model, {
        ...options,
        extra: { ...extra, session: { ...extra.session, ...exact } },
        ...(externalData.length > 0 ? { externalData } : {}),
      });
    } catch (error) {
      throw new BundleError(loadFailure(this.ort, part.graph, reasonOf(error)), { cause: error });
    }
    const tokens = this.options.isNative ? tokensOf(session) : null;
    if (tokens !== null) this.tokenCounts.set(name, tokens);
    this.made.set(name, session);
    return session;
  }
}

/** Reads how many tokens a session gives; null where the count is unknown. */
function tokensOf(session) {
  const output = session.outputMetadata?.find?.(({ name }) => name === "tokens_out");
  return typeof output?.shape?.[1] === "number" ? output.shape[1] : null;
}

/** Gives ONNX Runtime's message on one line. */
function reasonOf(error) {
  return String(error?.message ?? error)
    .replaceAll(/\s+/g, " ")
    .trim();
}
