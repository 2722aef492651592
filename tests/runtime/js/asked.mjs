/**
 * Does in JavaScript what a test of Python asks for, so that the two can be compared.
 *
 *     node asked.mjs PACKAGE WHAT < request.json > answer.json
 *
 * PACKAGE is a copy of runtime/js with its node_modules. Arrays of pixels are files of bytes.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [, , home, what] = process.argv;
const file = (path) => pathToFileURL(join(home, "src", path)).href;
const { Adaptive, ExitAt, Full, load, preprocess } = await import(file("index.js"));
const ort = createRequire(join(home, "package.json"))("onnxruntime-node");
const request = JSON.parse(readFileSync(0, "utf8"));

/** Reads images of any size, one after the other in a file. */
function* imagesOf({ path, sizes, channels }) {
  const bytes = new Uint8Array(readFileSync(path));
  let start = 0;
  for (const [height, width] of sizes) {
    const data = bytes.subarray(start, start + height * width * channels);
    start += data.length;
    yield { data, width, height };
  }
}

function policyOf(word) {
  const [kind, value] = word.split("=");
  return kind === "adaptive"
    ? new Adaptive(value)
    : kind === "exit"
      ? new ExitAt(Number(value))
      : new Full(value ?? null);
}

const answers = {
  /** Classifies images with some policies: block, label, gate and embedding of each. */
  async classify({ bundle, images, policies }) {
    const model = await load(ort, bundle, { threads: 1 });
    const found = {};
    for (const word of policies) {
      found[word] = [];
      for (const image of imagesOf(images)) {
        const { exitBlock, index, gate, flops, embedding } = await model.classify(image, { policy: policyOf(word) });
        found[word].push({ exitBlock, index, gate, flops, embedding: Array.from(embedding) });
      }
    }
    return found;
  },

  /** Opens bundles and runs one image at full depth: what was said against each, or null. */
  async refuse({ bundles }) {
    const found = [];
    for (const path of bundles) {
      try {
        const model = await load(ort, path, { verify: "all", threads: 1 });
        const size = model.manifest.preprocessing.image_size;
        const image = { data: new Uint8Array(size * size * 3), width: size, height: size };
        await model.classify(image, { policy: new Full() });
        await model.classify(image);
        await model.release();
        found.push(null);
      } catch (error) {
        found.push(`${error.name}: ${error.message}`);
      }
    }
    return found;
  },

  /** Preprocesses images; the pixels are joined in hexadecimal digits. */
  async preprocess({ cases }) {
    return cases.map(({ images, preprocessing }) =>
      [...imagesOf(images)].map((image) => Buffer.from(preprocess(image, preprocessing)).toString("hex")),
    );
  },

  /** Tokenizes texts. */
  async tokens({ merges, texts }) {
    const { Tokenizer } = await import(file("labels/tokenizer.js"));
    const tokenizer = new Tokenizer(merges);
    return texts.map((text) => tokenizer.encode(text));
  },

  /** Embeds labels with the text tower. */
  async labels({ bundle, names }) {
    const model = await load(ort, bundle, { threads: 1 });
    const tower = await model.textTower();
    return (await tower.embedLabels(names, model.bundle.labels.templates)).map((row) => Array.from(row));
  },

  /** Lists the keys that are read, and the constants that a test makes another way. */
  async constants() {
    const { MANIFEST, LABEL_FILE } = await import(file("bundle/manifest_schema.js"));
    const { ENTITIES } = await import(file("labels/html_entities.js"));
    const { probe } = await import(file("ort/exact_kernel.js"));
    const keys = (schema) => ({ fields: Object.keys(schema.fields), optional: Object.keys(schema.defaults) });
    return {
      manifest: keys(MANIFEST),
      labels: keys(LABEL_FILE),
      parts: Object.fromEntries(
        ["model", "tower", "preprocessing", "labels"].map((key) => [key, keys(MANIFEST.fields[key])]),
      ),
      entities: Object.fromEntries(ENTITIES),
      probe: Buffer.from(probe()).toString("hex"),
    };
  },
};

process.stdout.write(JSON.stringify(await answers[what](request)));
