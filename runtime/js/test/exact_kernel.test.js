/** Products that saturate are found by computing one, and the exact kernel is asked for, or the bundle refused. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { BundleError, Full, load } from "lraee";
import * as ort from "onnxruntime-node";

import { exactKernelEntries } from "../src/ort/exact_kernel.js";
import { GOLDEN } from "./helpers.js";

/**
 * ONNX Runtime as on a CPU without VNNI instructions: the probe gives what 16 bits hold, unless the entry is heeded.
 *
 * Other models are run by the real one; `made` collects the options of every session.
 */
function saturating(heedsEntry) {
  const made = [];
  const create = async (model, options) => {
    made.push(options);
    const session = await ort.InferenceSession.create(model, options);
    if (session.inputNames.join() !== "x") return session;
    const isExact = heedsEntry && options.extra.session.x64quantprecision === "1";
    const run = async () => ({ y: { data: Int32Array.of(isExact ? 64 * 255 * 127 : 32 * 32767) } });
    return { run, release: () => session.release() };
  };
  return { made, module: { ...ort, InferenceSession: { create } } };
}

const pixels = new Uint8Array(16 * 16 * 3);

test("this machine's kernels are exact, with the entry where they need it", async () => {
  const model = await load(ort, `${GOLDEN}/format_2.lraee`);
  await model.runPixels(pixels);
  const entries = await exactKernelEntries(ort, model.sessions.options);
  assert.ok(["{}", '{"x64quantprecision":"1"}'].includes(JSON.stringify(entries)));
});

test("where products saturate, all sessions get the entry", async () => {
  const { made, module } = saturating(true);
  const model = await load(module, `${GOLDEN}/format_2.lraee`);
  await model.runPixels(pixels, { policy: new Full() });
  const [first, second, ...parts] = made.map((options) => options.extra.session.x64quantprecision);
  assert.deepEqual([first, second], [undefined, "1"]);
  assert.ok(parts.length > 3);
  assert.deepEqual(new Set(parts), new Set(["1"]));
});

test("where the entry is not heeded, the bundle is refused with the way out", async () => {
  const { module } = saturating(false);
  await assert.rejects(load(module, `${GOLDEN}/format_2.lraee`), (error) => {
    assert.ok(error instanceof BundleError);
    assert.match(error.message, /INT8 products saturate on this CPU, and onnxruntime-node .* export the bundle again/);
    return true;
  });
});

test("bundles whose products cannot saturate, or that are FP32, are not asked", async () => {
  const { made, module } = saturating(false);
  const model = await load(module, `${GOLDEN}/format_4.lraee`);
  await model.runPixels(pixels);
  assert.ok(made.length > 0 && made.every((options) => options.extra.session.x64quantprecision === undefined));
});
