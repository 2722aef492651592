/** What is refused, and in which words: what was met, what was wanted, and what to do. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { Adaptive, BundleError, Deadline, ExitAt, Full, ImageError, LabelsError, load } from "lraee";
import { PolicyError, SettingsError } from "lraee";
import * as ort from "onnxruntime-node";

import { entriesOf, GOLDEN, REFERENCE, zipOf } from "./helpers.js";

const FORMAT_3 = `${GOLDEN}/format_3.lraee`;
const temporary = await mkdtemp(join(tmpdir(), "lraee-test-"));
after(() => rm(temporary, { recursive: true }));
const entries = await entriesOf(FORMAT_3);
const small = await load(ort, FORMAT_3);
const grey = { data: new Uint8Array(16 * 16 * 3).fill(99), width: 16, height: 16 };

/** Expects an error of a kind whose message has some words. */
function refused(promise, kind, ...words) {
  return assert.rejects(promise, (error) => {
    assert.ok(error instanceof kind, `${error.name}: ${error.message}`);
    for (const word of words) assert.ok(error.message.includes(word), `${error.message}\nlacks: ${word}`);
    return true;
  });
}

/** The archive with its entries changed. */
function changed(change) {
  const copies = entries.map((entry) => ({ ...entry }));
  change(copies);
  return zipOf(copies);
}

/** Changes an entry that is a manifest. */
function rewrite(entry, change) {
  const manifest = JSON.parse(new TextDecoder().decode(entry.content));
  change(manifest);
  entry.content = entry.packed = new TextEncoder().encode(JSON.stringify(manifest));
}

/** The archive with its manifest changed. */
function manifestWith(change) {
  return changed(([first]) => rewrite(first, change));
}

const ARCHIVES = {
  "a path out of it": [
    (all) => all.push({ name: "../evil", content: grey.data }),
    "not a plain file beside manifest.json",
  ],
  "an absolute path": [(all) => all.push({ name: "/etc/evil", content: grey.data }), "not a plain file"],
  "a path of Windows": [(all) => all.push({ name: "..\\evil", content: grey.data }), "not a plain file"],
  "a folder inside": [(all) => all.push({ name: "weights/evil.onnx", content: grey.data }), "not a plain file"],
  "a link": [(all) => Object.assign(all.at(-1), { mode: 0o120777 }), "not a plain file"],
  "one name twice": [(all) => all.push({ ...all.at(-1) }), "twice"],
  "an encrypted file": [(all) => Object.assign(all.at(-1), { flags: 0x801 }), "encrypted or compressed"],
  "another compression": [(all) => Object.assign(all.at(-1), { method: 14 }), "encrypted or compressed"],
  "a missing file": [(all) => all.splice(2, 1), "is missing from the zip file"],
  "no manifest": [(all) => all.shift(), "has no manifest.json"],
  "a longer file": [
    (all) => Object.assign(all[3], { content: new Uint8Array(9), packed: new Uint8Array(9) }),
    "the manifest says",
  ],
  "thousands of files": [
    (all) => all.push(...Array.from({ length: 2000 }, (_, at) => ({ name: `n${at}`, content: new Uint8Array() }))),
    "more than any bundle",
  ],
  "a file that inflates beyond its size": [
    (all) =>
      Object.assign(all.at(-1), {
        method: 8,
        packed: new Uint8Array([1, 5, 0, 250, 255, 1, 2, 3, 4, 5]),
        content: new Uint8Array(all.at(-1).content.length),
      }),
    "no zip file, or damaged",
  ],
};

for (const [name, [change, words]] of Object.entries(ARCHIVES)) {
  test(`an archive with ${name} is refused`, () =>
    refused(load(ort, changed(change), { verify: "all" }), BundleError, words));
}

test("an archive that is cut off, or none, is refused", async () => {
  const whole = zipOf(entries);
  for (const bytes of [
    whole.subarray(0, whole.length - 30),
    whole.subarray(30),
    new Uint8Array(),
    new Uint8Array(5000),
  ]) {
    await refused(load(ort, bytes), BundleError, "is no zip file, or damaged");
  }
});

const MANIFESTS = {
  "a newer format": [(m) => (m.format = 5), "format is 5, this version of lraee reads 1 to 4; update lraee"],
  "a format that is none": [(m) => (m.format = true), "format is true, wanted a number from 1 to 4"],
  "an unknown key": [(m) => (m.tower.spin = 1), "manifest.json: tower has the unknown key 'spin'"],
  "a missing key": [(m) => delete m.tower.width, "manifest.json: tower lacks the key 'width'"],
  "a path as a name": [(m) => (m.files[0].name = "../x"), "wanted a plain name inside the bundle folder"],
  "a part that is missing": [(m) => m.parts.splice(0, 1), "parts lacks"],
  "a block beyond the depth": [(m) => (m.exits[0].block = 99), "wanted rising numbers up to the depth"],
  "a schedule that is unknown": [(m) => (m.operating_points[0].schedule = "x"), "which is not there"],
  "a threshold without exit": [(m) => (m.operating_points[0].thresholds[0].block = 1), "which has no exit"],
  "a promise of terabytes": [(m) => m.files.forEach((file) => (file.size_bytes = 2 ** 42)), "wanted at most"],
};

for (const [name, [change, words]] of Object.entries(MANIFESTS)) {
  test(`a manifest with ${name} is refused`, () => refused(load(ort, manifestWith(change)), BundleError, words));
}

test("a key that stands twice in one object is refused, though JSON.parse takes it", async () => {
  const bytes = changed(([first]) => {
    const text = new TextDecoder().decode(first.content).replace('"format"', '"format": 1, "format"');
    first.content = first.packed = new TextEncoder().encode(text);
  });
  await refused(load(ort, bytes), BundleError, "has the key 'format' twice");
});

test("a whole number with a point is refused where a count is wanted", async () => {
  const bytes = changed(([first]) => {
    const text = new TextDecoder().decode(first.content).replace(/"width": (\d+)/, '"width": $1.0');
    first.content = first.packed = new TextEncoder().encode(text);
  });
  await refused(load(ort, bytes), BundleError, "tower.width", "wanted a whole number");
});

test("a file with another hash is refused when it is first used, at once with verify", async () => {
  const folder = join(temporary, "damaged.lraee");
  await mkdir(folder);
  for (const { name } of entries) await copyFile(`${FORMAT_3}/${name}`, join(folder, name));
  const weights = await readFile(join(folder, "block_02.data"));
  weights[100] ^= 1;
  await writeFile(join(folder, "block_02.data"), weights);
  const model = await load(ort, folder);
  await refused(
    model.classify(grey, { policy: new Full() }),
    BundleError,
    "block_02.data has SHA-256",
    "export it again",
  );
  await refused(load(ort, folder, { verify: "all" }), BundleError, "block_02.data has SHA-256");
});

test("a graph that keeps weights elsewhere is refused before ONNX Runtime opens them", async () => {
  const bytes = changed((all) => {
    const graph = all.find((entry) => entry.name === "block_01.onnx");
    const text = Buffer.from(graph.content).toString("latin1").replaceAll("block_01.data", "../passwd_xxx");
    graph.content = graph.packed = new Uint8Array(Buffer.from(text, "latin1"));
    const digest = createHash("sha256").update(graph.content).digest("hex");
    rewrite(all[0], (manifest) => (manifest.files.find((file) => file.name === graph.name).sha256 = digest));
  });
  const model = await load(ort, bytes);
  await refused(model.classify(grey, { policy: new Full() }), BundleError, "external data is at '../passwd_xxx'");
  await refused(load(ort, bytes, { verify: "all" }), BundleError, "external data is at '../passwd_xxx'");
});

test("settings and policies that are unknown are refused with what is there", async () => {
  await refused(load({}, FORMAT_3), SettingsError, 'import * as ort from "onnxruntime-node"');
  await refused(load(ort, FORMAT_3, { thread: 1 }), SettingsError, "'thread' is unknown; wanted threads");
  await refused(load(ort, FORMAT_3, { threads: 0 }), SettingsError, "wanted a whole number from 1");
  await refused(load(ort, FORMAT_3, { verify: "some" }), SettingsError, "wanted 'parts' or 'all'");
  await refused(load(ort, 7), BundleError, "the bundle is a number");
  await refused(load(ort, "nowhere.lraee"), BundleError, "'nowhere.lraee' is not a folder");
  await refused(small.classify(grey, { policy: "full" }), PolicyError, "wanted an object such as new Full()");
  await refused(
    small.classify(grey, { policy: new Adaptive("slow") }),
    PolicyError,
    "no operating point 'slow'; this bundle has balanced",
  );
  await refused(
    small.classify(grey, { policy: new ExitAt(3) }),
    PolicyError,
    "no exit after block 3; this bundle has 2",
  );
  await refused(small.classify(grey, { policy: new Full("x") }), PolicyError, "no merging schedule 'x'");
  await refused(small.classify(grey, { policy: new Deadline(0) }), PolicyError, "wanted a time above 0");
  await refused(small.classify(grey, { top: 0 }), SettingsError, "top is 0");
});

test("images that are none are refused", async () => {
  await refused(small.classify("cat.jpg"), ImageError, "wanted {data, width, height}");
  await refused(small.classify({ ...grey, width: 15 }), ImageError, "768 bytes for 15 x 16 pixels");
  await refused(small.classify({ ...grey, data: new Float32Array(768) }), ImageError, "scale other numbers to 0..255");
  await refused(small.classifyBatch([grey, { ...grey, height: 0 }]), ImageError, "images[1]: ");
  const narrow = { data: new Uint8Array(3 * 2 ** 20), width: 1, height: 2 ** 20 };
  const model = await load(ort, REFERENCE);
  await refused(
    model.classify({ ...narrow, data: new Uint8Array(9e6), height: 3e6 }),
    ImageError,
    "too narrow to classify",
  );
});

test("labels that are none are refused", async () => {
  const model = await load(ort, REFERENCE);
  await refused(model.setLabels("cat"), LabelsError, "wanted a list such as");
  await refused(model.setLabels(["cat"]), LabelsError, "met 1 labels, 1 different; wanted at least two");
  await refused(model.setLabels(["cat", " "]), LabelsError, "label 2 of 2 is blank");
  await refused(model.setLabels(["cat", "Cat"]), LabelsError, "are one to the text tower");
  await refused(model.setLabels(["cat", "dog"], { templates: ["a photo"] }), LabelsError, "exactly one {}");
  await refused(small.setLabels(["cat", "dog"]), LabelsError, "this bundle has no text tower");
  const same = [new Float32Array(16).fill(1), new Float32Array(16).fill(2)];
  await refused(small.setLabels(["cat", "dog"], { embeddings: same }), LabelsError, "have the same embedding");
  await refused(small.setLabels(["cat", "dog"], { embeddings: [[1]] }), LabelsError, "wanted 2 rows of 16 numbers");
});
