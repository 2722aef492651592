/** Reads a bundle from a web server: the manifest first, then each file when it is needed. */

import { BundleError } from "../errors.js";
import { collected } from "./collected.js";
import { MANIFEST_NAME } from "./names.js";

const LARGEST_MANIFEST = 16 * 2 ** 20;

/** Bytes of a zip file that is held in memory. */
const LARGEST_ARCHIVE = 2 ** 31 - 1;

/** Gives the files of a bundle below an address. */
export class UrlSource {
  /**
   * @param {URL} address of the folder
   * @param {typeof fetch} fetch what asks the server
   */
  constructor(address, fetch) {
    this.place = address.href;
    this.base = address.pathname.endsWith("/") ? address : withSlash(address);
    this.fetch = fetch;
  }

  /** Reads the manifest's bytes. */
  manifest() {
    return download(new URL(MANIFEST_NAME, this.base), LARGEST_MANIFEST, MANIFEST_NAME, this.fetch);
  }

  /** Leaves sizes to `read`: a server is asked for a file once. */
  async find() {}

  /** Reads one file of the manifest. */
  async read({ name, size_bytes: size }) {
    const content = await download(new URL(encodeURIComponent(name), this.base), size, name, this.fetch);
    if (content.length !== size) {
      throw new BundleError(
        `${name} has ${content.length} bytes, the manifest says ${size}; the bundle is damaged, copy it again`,
      );
    }
    return content;
  }

  /** Gives no path: the files lie on a server. */
  path() {
    return null;
  }
}

/** Reads a zip file from a server into memory. */
export function downloadArchive(address, fetch) {
  return download(address, LARGEST_ARCHIVE, address.href, fetch);
}

async function download(address, most, name, fetch) {
  let response;
  try {
    response = await fetch(address.href);
  } catch (error) {
    throw new BundleError(
      `${address.href} cannot be read (${error.message}); look whether the server is up and, in a browser, lets this ` +
        "page read it (CORS)",
      { cause: error },
    );
  }
  if (!response.ok) {
    throw new BundleError(
      `${address.href} cannot be read: the server answers ${response.status} ${response.statusText}; wanted the ` +
        "address of a bundle folder, or of its zip file",
    );
  }
  if (response.body === null) return new Uint8Array();
  try {
    return await collected(
      response.body,
      most,
      () => new BundleError(`${name} is longer than ${most} bytes; not read on`),
    );
  } catch (error) {
    if (error instanceof BundleError) throw error;
    throw new BundleError(`${address.href} ended early (${error.message}); try again`, { cause: error });
  }
}

function withSlash(address) {
  const folder = new URL(address);
  folder.pathname += "/";
  return folder;
}
