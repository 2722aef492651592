/**
 * Reads a bundle from one zip file, stored or deflated, without unpacking it to a disk.
 *
 * An archive is data from elsewhere: of its entries only those are read that the manifest in it names, with the sizes
 * that it says, under plain names; nothing else of it is believed.
 */

import { BundleError, quoted } from "../errors.js";
import { collected } from "./collected.js";
import { crc32 } from "./crc32.js";
import { MANIFEST_NAME } from "./names.js";
import { contentOffset, damaged, listEntries } from "./zip_directory.js";

const LARGEST_MANIFEST = 16 * 2 ** 20;
const LARGEST_BUNDLE = 8 * 2 ** 30;
const MOST_ENTRIES = 2000;

const STORED = 0;
const DEFLATED = 8;

/** Kinds of files in the mode that Unix keeps: none given, or a plain file. */
const PLAIN_KINDS = [0, 0o100000];

/** Gives the files of a bundle from an archive. */
export class ZipSource {
  /**
   * @param {{size: number, read: (offset: number, length: number) => Promise<Uint8Array>}} file the archive's bytes
   * @param {string} place what messages call it
   */
  constructor(file, place) {
    this.file = file;
    this.place = place;
    this.entries = new Map();
  }

  /** Reads the manifest's bytes. */
  async manifest() {
    this.entries = plainEntries(await listEntries(this.file, this.place), this.place);
    const entry = this.entries.get(MANIFEST_NAME);
    this.entries.delete(MANIFEST_NAME);
    if (entry === undefined) {
      throw new BundleError(`${this.place} has no ${MANIFEST_NAME}; wanted a file that python -m lraee zip wrote`);
    }
    if (entry.bytes > LARGEST_MANIFEST) {
      throw new BundleError(`${this.place}: ${MANIFEST_NAME} has ${entry.bytes} bytes, more than any has`);
    }
    return this.contentOf(entry);
  }

  /** Checks that every file of the manifest is there, with its size. */
  async find(files) {
    const total = files.reduce((sum, entry) => sum + entry.size_bytes, 0);
    if (total > LARGEST_BUNDLE) {
      throw new BundleError(`${this.place} holds a bundle of ${total} bytes, wanted at most ${LARGEST_BUNDLE}`);
    }
    for (const { name, size_bytes: size } of files) {
      const entry = this.entries.get(name);
      if (entry === undefined) {
        throw new BundleError(`${name} is missing from ${this.place}; the archive is incomplete, write it again`);
      }
      if (entry.bytes !== size) {
        throw new BundleError(
          `${this.place}: ${name} has ${entry.bytes} bytes, the manifest says ${size}; the archive is damaged, ` +
            "write it again",
        );
      }
    }
  }

  /** Reads one file of the manifest. */
  async read(file) {
    return this.contentOf(this.entries.get(file.name));
  }

  /** Gives no path: the files lie in the archive. */
  path() {
    return null;
  }

  async contentOf(entry) {
    const start = await contentOffset(this.file, entry, this.place);
    const packed = await this.file.read(start, entry.compressedBytes);
    const content = entry.method === STORED ? packed : await inflate(packed, entry, this.place);
    if (content.length !== entry.bytes || packed.length !== entry.compressedBytes) {
      throw damaged(this.place, `${entry.name} is cut off`);
    }
    if (crc32(content) !== entry.crc) throw damaged(this.place, `${entry.name} has another checksum`);
    return content;
  }
}

/** Gives the entries by their name within the bundle; one folder may stand around all of them. */
function plainEntries(all, where) {
  const entries = all.filter((entry) => !entry.name.endsWith("/"));
  if (entries.length > MOST_ENTRIES) {
    throw new BundleError(`${where} has ${entries.length} files, more than any bundle; wanted one that lraee wrote`);
  }
  const top = entries.find((entry) => isManifest(entry.name));
  const around = top === undefined ? "" : top.name.slice(0, -MANIFEST_NAME.length);
  const found = new Map();
  for (const entry of entries) {
    const name = entry.name.startsWith(around) ? entry.name.slice(around.length) : "/";
    if (/[/\\\0]/.test(name) || !PLAIN_KINDS.includes(entry.mode & 0o170000)) {
      throw new BundleError(
        `${where}: ${quoted(entry.name)} is not a plain file beside ${MANIFEST_NAME}; it is not opened`,
      );
    }
    if (found.has(name)) throw new BundleError(`${where} has ${quoted(name)} twice; it is not opened`);
    if (!entry.isReadable || ![STORED, DEFLATED].includes(entry.method)) {
      throw new BundleError(
        `${where}: ${quoted(name)} is encrypted or compressed in a way that is not read; zip it again`,
      );
    }
    found.set(name, entry);
  }
  return found;
}

/** Tells whether a path in the archive is that of the manifest, at its top or in one folder. */
function isManifest(path) {
  const folders = path.split("/");
  if (folders.pop() !== MANIFEST_NAME || folders.length > 1) return false;
  return folders.length === 0 || !["", ".", ".."].includes(folders[0]);
}

/** Inflates the content of an entry, and stops where it becomes longer than the archive says. */
async function inflate(packed, entry, where) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  try {
    return await collected(stream, entry.bytes, () => damaged(where, `${entry.name} is longer than it says`));
  } catch (error) {
    if (error instanceof BundleError) throw error;
    throw new BundleError(damaged(where, `${entry.name} cannot be inflated`).message, { cause: error });
  }
}
