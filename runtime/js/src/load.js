/** Opens a bundle as a `Model`: checks what was passed in, before anything is read. */

import { Bundle } from "./bundle/bundle.js";
import { downloadArchive, UrlSource } from "./bundle/url_source.js";
import { ZipSource } from "./bundle/zip_source.js";
import { BundleError, kindOf, quoted, SettingsError } from "./errors.js";
import { Model } from "./model.js";
import { exactKernelEntries } from "./ort/exact_kernel.js";
import { sessionOptions } from "./ort/session_options.js";
import { backendOf, checkVersion } from "./ort/version.js";

const SETTINGS = ["threads", "verify", "policy", "warm", "fetch"];

/** Schemes of addresses; `c:` is a drive of Windows. */
const ADDRESS = /^(https?|blob|data|file):/i;

/**
 * Opens a bundle as a model that classifies images.
 *
 * @param {object} ort the module `onnxruntime-node` or `onnxruntime-web`
 * @param {string | URL | Uint8Array | ArrayBuffer | Blob} source path or address of a folder that lraee-export wrote,
 *   or of its zip file (`python -m lraee zip`); or the zip file's bytes
 * @param {object} [settings] see index.d.ts
 * @returns {Promise<Model>}
 * @throws {BundleError} the bundle is damaged, incomplete, newer than this code or ONNX Runtime, or unsafe
 * @throws {SettingsError} a setting is unknown, of another type, or out of its range
 * @throws {PolicyError} the bundle lacks what the policy asks for
 */
export async function load(ort, source, settings = {}) {
  backendOf(ort);
  const { threads = null, verify = "parts", policy = null, warm = false } = checked(settings);
  const opened = await sourceOf(source, settings.fetch ?? ((address) => globalThis.fetch(address)));
  const bundle = await Bundle.open(opened);
  checkVersion(ort, bundle.manifest.onnxruntime);
  if (verify === "all") await bundle.verify();
  const options = sessionOptions(ort, bundle.manifest, threads);
  if (bundle.manifest.saturates) await exactKernelEntries(ort, options); // refused now, not at the first image
  const model = new Model(ort, bundle, options, policy);
  if (warm) await model.warm();
  return model;
}

function checked(settings) {
  const unknown = Object.keys(settings).find((key) => !SETTINGS.includes(key));
  if (unknown !== undefined) {
    throw new SettingsError(`the setting ${quoted(unknown)} is unknown; wanted ${SETTINGS.join(", ")}`);
  }
  if (!["parts", "all", undefined].includes(settings.verify)) {
    throw new SettingsError(`verify is ${quoted(settings.verify)}, wanted 'parts' or 'all'`);
  }
  return settings;
}

async function sourceOf(source, fetch) {
  if (source instanceof ArrayBuffer) return sourceOf(new Uint8Array(source), fetch);
  if (source instanceof Uint8Array) {
    const bytes = new Uint8Array(source.buffer, source.byteOffset, source.length); // a Buffer has another `slice`
    return new ZipSource(new BytesFile(bytes), "the zip file");
  }
  if (source instanceof Blob) return new ZipSource(new BlobFile(source), source.name ?? "the zip file");
  if (typeof source !== "string" && !(source instanceof URL)) {
    throw new BundleError(
      `the bundle is ${kindOf(source)}, wanted a path, an address, or the bytes of a zip file that python -m lraee ` +
        "zip wrote",
    );
  }
  const isNode = globalThis.process?.versions?.node !== undefined;
  if (isNode && !(source instanceof URL) && !ADDRESS.test(source)) return openOnDisk(source);
  const address = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href);
  if (isNode && address.protocol === "file:") {
    const { fileURLToPath } = await import("node:url");
    return openOnDisk(fileURLToPath(address));
  }
  const isFolder = /^https?:$/.test(address.protocol) && !address.pathname.endsWith(".zip");
  if (isFolder) return new UrlSource(address, fetch);
  return new ZipSource(new BytesFile(await downloadArchive(address, fetch)), address.href);
}

async function openOnDisk(path) {
  const { openPath } = await import("./bundle/folder_source.js");
  return openPath(path);
}

/** Reads ranges of bytes in memory. */
class BytesFile {
  constructor(bytes) {
    this.bytes = bytes;
    this.size = bytes.length;
  }

  async read(offset, length) {
    return this.bytes.subarray(Math.max(offset, 0), Math.max(offset + length, 0));
  }
}

/** Reads ranges of a file that a person chose in a browser. */
class BlobFile {
  constructor(blob) {
    this.blob = blob;
    this.size = blob.size;
  }

  async read(offset, length) {
    return new Uint8Array(await this.blob.slice(Math.max(offset, 0), Math.max(offset + length, 0)).arrayBuffer());
  }
}
