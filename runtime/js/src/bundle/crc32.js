/** Computes the checksum of zip files: CRC-32 of ISO 3309, reflected, polynomial 0xedb88320. */

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  return value;
});

/** Computes the CRC-32 of bytes, 0 to 2^32 - 1. */
export function crc32(content) {
  let value = 0xffffffff;
  for (let index = 0; index < content.length; index += 1) value = TABLE[(value ^ content[index]) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
