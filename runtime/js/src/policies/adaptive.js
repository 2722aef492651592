/**
 * Each image leaves at the first exit whose gate reaches that exit's threshold: LRA-EE.
 *
 * Leave at the first L with G_L >= tau_L (arXiv 2605.26415, section 3).
 */

import { PolicyError, quoted } from "../errors.js";
import { mostLikely } from "../engine/rows.js";

/** Leaves by the learned gates at one of the bundle's operating points. */
export class Adaptive {
  /**
   * @param {string | null | {thresholds: Record<number, number>}} [choice] name of an operating point, null for the
   *   bundle's default, or your own thresholds by block
   */
  constructor(choice = null) {
    this.choice = choice;
  }

  /** Looks up the thresholds of the operating point. */
  bind(manifest) {
    if (typeof this.choice === "object" && this.choice !== null) {
      return new AdaptiveRoute(ownThresholds(this.choice.thresholds, manifest), null);
    }
    const name = this.choice ?? manifest.default_point;
    const point = manifest.operating_points.find((one) => one.name === name);
    if (point === undefined) {
      const known = manifest.operating_points.map((one) => one.name).join(", ") || "none";
      throw new PolicyError(`there is no operating point ${quoted(name)}; this bundle has ${known}`);
    }
    return new AdaptiveRoute(new Map(point.thresholds.map((one) => [one.block, one])), point.schedule);
  }
}

/** Compares gates with the thresholds of an operating point. */
class AdaptiveRoute {
  constructor(thresholds, schedule) {
    this.thresholds = thresholds;
    this.schedule = schedule;
  }

  visits(block) {
    return this.thresholds.has(block);
  }

  leaves(block, verdict) {
    const { value, per_class: values } = this.thresholds.get(block);
    if (values === null) return verdict.gate.map((gate) => gate >= Math.fround(value));
    if (values.length !== verdict.labels) {
      throw new PolicyError(
        `the thresholds after block ${block} are for the ${values.length} exported labels, the model now has ` +
          `${verdict.labels}; give Adaptive your own thresholds`,
      );
    }
    return verdict.gate.map((gate, row) => gate >= Math.fround(values[mostLikely(verdict.probabilities[row])]));
  }
}

function ownThresholds(thresholds, manifest) {
  if (thresholds === null || typeof thresholds !== "object") {
    throw new PolicyError(`thresholds are ${quoted(thresholds)}, wanted numbers by block, such as {8: 0.9}`);
  }
  const blocks = manifest.exits.map((exit) => exit.block);
  return new Map(
    Object.entries(thresholds).map(([key, value]) => {
      if (typeof value !== "number" || Number.isNaN(value)) {
        throw new PolicyError(`the threshold of block ${key} is ${quoted(value)}, wanted a number, such as 0.9`);
      }
      const block = Number(key);
      if (!blocks.includes(block)) {
        const known = blocks.join(", ") || "no exits";
        throw new PolicyError(`there is no exit after block ${key}; this bundle has ${known}`);
      }
      return [block, { value, per_class: null }];
    }),
  );
}
