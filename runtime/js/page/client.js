/** Asks a worker that runs a bundle. A new bundle gets a new worker, which frees the memory of the last one. */

/** A fault that is told to the person in its own words. */
export class PageError extends Error {}

/** What was asked is no longer wanted, because another bundle was chosen; nobody is told. */
export class Ended extends Error {}

/** Speaks with one worker. */
export class Client {
  constructor() {
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.count = 0;
    this.worker.addEventListener("message", ({ data }) => this.take(data));
    this.worker.addEventListener("error", (event) => {
      const message = event.message || "its files cannot be loaded; reload the page";
      this.rejectAll(new PageError(`The model cannot be run: ${message}`));
    });
  }

  /**
   * Asks for something.
   *
   * @param {string} what a method of Runner
   * @param {object} given its argument
   * @param {{tell?: (state: object) => void, transfer?: Transferable[]}} [more] `tell` is told how far it is
   */
  ask(what, given, { tell = () => {}, transfer = [] } = {}) {
    return new Promise((resolve, reject) => {
      const id = (this.count += 1);
      this.waiting.set(id, { resolve, reject, tell });
      this.worker.postMessage({ id, what, given }, transfer);
    });
  }

  /** Ends the worker. */
  end() {
    this.worker.terminate();
    this.rejectAll(new Ended());
  }

  rejectAll(error) {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  take({ id, state, answer, error }) {
    if (!this.waiting.has(id)) return undefined; // it came after the end
    const { resolve, reject, tell } = this.waiting.get(id);
    if (state !== undefined) return tell(state);
    this.waiting.delete(id);
    return error === undefined ? resolve(answer) : reject(new PageError(error.message));
  }
}
