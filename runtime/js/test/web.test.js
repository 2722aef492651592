/** The same package runs on onnxruntime-web: here its WebAssembly in Node, in a browser the same file. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Adaptive, load, SettingsError } from "lraee";
import * as ort from "onnxruntime-web";

import { entriesOf, GOLDEN, readArrays, REFERENCE, zipOf } from "./helpers.js";

ort.env.wasm.numThreads = 1;

test("WebAssembly answers as Python does, under a merging schedule too", async () => {
  const model = await load(ort, zipOf(await entriesOf(`${GOLDEN}/format_3.lraee`)));
  const expected = await readArrays(`${GOLDEN}/format_3.expected.npz`);
  for (const { name } of model.manifest.operating_points) {
    const answers = await model.runPixels(expected.pixels.data, { policy: new Adaptive(name) });
    const blocks = Array.from(expected[`${name}_exit_block`].data, Number);
    assert.deepEqual(
      answers.map((answer) => answer.exitBlock),
      blocks,
    );
  }
});

test("the shipped bundle runs, and its text tower embeds new labels", async () => {
  const model = await load(ort, REFERENCE);
  await model.setLabels(["footwear", "garment", "bag"]);
  const { label, embedding } = await model.classify({ data: new Uint8Array(28 * 28 * 4), width: 28, height: 28 });
  assert.ok(model.labels.includes(label));
  assert.equal(embedding.length, 128);
});

test("threads are set for all sessions of onnxruntime-web, not for one model", async () => {
  await assert.rejects(load(ort, REFERENCE, { threads: 2 }), (error) => {
    assert.ok(error instanceof SettingsError);
    assert.match(error.message, /ort\.env\.wasm\.numThreads/);
    return true;
  });
});
