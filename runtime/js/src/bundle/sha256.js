/** Computes SHA-256 with what Node and browsers have built in. */

import { BundleError } from "../errors.js";

/**
 * Computes the SHA-256 of bytes in hexadecimal digits.
 *
 * @param {Uint8Array} content
 * @returns {Promise<string>}
 * @throws {BundleError} the browser gives no cryptography to this page
 */
export async function sha256(content) {
  const subtle = globalThis.crypto?.subtle;
  if (subtle === undefined) {
    throw new BundleError(
      "crypto.subtle is missing, so no file of a bundle can be checked; browsers give it to pages from https or " +
        "localhost only: serve this one so",
    );
  }
  const digest = new Uint8Array(await subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
