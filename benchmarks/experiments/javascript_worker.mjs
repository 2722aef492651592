/**
 * Runs a bundle at full depth in Node, as javascript.py tells it: one order a line, one JSON answer a line.
 *
 *     node javascript_worker.mjs BUNDLE PACKAGE THREADS
 */

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , bundle, home, threads] = process.argv;
const { Full, load } = await import(pathToFileURL(join(home, "src", "index.js")).href);
const ort = createRequire(join(home, "package.json"))("onnxruntime-node");

const settings = { threads: Number(threads), policy: new Full(), warm: true };
const model = await load(ort, bundle, settings);
const size = model.manifest.preprocessing.image_size;
const pixels = Uint8Array.from({ length: size * size * 3 }, (_, at) => (at * 7919) % 256);

/** The same runtime, with ONNX Runtime's default: an arena for each session. */
const withArenas = await load(
  { ...ort, InferenceSession: { create: (from, options) => ort.InferenceSession.create(from, { ...options, enableCpuMemArena: true }) } },
  bundle,
  settings,
);

const graph = await ort.InferenceSession.create(join(bundle, model.manifest.part("graph").graph), {
  ...model.sessions.options.session,
  enableCpuMemArena: true,
  enableMemPattern: true,
});
const feed = { pixels: new ort.Tensor("uint8", pixels, [1, size, size, 3]), ...model.partsFor(null).labelFeed };

const rows = {
  chain: () => model.runPixels(pixels),
  arenas: () => withArenas.runPixels(pixels),
  graph: () => graph.run(feed),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [what, calls] = line.split(" ");
  let answer = { onnxruntime: ort.env.versions.node, node: process.versions.node };
  if (what !== "versions") {
    await rows[what]();
    answer = [];
    for (let call = 0; call < Number(calls); call += 1) {
      const begun = performance.now();
      await rows[what]();
      answer.push(performance.now() - begun);
    }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
