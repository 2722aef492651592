/** What several tests use: golden bundles, what they answer, and zip files made in memory. */

import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { crc32 } from "../src/bundle/crc32.js";
import { ZipSource } from "../src/bundle/zip_source.js";

/** Folder of the bundles of each released format, which Python's tests hold too. */
export const GOLDEN = fileURLToPath(new URL("../../../tests/runtime/golden", import.meta.url));

/** The bundle in Python's package. */
export const REFERENCE = fileURLToPath(new URL("../../lraee/bundles/reference.lraee", import.meta.url));

/** Reads the arrays of a file that `numpy.savez` wrote, each with its shape. */
export async function readArrays(path) {
  const bytes = new Uint8Array(await readFile(path));
  const source = new ZipSource(
    { size: bytes.length, read: async (from, length) => bytes.subarray(from, from + length) },
    path,
  );
  await source.manifest().catch(() => {}); // there is none; the entries are read all the same
  const found = {};
  for (const [name, entry] of source.entries)
    found[name.replace(/\.npy$/, "")] = arrayOf(await source.contentOf(entry));
  return found;
}

function arrayOf(content) {
  const length = content[8] + 256 * content[9];
  const header = new TextDecoder().decode(content.subarray(10, 10 + length));
  const [, kind] = /'descr': '[<|](\w+)'/.exec(header);
  const shape = /'shape': \(([^)]*)\)/
    .exec(header)[1]
    .split(",")
    .filter((word) => word.trim() !== "")
    .map(Number);
  const types = { u1: Uint8Array, i4: Int32Array, i8: BigInt64Array, f4: Float32Array, b1: Uint8Array };
  return { shape, data: new types[kind](content.slice(10 + length).buffer) };
}

/** Makes a zip file of stored entries. */
export function zipOf(entries) {
  const text = new TextEncoder();
  const [locals, directory] = [[], []];
  let offset = 0;
  for (const { name, content, packed = content, method = 0, mode = 0, flags = 0x800 } of entries) {
    const bytes = text.encode(name);
    const common = (view, at) => {
      view.setUint16(at, 20, true);
      view.setUint16(at + 2, flags, true);
      view.setUint16(at + 4, method, true);
      view.setUint32(at + 10, crc32(content), true);
      view.setUint32(at + 14, packed.length, true);
      view.setUint32(at + 18, content.length, true);
      view.setUint16(at + 22, bytes.length, true);
    };
    const local = new DataView(new ArrayBuffer(30));
    local.setUint32(0, 0x04034b50, true);
    common(local, 4);
    const entry = new DataView(new ArrayBuffer(46));
    entry.setUint32(0, 0x02014b50, true);
    common(entry, 6);
    entry.setUint32(38, mode * 65536, true);
    entry.setUint32(42, offset, true);
    locals.push(new Uint8Array(local.buffer), bytes, packed);
    directory.push(new Uint8Array(entry.buffer), bytes);
    offset += 30 + bytes.length + packed.length;
  }
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, entries.length, true);
  end.setUint16(10, entries.length, true);
  end.setUint32(
    12,
    directory.reduce((sum, piece) => sum + piece.length, 0),
    true,
  );
  end.setUint32(16, offset, true);
  return joined([...locals, ...directory, new Uint8Array(end.buffer)]);
}

/** Reads a bundle folder as entries for `zipOf`, the manifest first. */
export async function entriesOf(folder) {
  const names = (await readdir(folder)).sort((one, other) =>
    one === "manifest.json" ? -1 : other === "manifest.json" ? 1 : 0,
  );
  return Promise.all(
    names.map(async (name) => ({ name, content: new Uint8Array(await readFile(`${folder}/${name}`)) })),
  );
}

/** Deflates bytes as zip files have them. */
export async function deflated(content) {
  const stream = new Blob([content]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function joined(pieces) {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let filled = 0;
  for (const piece of pieces) {
    all.set(piece, filled);
    filled += piece.length;
  }
  return all;
}
