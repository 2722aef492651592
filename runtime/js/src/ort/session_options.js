/**
 * Chooses the options of all sessions, by which a chain of parts costs what one graph costs.
 *
 * - No arena of their own: with one for each session, activations never stay in cache. Python's runtime shares one
 *   arena among them, which JavaScript cannot set up; the allocator of the C library serves all sessions alike.
 * - Threads sleep until there is work for them, and no memory pattern is planned.
 */

import { kindOf, quoted, SettingsError } from "../errors.js";
import { backendOf } from "./version.js";

/** At most, as in Python's runtime. */
const THREADS_PER_CORE = 4;

/** Work of a block on one image from which more than one thread pays. */
const PAYING_FLOPS = 200_000_000;

/**
 * Makes the options.
 *
 * @param {object} ort onnxruntime-node or onnxruntime-web
 * @param {import("../bundle/manifest.js").Manifest} manifest of the bundle
 * @param {number | null} threads that run one operator; null takes one for each core, or 1 where blocks are small
 * @returns {{session: object, isNative: boolean, threads: number | null}} `isNative`: whether sessions open files, and
 *   write their outputs into tensors that are given to them
 * @throws {SettingsError} the number of threads is none, or cannot be set here
 */
export function sessionOptions(ort, manifest, threads) {
  const isNode = backendOf(ort) === "node";
  const common = { executionProviders: [isNode ? "cpu" : "wasm"], enableCpuMemArena: false, enableMemPattern: false };
  if (!isNode) {
    if (threads !== null) {
      throw new SettingsError(
        `threads is ${quoted(threads)}, which onnxruntime-web takes for all sessions: set ort.env.wasm.numThreads ` +
          "before anything is loaded",
      );
    }
    return { session: { ...common, logSeverityLevel: 3, extra: {} }, isNative: false, threads: null };
  }
  const chosen = threads ?? defaultThreads(manifest);
  const cores = availableCores();
  if (!Number.isSafeInteger(chosen) || chosen < 1 || chosen > THREADS_PER_CORE * cores) {
    throw new SettingsError(
      `threads is ${quoted(threads)} (${kindOf(threads)}), wanted a whole number from 1 to ` +
        `${THREADS_PER_CORE * cores}, ${THREADS_PER_CORE} for each core of this machine`,
    );
  }
  const extra = { session: { intra_op: { allow_spinning: "0" }, force_spinning_stop: "1" } };
  const session = { ...common, intraOpNumThreads: chosen, interOpNumThreads: 1, logSeverityLevel: 3, extra };
  return { session, isNative: true, threads: chosen };
}

/** Chooses one thread for each core where blocks are large, and 1 elsewhere. */
export function defaultThreads(manifest) {
  const blocks = manifest.parts.filter((part) => part.name.startsWith("block_"));
  return Math.max(...blocks.map((part) => part.flops)) >= PAYING_FLOPS ? availableCores() : 1;
}

/** Counts the cores that Node may use. */
function availableCores() {
  const { process, navigator } = globalThis;
  const os = process?.getBuiltinModule?.("node:os");
  return os?.availableParallelism() ?? navigator?.hardwareConcurrency ?? 1;
}
