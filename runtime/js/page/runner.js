/** Opens one bundle and answers what the page asks: labels, photos, and how long full depth takes instead. */

import { Adaptive, BundleError, Deadline, Full, load, preprocess } from "../src/index.js";
import { decode } from "../src/browser.js";
import { defaultThreads } from "../src/ort/session_options.js";
import { bundleBlob, forget, forgetOthers } from "./bundle_store.js";
import { Timed } from "./timed.js";

/** More threads than this slow phones down, whose other cores are small. */
const MOST_THREADS = 4;

/** How long photos are timed against full depth. */
const COMPARE_MS = 1500;
const MOST_PAIRS = 5;

/** Runs one bundle. */
export class Runner {
  /** @param {object} ort the module onnxruntime-web */
  constructor(ort) {
    this.ort = ort;
  }

  /**
   * Opens a bundle and makes its sessions.
   *
   * @param {{entry?: object, entries?: object[], file?: File}} source an entry of bundles.json, or a file of the person's
   * @param {(state: object) => void} tell is told how far it is
   */
  async open({ entry, entries, file }, tell) {
    try {
      const { blob, isKept } =
        file === undefined ? await bundleBlob(entry, (got) => tell({ got })) : { blob: file, isKept: false };
      if (entries !== undefined) await forgetOthers(entries);
      this.model = await load(this.ort, blob);
      this.ort.env.wasm.numThreads = self.crossOriginIsolated
        ? Math.min(defaultThreads(this.model.manifest), MOST_THREADS)
        : 1;
      await this.warm(tell);
      return { ...this.description(), isKept };
    } catch (error) {
      if (error instanceof BundleError && entry !== undefined) await forget(entry);
      throw error;
    }
  }

  /** Makes all sessions, and runs them once: first runs are slower than all others. */
  async warm(tell) {
    const { manifest } = this.model;
    const parts = manifest.partsUnder(manifest.scheduleOf(manifest.default_point));
    for (const [at, part] of parts.entries()) {
      await this.model.sessions.get(part);
      tell({ made: (at + 1) / parts.length });
    }
    const size = manifest.preprocessing.image_size;
    await this.model.runPixels(new Uint8Array(size * size * 3), { policy: visitingAll });
  }

  description() {
    const { manifest, labels } = this.model;
    return {
      blocks: manifest.tower.blocks,
      exits: manifest.exits.map((exit) => exit.block),
      points: manifest.operating_points,
      defaultPoint: manifest.default_point,
      hasText: manifest.text !== null,
      labels: [...labels],
      threads: this.ort.env.wasm.numThreads,
    };
  }

  /** Classifies among other labels from now on. */
  async setLabels({ names }) {
    await this.model.setLabels(names);
    return { labels: [...this.model.labels] };
  }

  /** Classifies a photo's file, or a frame of the camera. */
  async classify({ file, frame, turn = false, policy }) {
    const begun = performance.now();
    const image = file === undefined ? pixelsOf(frame) : turn ? pixelsOf(await turned(file)) : await decode(file);
    const decoded = performance.now();
    this.pixels = preprocess(image, this.model.manifest.preprocessing);
    const resized = performance.now();
    const answer = await this.answer(policyOf(policy, resized - begun));
    return {
      ...answer,
      decodeMs: decoded - begun,
      resizeMs: resized - decoded,
      pixels: this.pixels,
      size: this.model.manifest.preprocessing.image_size,
    };
  }

  /** Times the latest photo with a policy and at full depth, in turns: medians of some pairs. */
  async compare({ policy }) {
    const end = performance.now() + COMPARE_MS;
    const [own, full] = [[], []];
    let deep;
    do {
      own.push((await this.answer(policyOf(policy, 0))).ms);
      deep = await this.answer(new Full());
      full.push(deep.ms);
    } while (own.length < MOST_PAIRS && performance.now() < end);
    return { ms: median(own), fullMs: median(full), fullLabel: deep.label, pairs: own.length };
  }

  async answer(policy) {
    const size = this.model.manifest.preprocessing.image_size;
    const timed = new Timed(policy);
    const prediction = await this.model.classify({ data: this.pixels, width: size, height: size }, { policy: timed });
    const ms = timed.times.reduce((sum, time) => sum + time.ms, 0);
    return { ...prediction, times: timed.times, ms, flopsSaved: 1 - prediction.flops / this.fullFlops() };
  }

  /** Counts the FLOPs of full depth for one image. */
  fullFlops() {
    const { manifest, labels } = this.model;
    const { blocks, tail } = manifest.schedule(null);
    return ["stem", ...blocks, tail].reduce((sum, part) => sum + manifest.flopsOf(part, labels.length), 0);
  }
}

/** Runs every block and exit. */
const visitingAll = {
  bind: () => ({ schedule: null, visits: () => true, leaves: (block, verdict) => verdict.gate.map(() => false) }),
};

/** Makes a policy of what the page chose; `spent` milliseconds of a time limit are over. */
function policyOf({ kind, name, ms }, spent) {
  if (kind === "point") return new Adaptive(name);
  if (kind === "limit") return new Deadline(Math.max(ms - spent, 0.01));
  return new Full();
}

/** Decodes a photo and turns it as its EXIF data say. */
function turned(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  return createImageBitmap(file, options);
}

/** Gives the pixels of a bitmap, and frees it. */
function pixelsOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function median(values) {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
