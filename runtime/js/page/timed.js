/** Notes how long each part of one call takes, with whatever policy decides where images leave. */

/** Wraps a policy; `times` holds the parts of the latest call. */
export class Timed {
  /** @param {import("../index.d.ts").Policy} policy that decides */
  constructor(policy) {
    this.policy = policy;
    this.times = [];
  }

  /** Starts the time. */
  bind(manifest) {
    this.times = [];
    return new TimedRoute(this.policy.bind(manifest), this.times);
  }
}

/** Asks the wrapped route, and looks at the clock after each part. */
class TimedRoute {
  constructor(inner, times) {
    this.inner = inner;
    this.schedule = inner.schedule ?? null;
    this.times = times;
    this.began = performance.now();
  }

  visits(block) {
    return this.inner.visits(block);
  }

  leaves(block, verdict) {
    return this.inner.leaves(block, verdict);
  }

  stops(block) {
    return this.inner.stops?.(block) ?? false;
  }

  ran(part, images) {
    const now = performance.now();
    this.times.push({ part, ms: now - this.began });
    this.began = now;
    this.inner.ran?.(part, images);
  }

  lends(costs) {
    this.inner.lends?.(costs);
  }
}
