/** Every image leaves after the same block, whatever the gate says. */

import { PolicyError, quoted } from "../errors.js";
import { checkSchedule } from "./route.js";

/** Lets every image leave at one exit. */
export class ExitAt {
  /**
   * @param {number} block counted from 1; the bundle must have an exit there
   * @param {string | null} [schedule] merging schedule to run under; null merges nothing
   */
  constructor(block, schedule = null) {
    this.block = block;
    this.schedule = schedule;
  }

  /** Checks that the bundle has the exit. */
  bind(manifest) {
    checkSchedule(this.schedule, manifest);
    const { exits } = manifest.schedule(this.schedule);
    if (!exits.some((exit) => exit.block === this.block)) {
      const known = exits.map((exit) => exit.block).join(", ") || "no exits";
      throw new PolicyError(`there is no exit after block ${quoted(this.block)}; this bundle has ${known}`);
    }
    return this;
  }

  visits(block) {
    return block === this.block;
  }

  leaves(block, verdict) {
    return verdict.gate.map(() => true);
  }
}
