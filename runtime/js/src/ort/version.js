/** Checks that the ONNX Runtime that was given is new enough for a bundle, and says what to install if it is not. */

import { BundleError, kindOf, SettingsError } from "../errors.js";

/** What bundles need that do not name a release: the first with every operator of set 23. */
const UNNAMED = "1.25";

/** How ONNX Runtime says that a graph has operators of a later release. */
const TOO_OLD =
  /Could not find an implementation for|is under development|Unsupported model IR version|No Op registered/;

/**
 * Tells which package `ort` is.
 *
 * @returns {"node" | "web"}
 * @throws {SettingsError} it is neither onnxruntime-node nor onnxruntime-web
 */
export function backendOf(ort) {
  const isThere = typeof ort?.InferenceSession?.create === "function" && typeof ort?.Tensor === "function";
  if (!isThere) {
    throw new SettingsError(
      `ort is ${kindOf(ort)}, wanted the module itself: import * as ort from "onnxruntime-node" (or "onnxruntime-web")`,
    );
  }
  return ort.env?.versions?.node !== undefined ? "node" : "web";
}

/** Names the package and its version for messages. */
export function installedVersion(ort) {
  return `onnxruntime-${backendOf(ort)} ${numbersOf(ort) ?? "of an unknown version"}`;
}

/** Refuses a bundle with parts that the given ONNX Runtime does not run. */
export function checkVersion(ort, wanted) {
  const installed = numbersOf(ort);
  if (wanted !== null && installed !== null && compare(installed, wanted) < 0) {
    throw new BundleError(
      `the bundle needs ONNX Runtime ${wanted} or newer, ${installedVersion(ort)} is installed; ${advice(ort, wanted)}`,
    );
  }
}

/** Writes one line on a graph that ONNX Runtime could not load. */
export function loadFailure(ort, name, reason) {
  const installed = numbersOf(ort);
  const isOld = TOO_OLD.test(reason) && installed !== null && compare(installed, UNNAMED) < 0;
  const hint = isOld ? `; bundles that name no version need ${UNNAMED} or newer: ${advice(ort, UNNAMED)}` : "";
  return `${name}: ${installedVersion(ort)} cannot load it: ${reason}${hint}`;
}

function numbersOf(ort) {
  const { versions } = ort.env ?? {};
  return versions?.[backendOf(ort)] ?? versions?.common ?? null;
}

function advice(ort, version) {
  return `npm install onnxruntime-${backendOf(ort)}@^${version}.0`;
}

/** Compares two releases by their numbers, such as 1.9 and 1.25.1. */
function compare(one, other) {
  const [left, right] = [one, other].map((version) => version.match(/\d+/g).slice(0, 3).map(Number));
  for (let at = 0; at < 3; at += 1) {
    const difference = (left[at] ?? 0) - (right[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
