/**
 * Finds where an ONNX file keeps external data, by reading protobuf's wire format.
 *
 * ONNX Runtime opens whatever path a graph names. A bundle may come from anywhere, so the paths are checked before a
 * session is made. Source: onnx.proto3 (field numbers below) and the protobuf encoding guide.
 */

import { BundleError } from "../errors.js";

const LENGTH_DELIMITED = 2;

/** Keys from here on are refused: protobuf's C++ parser drops the bits above, and would see another field. */
const KEY_LIMIT = 2 ** 32;

/** Message -> field number -> message of that field. */
const CHILDREN = {
  model: { 7: "graph", 20: "training", 25: "function" },
  training: { 1: "graph", 2: "graph" },
  function: { 7: "node", 11: "attribute" },
  graph: { 1: "node", 5: "tensor", 15: "sparse" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse" },
  sparse: { 1: "tensor", 2: "tensor" },
  tensor: { 13: "entry" },
};

/**
 * Collects every `location` of external data in a serialized ONNX model.
 *
 * @param {Uint8Array} model the bytes of an .onnx file
 * @param {string} where its name, for messages
 * @returns {Set<string>}
 * @throws {BundleError} the bytes are not protobuf
 */
export function externalLocations(model, where) {
  const found = new Set();
  const pending = [["model", model]];
  while (pending.length > 0) {
    const [message, data] = pending.pop();
    for (const [number, value] of fieldsOf(data, where)) {
      const child = CHILDREN[message][number];
      if (child === "entry") {
        const location = locationOf(value, where);
        if (location !== null) found.add(location);
      } else if (child !== undefined) {
        pending.push([child, value]);
      }
    }
  }
  return found;
}

/** Reads the location from an entry of external data; null where the entry is about something else. */
function locationOf(entry, where) {
  const fields = new Map(fieldsOf(entry, where));
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  if (decoder.decode(fields.get(1) ?? new Uint8Array()) !== "location") return null;
  return decoder.decode(fields.get(2) ?? new Uint8Array());
}

/** Lists (field number, bytes) of each length-delimited field, and skips the others. */
function fieldsOf(data, where) {
  const found = [];
  let position = 0;
  const number = () => {
    let value = 0;
    for (let shift = 0; shift < 64 && position < data.length; shift += 7) {
      const byte = data[position];
      position += 1;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw damaged(where);
  };
  while (position < data.length) {
    const key = number();
    if (key >= KEY_LIMIT) throw damaged(where);
    const kind = key % 8;
    if (kind === LENGTH_DELIMITED) {
      const length = number();
      if (position + length > data.length) throw damaged(where);
      found.push([Math.floor(key / 8), data.subarray(position, position + length)]);
      position += length;
    } else if (kind === 0) {
      number();
    } else if (kind === 1 || kind === 5) {
      position += kind === 1 ? 8 : 4;
      if (position > data.length) throw damaged(where);
    } else {
      throw damaged(where);
    }
  }
  return found;
}

function damaged(where) {
  return new BundleError(`${where} is not an ONNX model; the bundle is damaged, export it again`);
}
