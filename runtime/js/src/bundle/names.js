/** Names what every bundle has: its manifest, and the parts of blocks and exits. */

/** The newest bundle format that this code reads. */
export const FORMAT = 4;

export const MANIFEST_NAME = "manifest.json";

/** Gives the part name of a block or of its exit: `exit_08`. */
export function partName(kind, block) {
  return `${kind}_${String(block).padStart(2, "0")}`;
}

/** Gives the part names of the blocks, in order: `block_01`, `block_02` ... */
export function blockNames(count) {
  return Array.from({ length: count }, (_, index) => partName("block", index + 1));
}
