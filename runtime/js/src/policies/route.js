/**
 * Binds a policy to a bundle, which gives a route: the policy applied to one batch.
 *
 * A route has `visits(block)`, whether to evaluate the exit after a block, `leaves(block, verdict)`, which images leave
 * there, and perhaps `schedule`, the merging schedule that it runs under. One that may end a run between two exits has
 * `stops(block)`, `ran(part, images)` and `lends(costs)` too.
 */

import { PolicyError, quoted } from "../errors.js";

/** Checks a policy that was passed in, and binds it. */
export function bind(policy, manifest) {
  if (typeof policy?.bind !== "function" || typeof policy === "function") {
    throw new PolicyError(`the policy is ${quoted(policy)}, wanted an object such as new Full() or new Adaptive()`);
  }
  return policy.bind(manifest);
}

/** Refuses a merging schedule that a bundle does not have. */
export function checkSchedule(schedule, manifest) {
  const there = manifest.schedules.map((one) => one.name);
  if (schedule !== null && !there.includes(schedule)) {
    throw new PolicyError(
      `there is no merging schedule ${quoted(schedule)}; this bundle has ${there.join(", ") || "none"}`,
    );
  }
}

/** Tells whether a route may end a run between two exits. */
export function isAnytime(route) {
  return typeof route.stops === "function";
}
