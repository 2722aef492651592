/**
 * Hides the EXIF data of an image file, so that a browser cannot turn the picture as it says.
 *
 * Chromium 147 turns photos also where `createImageBitmap` is told not to. EXIF data lie in a segment, chunk or RIFF
 * chunk of their own, whose name is changed in a copy of the file; no pixel is touched.
 *
 * Sources: JPEG, ITU-T T.81, annex B; EXIF 2.32, 4.7.2; PNG, third edition, 11.3.4.4; WebP container specification.
 */

import { crc32 } from "../bundle/crc32.js";

const START_OF_SCAN = 0xda;
const APP1 = 0xe1;

/**
 * Gives the bytes of an image file without its EXIF data.
 *
 * @param {Uint8Array} file of any kind; other kinds than JPEG, PNG and WebP come back as they are
 * @returns {Uint8Array} a copy where something was changed
 */
export function withoutExif(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  if (file.length > 4 && view.getUint16(0) === 0xffd8) return withoutJpegExif(file, view);
  if (file.length > 8 && view.getUint32(0) === 0x89504e47) return withoutPngExif(file, view);
  if (file.length > 12 && word(file, 0) === "RIFF" && word(file, 8) === "WEBP") return withoutWebpExif(file, view);
  return file;
}

function withoutJpegExif(file, view) {
  const copy = Uint8Array.from(file);
  let at = 2;
  while (at + 10 < file.length && file[at] === 0xff && file[at + 1] !== START_OF_SCAN) {
    if (file[at + 1] === 0xff) {
      at += 1; // a marker may have more than one byte of 255 before it
      continue;
    }
    if (file[at + 1] === APP1 && word(file, at + 4) === "Exif") copy.fill(0, at + 4, at + 8);
    at += 2 + view.getUint16(at + 2);
  }
  return copy;
}

function withoutPngExif(file, view) {
  const copy = Uint8Array.from(file);
  const copied = new DataView(copy.buffer);
  for (let at = 8; at + 12 <= file.length; at += 12 + view.getUint32(at)) {
    const end = at + 8 + view.getUint32(at);
    if (word(file, at + 4) !== "eXIf" || end + 4 > file.length) continue;
    copy.set(new TextEncoder().encode("noIf"), at + 4); // an ancillary chunk that nobody knows
    copied.setUint32(end, crc32(copy.subarray(at + 4, end)));
  }
  return copy;
}

function withoutWebpExif(file, view) {
  const copy = Uint8Array.from(file);
  for (let at = 12; at + 8 <= file.length;) {
    if (word(file, at) === "EXIF") copy.set(new TextEncoder().encode("NOIF"), at);
    const bytes = view.getUint32(at + 4, true);
    at += 8 + bytes + (bytes % 2);
  }
  return copy;
}

function word(file, at) {
  return String.fromCharCode(...file.subarray(at, at + 4));
}
