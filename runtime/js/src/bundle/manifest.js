/** Describes a bundle: what `manifest.json` says, checked. Its keys keep the names that the file gives them. */

import { BundleError, quoted } from "../errors.js";
import { parseJson } from "./json.js";
import { checkConsistency } from "./manifest_checks.js";
import { MANIFEST } from "./manifest_schema.js";
import { blockNames, FORMAT, MANIFEST_NAME } from "./names.js";

/** Holds what `manifest.json` says, and finds parts, exits and schedules in it. */
export class Manifest {
  /** @param {object} decoded what the schema gave; its keys become those of this object */
  constructor(decoded) {
    Object.assign(this, decoded);
    this.partsByName = new Map(decoded.parts.map((part) => [part.name, part]));
    Object.freeze(this);
  }

  /** Finds the part called `name`. */
  part(name) {
    const found = this.partsByName.get(name);
    if (found === undefined) {
      const known = this.parts.map((part) => part.name).join(", ");
      throw new BundleError(`${MANIFEST_NAME}: parts lacks ${quoted(name)}; it has ${known}`);
    }
    return found;
  }

  /** Finds a merging schedule; null gives the one that merges nothing, with the exits of the bundle itself. */
  schedule(name) {
    if (name === null) {
      const blocks = blockNames(this.tower.blocks);
      return { name: "none", merged: blocks.map(() => 0), blocks, tail: "tail", exits: this.exits };
    }
    const found = this.schedules.find((schedule) => schedule.name === name);
    if (found === undefined) {
      const known = this.schedules.map((schedule) => schedule.name).join(", ") || "none";
      throw new BundleError(`${MANIFEST_NAME}: there is no merging schedule ${quoted(name)}; it has ${known}`);
    }
    return found;
  }

  /** Names the merging schedule of an operating point; null where it merges nothing, or there is no such point. */
  scheduleOf(point) {
    return this.operating_points.find((one) => one.name === point)?.schedule ?? null;
  }

  /** Lists the parts that an image may reach under a merging schedule, in its order. */
  partsUnder(schedule) {
    const chosen = this.schedule(schedule);
    const exits = new Map(chosen.exits.map((exit) => [exit.block, exit.part]));
    const inOrder = chosen.blocks.flatMap((block, index) => {
      const exit = exits.get(index + 1);
      return exit === undefined ? [block] : [block, exit];
    });
    return ["stem", ...inOrder, chosen.tail];
  }

  /** Tells whether sums of two INT8 products may leave 16 bits, so that some CPUs need the exact kernel. */
  get saturates() {
    return this.quantization?.scheme === "static-qdq-u8s8";
  }

  /** Counts the FLOPs of one part for one image and `labelCount` labels. */
  flopsOf(name, labelCount) {
    const part = this.part(name);
    return part.flops + part.flops_per_label * labelCount;
  }
}

/**
 * Reads the content of a manifest.
 *
 * @param {Uint8Array} content of `manifest.json`
 * @returns {Manifest}
 * @throws {BundleError} it is not UTF-8 or JSON, of a newer format, or a key is unknown, missing or contradicts another
 */
export function decodeManifest(content) {
  const raw = parseJson(utf8(content, MANIFEST_NAME), MANIFEST_NAME);
  const version = raw instanceof Map ? raw.get("format") : undefined;
  if (typeof version !== "number") {
    throw new BundleError(`${MANIFEST_NAME}: format is ${quoted(version)}, wanted a number from 1 to ${FORMAT}`);
  }
  if (version < 1 || version > FORMAT) {
    throw new BundleError(
      `${MANIFEST_NAME}: format is ${version}, this version of lraee reads 1 to ${FORMAT}; update lraee or export ` +
        "again",
    );
  }
  const manifest = new Manifest(MANIFEST(raw, MANIFEST_NAME));
  checkConsistency(manifest);
  return manifest;
}

/** Decodes the bytes of a text file of a bundle. */
export function utf8(content, name) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
  } catch (error) {
    throw new BundleError(`${name} is not UTF-8 text; the bundle is damaged, export it again`, { cause: error });
  }
}
