/** Policies decide as Python's do: thresholds, classes, merging schedules, and the clock. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Adaptive, Deadline, ExitAt, Full, load, PolicyError } from "lraee";
import * as ort from "onnxruntime-node";

import { GOLDEN, readArrays, REFERENCE } from "./helpers.js";

const reference = await load(ort, REFERENCE, { threads: 1 });
const image = { data: Uint8Array.from({ length: 28 * 28 * 3 }, (_, at) => (at * 7) % 251), width: 28, height: 28 };
const depth = reference.manifest.tower.blocks;
const exits = reference.manifest.exits.map((exit) => exit.block);

test("thresholds of one's own replace those of a point", async () => {
  const leave = await reference.classify(image, { policy: new Adaptive({ thresholds: { 6: 0 } }) });
  assert.equal(leave.exitBlock, 6);
  const stay = await reference.classify(image, { policy: new Adaptive({ thresholds: { 6: 2 } }) });
  assert.equal(stay.exitBlock, depth);
  assert.equal(stay.gate, null);
  await assert.rejects(reference.classify(image, { policy: new Adaptive({ thresholds: { 6: NaN } }) }), PolicyError);
});

test("thresholds by class are those of the label that is most likely there", async () => {
  const model = await load(ort, `${GOLDEN}/format_1.lraee`, { threads: 1 });
  const expected = await readArrays(`${GOLDEN}/format_1.expected.npz`);
  const answers = await model.runPixels(expected.pixels.data, { policy: new Adaptive("by_class") });
  const blocks = Array.from(expected.by_class_exit_block.data, Number);
  assert.deepEqual(
    answers.map((answer) => answer.exitBlock),
    blocks,
  );
  assert.ok(new Set(blocks).size > 1, "some leave early and some do not");
  await model.setLabels(["a", "b"], {
    embeddings: [new Float32Array(16).fill(1), Float32Array.from({ length: 16 }, (_, at) => at)],
  });
  await assert.rejects(
    model.classify(image, { policy: new Adaptive("by_class") }),
    /for the 3 exported labels, the model now has 2/,
  );
});

test("a schedule runs its own parts, and its FLOPs are counted", async () => {
  const model = await load(ort, `${GOLDEN}/format_3.lraee`, { threads: 1 });
  const [schedule] = model.manifest.schedules;
  const names = [];
  const pixels = new Uint8Array(16 * 16 * 3).fill(7);
  const onPart = (part) => names.push(part);
  const [answer] = await model.runPixels(pixels, {
    policy: new ExitAt(schedule.exits[0].block, schedule.name),
    onPart,
  });
  assert.deepEqual(answer.visited, [schedule.exits[0].block]);
  const small = { data: pixels, width: 16, height: 16 };
  const merged = await model.classify(small, { policy: new Full(schedule.name) });
  const plain = await model.classify(small, { policy: new Full() });
  assert.ok(merged.flops < plain.flops);
  assert.deepEqual(names.slice(0, 2), ["stem", "block_01"]);
});

test("a deadline takes what fits by the clock", async () => {
  let now = 0;
  const clock = () => (now += 1); // each look at the clock takes a millisecond
  const blockOf = async (ms) => (await reference.classify(image, { policy: new Deadline(ms, { clock }) })).exitBlock;
  await blockOf(1e6); // makes the sessions, which do not count
  assert.equal(await blockOf(1e6), depth);
  assert.equal(await blockOf(0.5), exits[0], "the time is up before the first exit, and there is an answer");
  const found = [];
  for (const ms of [10, 20, 30, 40, 50]) found.push(await blockOf(ms));
  assert.ok(
    found.some((block) => block > exits[0] && block < depth),
    `left after blocks ${found}`,
  );
  assert.ok(found.every((block) => block === depth || exits.includes(block)));
});

test("a deadline lets another policy end a run earlier", async () => {
  const policy = new Deadline(1e6, { policy: new Adaptive({ thresholds: { [exits[1]]: 0 } }) });
  assert.equal((await reference.classify(image, { policy })).exitBlock, exits[1]);
});

test("a deadline needs exits", async () => {
  const route = { exits: [], schedules: [], tower: { blocks: 2 }, schedule: () => ({ exits: [] }) };
  assert.throws(() => new Deadline(40).bind(route), /export it again with lraee-export --exits all/);
});

test("a policy of one's own is asked at every exit, with what the exit computed", async () => {
  const asked = [];
  const own = {
    bind: () => ({
      visits: () => true,
      leaves: (block, verdict) => {
        asked.push(block);
        assert.equal(verdict.features[0].length, 3);
        return verdict.gate.map(() => block >= exits[2]);
      },
    }),
  };
  assert.equal((await reference.classify(image, { policy: own })).exitBlock, exits[2]);
  assert.deepEqual(asked, exits.slice(0, 3));
});

test("embeddings are those of full depth, unless a policy is given", async () => {
  const [full, early] = [await reference.embed(image), await reference.embed(image, { policy: new ExitAt(exits[0]) })];
  assert.deepEqual(full, (await reference.classify(image, { policy: new Full() })).embedding);
  assert.notDeepEqual(early, full);
  assert.ok(Math.abs(Math.hypot(...early) - 1) < 1e-3);
  assert.equal((await reference.embedBatch([image, image, image], { batchSize: 2 })).length, 3);
});
