/**
 * Reads a bundle from a folder, or a zip file from a disk. Node only: browsers never load this file.
 *
 * Links are followed once, when the bundle is opened: what is hashed later is the very file that is then read.
 */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readFile, realpath, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";

import { BundleError, quoted } from "../errors.js";
import { MANIFEST_NAME } from "./names.js";
import { ZipSource } from "./zip_source.js";

/** Gives the files of a bundle from a folder. */
export class FolderSource {
  /** @param {string} folder its absolute path, without links */
  constructor(folder) {
    this.place = folder;
    this.files = new Map();
  }

  /** Reads the manifest's bytes. */
  async manifest() {
    try {
      return plain(await readFile(join(this.place, MANIFEST_NAME)));
    } catch (error) {
      if (["ENOENT", "ENOTDIR", "EISDIR"].includes(error.code)) {
        throw new BundleError(`${this.place} has no ${MANIFEST_NAME}; wanted a bundle folder written by lraee-export`, {
          cause: error,
        });
      }
      throw unreadable(MANIFEST_NAME, error);
    }
  }

  /** Checks that every file of the manifest is there, with its size. */
  async find(files) {
    for (const { name, size_bytes: size } of files) {
      const { real, bytes } = await this.realFile(name);
      if (bytes !== size) {
        throw new BundleError(
          `${name} has ${bytes} bytes, the manifest says ${size}; the bundle is damaged, export it again`,
        );
      }
      this.files.set(name, real);
    }
  }

  /** Reads one file of the manifest. */
  async read({ name }) {
    try {
      return plain(await readFile(this.files.get(name)));
    } catch (error) {
      throw unreadable(name, error);
    }
  }

  /** Computes the SHA-256 of a file without holding it in memory. */
  async hash({ name }) {
    const hash = createHash("sha256");
    try {
      await pipeline(createReadStream(this.files.get(name)), hash);
    } catch (error) {
      throw unreadable(name, error);
    }
    return hash.digest("hex");
  }

  /** Gives the path from which ONNX Runtime may open a file; null where the file is a link. */
  path(name) {
    const path = join(this.place, name);
    return this.files.get(name) === path ? path : null;
  }

  async realFile(name) {
    const path = join(this.place, name);
    try {
      const real = await realpath(path);
      const met = await stat(real);
      if (met.isFile()) return { real, bytes: met.size };
    } catch (error) {
      if (!["ENOENT", "ENOTDIR"].includes(error.code)) throw unreadable(name, error);
      throw new BundleError(
        `${name} is missing from ${basename(this.place)}; the bundle is incomplete, copy or export it again`,
        { cause: error },
      );
    }
    throw new BundleError(
      `${name} is missing from ${basename(this.place)}: what lies there is not a plain file; copy or export it again`,
    );
  }
}

/**
 * Finds a bundle on a disk.
 *
 * @param {string} path of its folder or zip file
 * @returns {Promise<FolderSource | ZipSource>}
 * @throws {BundleError} there is no such folder or file
 */
export async function openPath(path) {
  let real, met;
  try {
    real = await realpath(resolve(path));
    met = await stat(real);
  } catch (error) {
    if (["EACCES", "EPERM"].includes(error.code)) throw unreadable(path, error);
  }
  if (met?.isDirectory()) return new FolderSource(real);
  if (met?.isFile() && path.endsWith(".zip")) return new ZipSource(new ArchiveFile(real, met.size), basename(path));
  throw new BundleError(`${quoted(path)} is not a folder; wanted a bundle written by lraee-export, or its zip file`);
}

/** Reads ranges of a file; it is opened for each, so that nothing is left open. */
class ArchiveFile {
  constructor(path, size) {
    this.path = path;
    this.size = size;
  }

  async read(offset, length) {
    const content = new Uint8Array(Math.max(0, Math.min(length, this.size - offset)));
    try {
      const file = await open(this.path);
      try {
        const { bytesRead } = await file.read(content, 0, content.length, offset);
        return content.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    } catch (error) {
      throw unreadable(this.path, error);
    }
  }
}

/** Gives a buffer of Node as the bytes that browsers have: its `slice` copies. */
function plain(buffer) {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
}

/** Makes the error of a file that cannot be read although it may be sound, with the way out. */
function unreadable(name, error) {
  const advice = {
    EACCES: "this user may not read it; have its owner allow that, with: chmod -R a+rX",
    EPERM: "this user may not read it; have its owner allow that",
    ENOENT: "it was removed; copy or export the bundle again",
  };
  const found =
    advice[error.code] ?? "the disk or the network folder that it lies on fails; copy the bundle to another one";
  return new BundleError(`${name} cannot be read (${error.code ?? error.message}); ${found}`, { cause: error });
}
