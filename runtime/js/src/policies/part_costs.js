/**
 * Remembers from call to call how long parts take on this device, for policies with a deadline.
 *
 * Blocks are alike, and so are exits: their times are kept together, separately for small and large batches. The first
 * run of each part does not count, because it makes the session. Source of the estimate: RFC 6298, section 2.
 */

/** How many mean deviations a prediction lies above the mean. */
const DEVIATIONS = 2;

/** Longer runs count as this many means: after one slow run a part must not look too costly to be tried again. */
const MOST = 4;

/** Estimates what parts cost; it has a fixed size. */
export class PartCosts {
  constructor() {
    this.seen = new Set();
    /** Kind of part -> size of batch -> mean and mean deviation of the milliseconds for one image. */
    this.estimates = new Map();
  }

  /**
   * Notes that a part has run.
   *
   * @param {string} part its name, such as `block_03`
   * @param {number} images how many it ran for
   * @param {number} ms for all of them together
   */
  note(part, images, ms) {
    if (!this.seen.has(part)) {
      this.seen.add(part);
      return;
    }
    const sizes = this.estimates.get(kindOfPart(part)) ?? new Map();
    this.estimates.set(kindOfPart(part), sizes);
    const each = ms / images;
    const known = sizes.get(sizeOf(images));
    if (known === undefined) {
      sizes.set(sizeOf(images), { mean: each, deviation: each / 2 });
      return;
    }
    const noted = Math.min(each, MOST * known.mean);
    known.deviation += (Math.abs(noted - known.mean) - known.deviation) / 4;
    known.mean += (noted - known.mean) / 8;
  }

  /**
   * Predicts milliseconds that parts will hardly exceed together; null while nothing is known.
   *
   * An exit or tail without an estimate counts as a block, and a batch size without one as the nearest.
   */
  predict(parts, images) {
    let ms = 0;
    for (const part of parts) {
      const known = this.nearest(kindOfPart(part), sizeOf(images)) ?? this.nearest("block", sizeOf(images));
      if (known === null) return null;
      ms += (known.mean + DEVIATIONS * known.deviation) * images;
    }
    return ms;
  }

  nearest(kind, size) {
    const sizes = [...(this.estimates.get(kind)?.keys() ?? [])];
    if (sizes.length === 0) return null;
    sizes.sort((one, other) => Math.abs(one - size) - Math.abs(other - size) || one - other);
    return this.estimates.get(kind).get(sizes[0]);
  }
}

/** Gives the kind of a part: `block` for `block_03`. */
function kindOfPart(part) {
  return part.split("_")[0];
}

/** Counts the bits of a number: batches up to twice as large have one size. */
function sizeOf(images) {
  return 32 - Math.clz32(images);
}
