/**
 * Runs a bundle in JavaScript as javascript.py tells it: one order a line, one JSON answer a line.
 *
 *     node javascript_worker.mjs BUNDLE PACKAGE THREADS RUNTIME
 *
 * RUNTIME is `node` or `web`.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , bundle, home, threads, runtime] = process.argv;
const { Adaptive, Full, load } = await import(pathToFileURL(join(home, "src", "index.js")).href);
const ort = createRequire(join(home, "package.json"))(`onnxruntime-${runtime}`);
if (runtime === "web") ort.env.wasm.numThreads = Number(threads);
const settings = runtime === "web" ? {} : { threads: Number(threads) };

/** Answers of each image of a file, at the default operating point. */
async function answers(path) {
  const model = await load(ort, bundle, settings);
  const request = JSON.parse(readFileSync(path, "utf8"));
  const pixels = new Uint8Array(readFileSync(request.path));
  const found = [];
  let start = 0;
  for (const [height, width] of request.sizes) {
    const data = pixels.subarray(start, start + height * width * 3);
    start += data.length;
    const { exitBlock, index, embedding } = await model.classify({ data, width, height });
    found.push({ exitBlock, index, embedding: Array.from(embedding) });
  }
  return found;
}

let held = null;

/** Reads preprocessed pixels, one image after the other, and loads the bundle to run them. */
async function hold(path) {
  const model = await load(ort, bundle, { ...settings, warm: true });
  const { image_size: size } = model.manifest.preprocessing;
  held = { model, bytes: size * size * 3, pixels: new Uint8Array(readFileSync(path)), policies: new Map() };
  return held.pixels.length / held.bytes;
}

/** Milliseconds, label and block of one of these images, at an operating point or without one at full depth. */
async function image(at, point) {
  const { model, bytes, pixels, policies } = held;
  if (!policies.has(point)) policies.set(point, point === undefined ? new Full() : new Adaptive(point));
  const begun = performance.now();
  const [{ probabilities, exitBlock }] = await model.runPixels(pixels.subarray(at * bytes, (at + 1) * bytes), {
    policy: policies.get(point),
  });
  return [performance.now() - begun, probabilities.indexOf(Math.max(...probabilities)), exitBlock];
}

/** The ways to run the tower at full depth that are timed. */
async function timedRows() {
  const atFullDepth = { ...settings, policy: new Full(), warm: true };
  const model = await load(ort, bundle, atFullDepth);
  const { image_size: size } = model.manifest.preprocessing;
  const pixels = Uint8Array.from({ length: size * size * 3 }, (_, at) => (at * 7919) % 256);
  const arena = { enableCpuMemArena: true };
  const create = (from, options) => ort.InferenceSession.create(from, { ...options, ...arena });
  const withArenas = await load({ ...ort, InferenceSession: { create } }, bundle, atFullDepth);
  const graph = await ort.InferenceSession.create(join(bundle, model.manifest.part("graph").graph), {
    ...model.sessions.options.session,
    ...arena,
    enableMemPattern: true,
  });
  const feed = { pixels: new ort.Tensor("uint8", pixels, [1, size, size, 3]), ...model.partsFor(null).labelFeed };
  return {
    chain: () => model.runPixels(pixels),
    arenas: () => withArenas.runPixels(pixels),
    graph: () => graph.run(feed),
  };
}

/** Milliseconds of some calls, after one that does not count: each by the clock, and of this process's CPU. */
async function timed(run, calls) {
  await run();
  const found = [];
  for (let call = 0; call < calls; call += 1) {
    const [begun, used] = [performance.now(), process.cpuUsage()];
    await run();
    const { user, system } = process.cpuUsage(used);
    found.push([performance.now() - begun, (user + system) / 1000]);
  }
  return found;
}

let rows = null;
const { versions } = ort.env;
for await (const line of createInterface({ input: process.stdin })) {
  const [what, rest] = [line.split(" ")[0], line.split(" ").slice(1).join(" ")];
  let answer;
  if (what === "versions") answer = { onnxruntime: versions[runtime] ?? versions.common, node: process.versions.node };
  else if (what === "answers") answer = await answers(rest);
  else if (what === "pixels") answer = await hold(rest);
  else if (what === "image") answer = await image(Number(rest.split(" ")[0]), rest.split(" ")[1]);
  else answer = await timed((rows ??= await timedRows())[what], Number(rest));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
