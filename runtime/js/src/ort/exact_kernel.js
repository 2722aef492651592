/**
 * Finds out whether INT8 products saturate on this CPU, and which session entry makes them exact.
 *
 * On x86 CPUs without VNNI instructions ONNX Runtime's fast kernel adds two products of uint8 and int8 in 16 bits,
 * where they saturate silently; `session.x64quantprecision` selects the exact, slower kernel. JavaScript cannot ask the
 * CPU, and some builds ignore the entry, so a product that would saturate is computed and looked at.
 */

import { BundleError } from "../errors.js";
import { installedVersion } from "./version.js";

/**
 * One MatMulInteger of x uint8 (4, 64) and a constant int8 (64, 32), as ONNX: what stands before the constant's bytes,
 * which are all 127, and what follows them. It names both zero points: releases up to 1.25 abort the process where the
 * entry meets a product without them. A test builds the same with the package onnx.
 */
const BEFORE = "CAg6+BAKIAoBeAoBdwoCeHoKAnd6EgF5Ig1NYXRNdWxJbnRlZ2VyEgVwcm9iZSqMEAhACCAQA0IBd0qAEA==";
const AFTER = "KgkQAkICeHpKAQAqCRADQgJ3ekoBAFoTCgF4Eg4KDAgCEggKAggECgIIQGITCgF5Eg4KDAgGEggKAggECgIIIEIECgAQCg==";

const ROWS = 4;
const LENGTH = 64;
const COLUMNS = 32;
const WEIGHT = 127;

/** What 64 products of 255 and 127 add up to; in 16 bits each two of them would be cut to 32,767. */
const EXACT = LENGTH * 255 * WEIGHT;

const ENTRY = { x64quantprecision: "1" };

/** What was found, by ONNX Runtime's module: all sessions of a module run on one CPU. */
const found = new WeakMap();

/**
 * Gives the session entries with which products are exact.
 *
 * @param {object} ort onnxruntime-node or onnxruntime-web
 * @param {object} options from `sessionOptions`
 * @returns {Promise<Record<string, string>>} entries below `session`, perhaps none
 * @throws {BundleError} products saturate with and without the entry
 */
export function exactKernelEntries(ort, options) {
  if (!found.has(ort)) {
    const looking = look(ort, options.session);
    found.set(ort, looking);
    looking.catch(() => found.delete(ort));
  }
  return found.get(ort);
}

async function look(ort, options) {
  if (await isExact(ort, options, {})) return {};
  if (await isExact(ort, options, ENTRY)) return ENTRY;
  throw new BundleError(
    `INT8 products saturate on this CPU, and ${installedVersion(ort)} does not heed session.x64quantprecision, so ` +
      "answers would be wrong; update it, or export the bundle again with lraee-export --no-saturation",
  );
}

async function isExact(ort, options, entries) {
  const session = await ort.InferenceSession.create(probe(), { ...options, extra: { session: entries } });
  const pixels = new ort.Tensor("uint8", new Uint8Array(ROWS * LENGTH).fill(255), [ROWS, LENGTH]);
  const { y } = await session.run({ x: pixels });
  await session.release();
  return y.data.every((sum) => sum === EXACT);
}

/** Gives the bytes of the probe. */
export function probe() {
  const [before, after] = [BEFORE, AFTER].map((text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)));
  const constant = new Uint8Array(LENGTH * COLUMNS).fill(WEIGHT);
  const model = new Uint8Array(before.length + constant.length + after.length);
  model.set(before);
  model.set(constant, before.length);
  model.set(after, before.length + constant.length);
  return model;
}
