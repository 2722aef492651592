/** A loaded bundle: it classifies images, embeds them, and changes its labels. */

import { BufferPool } from "./engine/buffers.js";
import { run } from "./engine/orchestrator.js";
import { Parts } from "./engine/parts.js";
import { Sessions } from "./engine/sessions.js";
import { ImageError, kindOf, quoted, SettingsError } from "./errors.js";
import { preprocess } from "./images/preprocess.js";
import { checkNames, checkTemplates, Labels, unitLabels } from "./labels/labels.js";
import { TextTower } from "./labels/text_tower.js";
import { Adaptive } from "./policies/adaptive.js";
import { Full } from "./policies/full.js";
import { PartCosts } from "./policies/part_costs.js";
import { bind, isAnytime } from "./policies/route.js";
import { predictionOf } from "./prediction.js";

/** Classifies and embeds images with a loaded bundle; `load` makes it. */
export class Model {
  /** Use `load`. */
  constructor(ort, bundle, options, policy) {
    this.ort = ort;
    this.bundle = bundle;
    this.sessions = new Sessions(ort, bundle, options);
    this.buffers = new BufferPool(ort, bundle.manifest.tower);
    this.costs = new PartCosts();
    this.useLabels(new Labels(bundle.labels.names, bundle.labelEmbeddings));
    this.policy = policy ?? (bundle.manifest.default_point === null ? new Full() : new Adaptive());
    bind(this.policy, bundle.manifest);
  }

  /** The manifest of the bundle: its model, parts, exits and operating points. */
  get manifest() {
    return this.bundle.manifest;
  }

  /** Names of the labels, in the order of the probabilities. */
  get labels() {
    return this.current.labels.names;
  }

  /** Threads that run one operator; null where onnxruntime-web decides. */
  get threads() {
    return this.sessions.options.threads;
  }

  /** Classifies one image. */
  async classify(image, settings) {
    const [prediction] = await this.classifyBatch([image], settings);
    return prediction;
  }

  /** Classifies images in batches; each leaves at its own depth, and the others are compacted. */
  async classifyBatch(images, { policy = null, top = 5, batchSize = 8 } = {}) {
    checkCount("top", top);
    checkCount("batchSize", batchSize);
    const list = listOf(images);
    const { labels } = this.current;
    const predictions = [];
    for (let begin = 0; begin < list.length; begin += batchSize) {
      const { answers, schedule } = await this.runImages(list.slice(begin, begin + batchSize), policy, begin);
      answers.forEach((answer, at) => {
        const more = { names: labels.names, schedule, top, position: begin + at };
        predictions.push(predictionOf(answer, this.manifest, more));
      });
    }
    return predictions;
  }

  /** Embeds one image, (embed_dim) of unit length; at full depth unless a policy is given. */
  async embed(image, settings) {
    const [embedding] = await this.embedBatch([image], settings);
    return embedding;
  }

  /** Embeds images in batches. */
  async embedBatch(images, { policy = new Full(), batchSize = 8 } = {}) {
    checkCount("batchSize", batchSize);
    const list = listOf(images);
    const embeddings = [];
    for (let begin = 0; begin < list.length; begin += batchSize) {
      const { answers } = await this.runImages(list.slice(begin, begin + batchSize), policy, begin);
      for (const answer of answers) embeddings.push(Float32Array.from(answer.embedding));
    }
    return embeddings;
  }

  /** Embeds texts as they are, without a template; one of unit length for each. */
  async embedText(texts) {
    const list = typeof texts === "string" ? [texts] : [...texts];
    return (await this.textTower()).embed(list);
  }

  /** Classifies among other labels from now on; calls that run already finish with those they began with. */
  async setLabels(names, { templates = this.bundle.labels.templates, embeddings = null } = {}) {
    const checked = checkNames(names);
    const own = embeddings ?? (await (await this.textTower()).embedLabels(checked, checkTemplates(templates)));
    this.useLabels(unitLabels(checked, own, this.manifest.tower.embed_dim));
  }

  /** Makes all sessions now that the model's policy may reach, instead of when an image first reaches them. */
  async warm() {
    const schedule = bind(this.policy, this.manifest).schedule ?? null;
    await this.sessions.warm(this.manifest.partsUnder(schedule));
  }

  /** Frees the sessions; a call that comes later makes them again. */
  async release() {
    await this.sessions.release();
  }

  /**
   * Runs preprocessed pixels as one batch.
   *
   * @returns {Promise<object[]>} for each image embedding, probabilities, exitBlock, blocksRun, early, gate and visited
   */
  async runPixels(pixels, { policy = null, onPart } = {}) {
    const size = this.manifest.preprocessing.image_size;
    const batch = pixels?.length / (size * size * 3);
    if (!(pixels instanceof Uint8Array) || !Number.isSafeInteger(batch) || batch < 1) {
      throw new ImageError(
        `pixels are ${kindOf(pixels)} of ${pixels?.length} bytes, wanted a Uint8Array (batch, ${size}, ${size}, 3)`,
      );
    }
    return (await this.runRoute(pixels, batch, this.route(policy), onPart)).answers;
  }

  async runImages(images, policy, begin) {
    const route = this.route(policy); // before preprocessing: a deadline counts from here
    const size = this.manifest.preprocessing.image_size;
    const bytes = size * size * 3;
    const pixels = new Uint8Array(images.length * bytes);
    images.forEach((image, at) => {
      try {
        pixels.set(preprocess(image, this.manifest.preprocessing), at * bytes);
      } catch (error) {
        if (!(error instanceof ImageError) || images.length + begin === 1) throw error;
        throw new ImageError(`images[${begin + at}]: ${error.message}`, { cause: error });
      }
    });
    return this.runRoute(pixels, images.length, route);
  }

  async runRoute(pixels, batch, route, onPart) {
    const size = this.manifest.preprocessing.image_size;
    const schedule = route.schedule ?? null;
    const parts = this.partsFor(schedule);
    const tensor = new this.ort.Tensor("uint8", pixels, [batch, size, size, 3]);
    const answers = await this.buffers.with((buffers) => run(parts, tensor, route, buffers, onPart));
    return { answers, schedule };
  }

  /** Binds a policy, by default the model's, to this bundle; a deadline learns what parts cost here. */
  route(policy) {
    const route = bind(policy ?? this.policy, this.manifest);
    if (isAnytime(route)) route.lends?.(this.costs);
    return route;
  }

  partsFor(schedule) {
    const { labels, bySchedule } = this.current;
    if (!bySchedule.has(schedule)) bySchedule.set(schedule, new Parts(this.sessions, labels, schedule));
    return bySchedule.get(schedule);
  }

  useLabels(labels) {
    this.current = { labels, bySchedule: new Map() };
  }

  textTower() {
    this.text ??= TextTower.of(this.bundle, this.sessions).catch((error) => {
      this.text = undefined;
      throw error;
    });
    return this.text;
  }
}

function listOf(images) {
  if (typeof images === "string" || typeof images?.[Symbol.iterator] !== "function") {
    throw new ImageError(`images is ${kindOf(images)}, wanted a list of images; give one to classify or embed`);
  }
  return [...images];
}

function checkCount(name, value) {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new SettingsError(`${name} is ${quoted(value)}, wanted at least 1, a whole number`);
  }
}
