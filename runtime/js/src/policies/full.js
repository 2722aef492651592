/** Every image runs to the end of the tower; no exit is visited. */

import { checkSchedule } from "./route.js";

/** Runs every image at full depth. */
export class Full {
  /** @param {string | null} [schedule] merging schedule to run under; null merges nothing */
  constructor(schedule = null) {
    this.schedule = schedule;
  }

  /** Gives the policy itself, which is its own route. */
  bind(manifest) {
    checkSchedule(this.schedule, manifest);
    return this;
  }

  visits() {
    return false;
  }

  leaves(block, verdict) {
    return verdict.gate.map(() => false);
  }
}
