/** Bundles of each released format answer what Python's runtime answered, from wherever they are read. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test } from "node:test";

import { Adaptive, Full, load } from "lraee";
import * as ort from "onnxruntime-node";

import { deflated, entriesOf, GOLDEN, readArrays, zipOf } from "./helpers.js";

const folders = [1, 2, 3, 4].map((format) => `${GOLDEN}/format_${format}.lraee`);
const temporary = await mkdtemp(join(tmpdir(), "lraee-test-"));
after(() => rm(temporary, { recursive: true }));

/** Compares a model with what Python answered at each operating point. */
async function checkAnswers(model, format, batchSize = Infinity) {
  const expected = await readArrays(`${GOLDEN}/format_${format}.expected.npz`);
  const { data: pixels, shape } = expected.pixels;
  for (const point of model.manifest.operating_points) {
    const size = Math.min(batchSize, shape[0]);
    const answers = [];
    for (let begin = 0; begin < shape[0]; begin += size) {
      const bytes = pixels.length / shape[0];
      const part = pixels.slice(begin * bytes, (begin + size) * bytes);
      answers.push(...(await model.runPixels(part, { policy: new Adaptive(point.name) })));
    }
    const blocks = Array.from(expected[`${point.name}_exit_block`].data, Number);
    assert.deepEqual(
      answers.map((answer) => answer.exitBlock),
      blocks,
      point.name,
    );
    const embeddings = expected[`${point.name}_embedding`];
    if (embeddings !== undefined) {
      answers.forEach((answer, row) => {
        const width = answer.embedding.length;
        const cosine = answer.embedding.reduce((sum, value, at) => sum + value * embeddings.data[row * width + at], 0);
        assert.ok(cosine > 0.999, `${point.name}: cosine ${cosine} of image ${row}`);
      });
    }
  }
}

for (const [index, folder] of folders.entries()) {
  test(`format ${index + 1} answers as in Python, in a batch and image by image`, async () => {
    const model = await load(ort, folder, { threads: 1, verify: "all", warm: true });
    assert.equal(model.manifest.format, index + 1);
    await checkAnswers(model, index + 1);
    await checkAnswers(model, index + 1, 1);
    await model.release();
    await checkAnswers(model, index + 1, 3);
  });
}

test("a zip file answers as its folder, stored or deflated, with a folder around and notes beside", async () => {
  const entries = await entriesOf(folders[2]);
  await checkAnswers(await load(ort, zipOf(entries), { verify: "all" }), 3);
  const around = await Promise.all(
    entries.map(async ({ name, content }) => ({
      name: `small.lraee/${name}`,
      content,
      packed: await deflated(content),
      method: 8,
    })),
  );
  around.unshift({ name: "small.lraee/", content: new Uint8Array() });
  around.push({ name: "small.lraee/NOTES.txt", content: new Uint8Array([1]) });
  const path = join(temporary, "small.zip");
  await writeFile(path, zipOf(around));
  await checkAnswers(await load(ort, path, { verify: "all" }), 3);
  await checkAnswers(await load(ort, new Blob([zipOf(entries)]), { verify: "all" }), 3);
});

test("a server gives a folder or a zip file", async () => {
  const archive = zipOf(await entriesOf(folders[1]));
  const asked = [];
  const server = createServer(async (request, response) => {
    asked.push(request.url);
    response.end(request.url.endsWith(".zip") ? archive : await readFile(`${folders[1]}/${basename(request.url)}`));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const address = `http://127.0.0.1:${server.address().port}/models/two.lraee`;
    const model = await load(ort, address);
    assert.deepEqual(
      asked,
      ["manifest.json", "labels.json", "labels.npy"].map((name) => `/models/two.lraee/${name}`),
    );
    await checkAnswers(model, 2);
    await checkAnswers(await load(ort, new URL(`${address}.zip`), { verify: "all" }), 2);
  } finally {
    server.close();
  }
});

test("files may be links to elsewhere, as in a cache", async () => {
  const folder = join(temporary, "linked.lraee");
  await mkdir(folder);
  for (const { name } of await entriesOf(folders[2])) await symlink(`${folders[2]}/${name}`, join(folder, name));
  await checkAnswers(await load(ort, folder, { verify: "all" }), 3);
});

test("calls that wait for one another do not share tokens", async () => {
  const model = await load(ort, folders[3]);
  const size = model.manifest.preprocessing.image_size;
  const images = Array.from({ length: 6 }, (_, image) => ({
    data: Uint8Array.from({ length: size * size * 4 }, (_, at) => (at * (image + 3) * 29) % 256),
    width: size,
    height: size,
  }));
  const policy = new Full();
  const apart = [];
  for (const image of images) apart.push((await model.classify(image, { policy })).embedding);
  const together = await Promise.all(images.map((image) => model.classify(image, { policy })));
  assert.deepEqual(
    together.map((one) => one.embedding),
    apart,
  );
});
