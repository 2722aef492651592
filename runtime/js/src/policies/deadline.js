/**
 * All images of a batch get the best answer that can be computed in time: an anytime policy.
 *
 * After each block it estimates, from earlier calls, the time to the next answer: the blocks up to the next exit and
 * that exit, or the tail. If the time left covers it twice, the exit at hand is skipped; if it covers it once, the exit
 * is evaluated and its answer kept; otherwise this exit's answer, or the last one kept, is returned. The time counts
 * from the start of the call. There is always an answer: when the time is up before the first exit, the run goes on to
 * it. A model that has not yet timed its parts evaluates every exit; call `warm` before it matters.
 */

import { blockNames, partName } from "../bundle/names.js";
import { PolicyError, quoted } from "../errors.js";
import { Full } from "./full.js";
import { PartCosts } from "./part_costs.js";
import { bind } from "./route.js";

/** How many times the next answer must fit into the time left for an exit to be skipped. */
const AT_EASE = 2;

/** Ends the run when the time is up. */
export class Deadline {
  /**
   * @param {number} ms milliseconds from the start of the call; above 0
   * @param {{policy?: object | null, clock?: () => number}} [options] `policy`: another policy by which images may
   *   leave earlier; null lets the time alone decide. `clock` gives milliseconds.
   */
  constructor(ms, { policy = null, clock = () => performance.now() } = {}) {
    this.ms = ms;
    this.policy = policy;
    this.clock = clock;
  }

  /** Starts the time, and makes the route. */
  bind(manifest) {
    const begun = this.clock();
    if (typeof this.ms !== "number" || !(this.ms > 0 && this.ms < Infinity)) {
      throw new PolicyError(`the deadline is ${quoted(this.ms)} ms, wanted a time above 0, such as 40`);
    }
    const inner = bind(this.policy ?? new Full(), manifest);
    const { exits } = manifest.schedule(inner.schedule ?? null);
    if (exits.length === 0) {
      throw new PolicyError(
        "a deadline needs exits, and this bundle has none; export it again with lraee-export --exits all",
      );
    }
    const blocks = exits.map((exit) => exit.block);
    return new DeadlineRoute(begun + this.ms, this.clock, manifest.tower.blocks, blocks, inner);
  }
}

/** Compares the time left for one batch with what parts cost. */
class DeadlineRoute {
  constructor(end, clock, depth, exits, inner) {
    this.end = end;
    this.clock = clock;
    this.inner = inner;
    this.schedule = inner.schedule ?? null;
    this.exits = new Set(exits);
    this.ways = Array.from({ length: depth + 1 }, (_, block) => wayFrom(block, depth, exits));
    this.costs = new PartCosts();
    this.began = clock();
    this.images = 0;
    this.kept = false;
  }

  /** Uses the costs that the model knows of its parts, and adds to them. */
  lends(costs) {
    this.costs = costs;
  }

  /** Notes how long a part took, except the stem: its time includes the preprocessing. */
  ran(part, images) {
    const now = this.clock();
    if (part !== "stem") this.costs.note(part, images, now - this.began);
    this.began = now;
    this.images = images;
  }

  /** Tells whether an answer was kept and no better one can be computed in time. */
  stops(block) {
    const better = this.exits.has(block) ? [partName("exit", block)] : this.ways[block];
    return this.kept && !this.fits(better, this.images);
  }

  visits(block) {
    return this.inner.visits(block) || !this.fits(this.ways[block], this.images, AT_EASE);
  }

  leaves(block, verdict) {
    this.kept = true;
    const leaving = this.inner.visits(block) ? this.inner.leaves(block, verdict) : verdict.gate.map(() => false);
    const staying = leaving.filter((leaves) => !leaves).length;
    return this.fits(this.ways[block], staying) ? leaving : leaving.map(() => true);
  }

  /** Tells whether parts can run before the end; without an estimate, only that they can run once. */
  fits(parts, images, times = 1) {
    const left = this.end - this.clock();
    const predicted = this.costs.predict(parts, images);
    return predicted === null ? left > 0 && times === 1 : predicted * times <= left;
  }
}

/** Lists the parts after `block` up to the next answer. */
function wayFrom(block, depth, exits) {
  const following = exits.find((exit) => exit > block);
  if (following === undefined) return [...blockNames(depth).slice(block), "tail"];
  return [...blockNames(following).slice(block), partName("exit", following)];
}
