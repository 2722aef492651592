/**
 * Lists the entries of a zip file by its central directory.
 *
 * Stricter than most readers: what Python's `zipfile` refuses is refused here, and so are bytes before the archive,
 * entries that overlap, and counts that disagree. Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.4.
 */

import { BundleError } from "../errors.js";

const END_SIGNATURE = 0x06054b50;
const ENTRY_SIGNATURE = 0x02014b50;
const LOCAL_SIGNATURE = 0x04034b50;
const END_BYTES = 22;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;
const LONGEST_COMMENT = 65535;
const UTF8_FLAG = 0x800;

/** Flags of encryption and patches, of which nothing is read. */
const REFUSED_FLAGS = 0x1 | 0x20 | 0x40;

/** Version 6.3 of the specification, the last that Python reads. */
const NEWEST_VERSION = 63;

/** Stands for a size in a zip64 field; archives beyond 4 GB have them. */
const IN_ZIP64 = 0xffffffff;

/** Bytes of a central directory at most: 2,000 entries with names of 255 bytes, and much else. */
const LARGEST_DIRECTORY = 16 * 2 ** 20;

/**
 * Lists the entries of an archive.
 *
 * @param {{size: number, read: (offset: number, length: number) => Promise<Uint8Array>}} file
 * @param {string} where its name, for messages
 * @returns {Promise<object[]>} name, method, crc, sizes, offset, mode and flags of each entry, in the file's order
 * @throws {BundleError} it is no zip file, or damaged
 */
export async function listEntries(file, where) {
  const { offset, bytes, count } = await endOf(file, where);
  const directory = await file.read(offset, bytes);
  const entries = [];
  let position = 0;
  while (position < bytes) {
    const entry = readEntry(directory, position, where);
    position += entry.headerBytes;
    entries.push(entry);
  }
  if (position !== bytes || entries.length !== count) throw damaged(where, "its directory has another length");
  checkPlaces(entries, offset, where);
  return entries;
}

/**
 * Finds where the content of an entry begins, and compares its local header.
 *
 * @returns {Promise<number>} offset of the first byte
 */
export async function contentOffset(file, entry, where) {
  const header = viewOf(await file.read(entry.offset, LOCAL_BYTES));
  if (header.byteLength < LOCAL_BYTES || header.getUint32(0, true) !== LOCAL_SIGNATURE) {
    throw damaged(where, `there is no file where ${entry.name} should be`);
  }
  const nameBytes = header.getUint16(26, true);
  const name = decodeName(await file.read(entry.offset + LOCAL_BYTES, nameBytes), entry.flags, where);
  if (name !== entry.name) throw damaged(where, `${entry.name} has another name where it lies`);
  const start = entry.offset + LOCAL_BYTES + nameBytes + header.getUint16(28, true);
  if (start + entry.compressedBytes > entry.limit) throw damaged(where, `${entry.name} overlaps what follows it`);
  return start;
}

/** Makes the error of an archive that is no zip file, or cut off, or changed. */
export function damaged(where, reason) {
  return new BundleError(`${where} is no zip file, or damaged (${reason}); copy or write it again`);
}

async function endOf(file, where) {
  const tailBytes = Math.min(file.size, END_BYTES + LONGEST_COMMENT);
  const tail = await file.read(file.size - tailBytes, tailBytes);
  const view = viewOf(tail);
  for (let at = tail.length - END_BYTES; at >= 0; at -= 1) {
    if (view.getUint32(at, true) !== END_SIGNATURE) continue;
    const [bytes, offset] = [view.getUint32(at + 12, true), view.getUint32(at + 16, true)];
    const count = view.getUint16(at + 10, true);
    if (bytes === IN_ZIP64 || offset === IN_ZIP64 || count === 0xffff) throw tooLarge(where);
    const endOffset = file.size - tailBytes + at;
    const comment = view.getUint16(at + 20, true);
    const disks = view.getUint32(at + 4, true);
    if (endOffset + END_BYTES + comment !== file.size || offset + bytes !== endOffset || disks !== 0) {
      throw damaged(where, "its end does not fit its size");
    }
    if (bytes > LARGEST_DIRECTORY || count !== view.getUint16(at + 8, true)) {
      throw damaged(where, "its directory is larger than that of any bundle");
    }
    return { offset, bytes, count };
  }
  throw damaged(where, "the end of a zip file is missing");
}

function readEntry(directory, position, where) {
  const view = viewOf(directory.subarray(position));
  if (view.byteLength < ENTRY_BYTES || view.getUint32(0, true) !== ENTRY_SIGNATURE) {
    throw damaged(where, "an entry of its directory is cut off");
  }
  const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((at) => view.getUint16(at, true));
  const headerBytes = ENTRY_BYTES + nameBytes + extraBytes + commentBytes;
  if (headerBytes > view.byteLength) throw damaged(where, "an entry of its directory is cut off");
  const flags = view.getUint16(8, true);
  const rest = directory.subarray(position + ENTRY_BYTES);
  const entry = {
    name: decodeName(rest.subarray(0, nameBytes), flags, where),
    flags,
    isReadable: (flags & REFUSED_FLAGS) === 0 && (view.getUint16(6, true) & 0xff) <= NEWEST_VERSION,
    method: view.getUint16(10, true),
    crc: view.getUint32(16, true),
    compressedBytes: view.getUint32(20, true),
    bytes: view.getUint32(24, true),
    mode: view.getUint32(38, true) >>> 16,
    offset: view.getUint32(42, true),
    headerBytes,
  };
  if ([entry.compressedBytes, entry.bytes, entry.offset].includes(IN_ZIP64)) throw tooLarge(where);
  checkExtra(rest.subarray(nameBytes, nameBytes + extraBytes), where);
  return entry;
}

/** Refuses extra fields that end after their place. */
function checkExtra(extra, where) {
  const view = viewOf(extra);
  let position = 0;
  while (position + 4 <= extra.length) {
    position += 4 + view.getUint16(position + 2, true);
    if (position > extra.length) throw damaged(where, "an extra field is longer than its place");
  }
}

/** Notes up to where the content of each entry may go, and refuses entries that lie elsewhere. */
function checkPlaces(entries, directoryOffset, where) {
  const rising = [...entries].sort((one, other) => one.offset - other.offset);
  rising.forEach((entry, index) => {
    entry.limit = index + 1 < rising.length ? rising[index + 1].offset : directoryOffset;
    if (entry.offset + LOCAL_BYTES > entry.limit) throw damaged(where, "its entries overlap");
  });
}

/** Decodes a file name; without the flag of UTF-8 only ASCII is told apart, other bytes become `\ufffd`. */
function decodeName(bytes, flags, where) {
  if ((flags & UTF8_FLAG) === 0) {
    return Array.from(bytes, (byte) => (byte < 128 ? String.fromCharCode(byte) : "\ufffd")).join("");
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw damaged(where, "a name is not UTF-8");
  }
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function tooLarge(where) {
  return new BundleError(
    `${where} is an archive in zip64, for more than 4 GB, which is not read here; unpack it first`,
  );
}
