/**
 * Decodes image files in a browser, to the pixels that Python's runtime sees: as the file has them.
 *
 * A browser would turn a photo as its EXIF tag says and convert its colours; CLIP was trained on neither.
 */

import { ImageError, kindOf } from "./errors.js";
import { withoutExif } from "./images/orientation.js";

/** What the file says of its colour space is left alone. */
const AS_IT_IS = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

/**
 * Decodes an image file to RGBA pixels.
 *
 * @param {Blob} file such as one that a person chose, or the `blob()` of a response
 * @returns {Promise<ImageData>} at its own size; a canvas rounds the colours of transparent pixels
 * @throws {ImageError} the browser cannot decode it
 */
export async function decode(file) {
  if (!(file instanceof Blob)) throw new ImageError(`the image is ${kindOf(file)}, wanted a File or another Blob`);
  const plain = new Blob([withoutExif(new Uint8Array(await file.arrayBuffer()))], { type: file.type });
  let bitmap;
  try {
    bitmap = await createImageBitmap(plain, AS_IT_IS);
  } catch (error) {
    throw new ImageError(
      `${file.name ?? "the image"} cannot be decoded (${error.message}); wanted a kind of file that this browser shows`,
      { cause: error },
    );
  }
  try {
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}
