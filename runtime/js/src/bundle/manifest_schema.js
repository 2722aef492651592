/** Lists the keys of `manifest.json` and `labels.json` with their types, formats 1 to 4; see docs/bundle-format.md. */

import { BundleError } from "../errors.js";
import { float, integer, listOf, mapOf, oneOf, orNull, record, text, threeOf } from "./schema.js";

const model = record({ id: text, weights: text, architecture: text, fingerprint: text });

const tower = record({
  blocks: integer,
  width: integer,
  heads: integer,
  mlp_width: integer,
  patch_size: integer,
  tokens: integer,
  embed_dim: integer,
  activation: oneOf("gelu", "quick_gelu", "gelu_tanh"),
  pooling: oneOf("cls", "patch_mean", "attention"),
});

const preprocessing = record(
  {
    image_size: integer,
    resize_mode: oneOf("shortest", "squash", "longest"),
    interpolation: oneOf("bicubic", "bilinear", "nearest"),
    mean: threeOf(float),
    std: threeOf(float),
    fill_color: integer,
  },
  {},
  (found, where) => {
    const { image_size: size, std, fill_color: fill } = found;
    if (size < 1) throw new BundleError(`${where}: image_size is ${size}; wanted at least 1 pixel`);
    if (Math.min(...std) <= 0) throw new BundleError(`${where}: std is ${std}; wanted three finite numbers above 0`);
    if (fill < 0 || fill > 255) {
      throw new BundleError(`${where}: fill_color is ${fill}; wanted a grey level of 0..255`);
    }
  },
);

const quantization = record({
  scheme: oneOf("static-qdq-u8s8", "static-qdq-u8s8-unsaturated"),
  quantizer: oneOf("naive", "strong"),
  ranges: text,
  images: integer,
  choices: mapOf(text),
});

const part = record({
  name: text,
  graph: text,
  data: orNull(text),
  flops: integer,
  flops_per_label: integer,
  operators: mapOf(integer),
});

const exit = record({
  block: integer,
  part: text,
  reads: oneOf("patch_mean", "cls", "both", "attention", "local"),
  supervision: oneOf("labels", "label-free"),
  temperature: float,
  gate: record({ weights: threeOf(float), bias: float }),
  information_to_noise: orNull(float),
  accuracy: orNull(float),
});

const threshold = record({ block: integer, value: float, per_class: orNull(listOf(float)) });

const point = record(
  {
    name: text,
    thresholds: listOf(threshold),
    flops_saved: float,
    accuracy: orNull(float),
    full_accuracy: orNull(float),
    schedule: orNull(text),
  },
  { schedule: null },
);

const schedule = record({
  name: text,
  merged: listOf(integer),
  blocks: listOf(text),
  tail: text,
  exits: listOf(exit),
});

const textTower = record({
  merges: text,
  tokenizer: text,
  context_length: integer,
  precision: oneOf("fp32", "fp16", "int8"),
});

/** Schema of `manifest.json`. */
export const MANIFEST = record(
  {
    format: integer,
    model,
    tower,
    preprocessing,
    precision: oneOf("int8", "fp32"),
    quantization: orNull(quantization),
    logit_scale: float,
    logit_bias: orNull(float),
    parts: listOf(part),
    exits: listOf(exit),
    operating_points: listOf(point),
    default_point: orNull(text),
    labels: record({ names: text, embeddings: text, count: integer }),
    text: orNull(textTower),
    files: listOf(record({ name: text, size_bytes: integer, sha256: text })),
    provenance: mapOf(text),
    probabilities: oneOf("softmax", "sigmoid"),
    onnxruntime: orNull(text),
    schedules: listOf(schedule),
  },
  { probabilities: "softmax", onnxruntime: null, schedules: Object.freeze([]) },
);

/** Schema of `labels.json`. */
export const LABEL_FILE = record({ names: listOf(text), templates: listOf(text) });
