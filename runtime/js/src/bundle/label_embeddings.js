/** Reads label embeddings: a float32 array of two axes, as numpy's `save` writes it. */

import { BundleError } from "../errors.js";

const HEADER =
  /^\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9]{1,9}), ([0-9]{1,9})\), \} *\n$/s;

/** Bytes before the text of a header: a signature, a version and the text's length. */
const PREFIX = 10;

/** How far from 1 the length of a row may be. */
const UNIT_TOLERANCE = 1e-3;

/**
 * Reads embeddings and checks that they have the shape wanted, with rows of unit length.
 *
 * @param {string} name of the file, for messages
 * @param {Uint8Array} content of the file
 * @param {number} count of labels
 * @param {number} width of an embedding
 * @returns {Float32Array} (labels, embed_dim), row after row
 * @throws {BundleError} it is something else
 */
export function readLabelEmbeddings(name, content, count, width) {
  const end = PREFIX + content[8] + 256 * content[9];
  const start = Array.from(content.subarray(0, end), (byte) => String.fromCharCode(byte)).join("");
  const header = HEADER.exec(start);
  if (header === null || start.length !== end) {
    throw new BundleError(`${name} is not a float32 array as numpy.save writes it; export the bundle again`);
  }
  const [rows, columns] = [Number(header[1]), Number(header[2])];
  if (rows !== count || columns !== width) {
    throw new BundleError(
      `${name} has shape (${rows}, ${columns}), wanted (${count}, ${width}); export the bundle again`,
    );
  }
  const body = content.slice(end);
  if (body.length !== 4 * rows * columns) {
    throw new BundleError(`${name} ends early or goes on after its array; export the bundle again`);
  }
  const array = littleEndian(body);
  for (let row = 0; row < rows; row += 1) {
    const length = Math.hypot(...array.subarray(row * columns, (row + 1) * columns));
    if (!(Math.abs(length - 1) <= UNIT_TOLERANCE)) {
      throw new BundleError(`${name}: a row is not of unit length; export the bundle again`);
    }
  }
  return array;
}

/** Gives the float32 values of bytes in the order of the file, whatever that of the machine. */
function littleEndian(body) {
  if (new Uint8Array(new Uint16Array([1]).buffer)[0] === 1) return new Float32Array(body.buffer);
  const view = new DataView(body.buffer);
  return Float32Array.from({ length: body.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}
