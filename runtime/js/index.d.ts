/** Runs bundles of lraee: CLIP as INT8 ONNX in blocks, each image leaving as soon as its answer is good. */

/** What is used of the module `onnxruntime-node` or `onnxruntime-web`. */
export interface OnnxRuntime {
  readonly InferenceSession: { create(...given: any[]): Promise<any> };
  readonly Tensor: new (...given: any[]) => any;
  readonly env: { readonly versions?: unknown };
}

/** RGBA or RGB pixels, row after row; the `ImageData` of a canvas is one. */
export interface Pixels {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** Decides after which block an image leaves. */
export interface Policy {
  /** Prepares a route for one batch. */
  bind(manifest: Manifest): Route;
}

/** A policy applied to one batch. */
export interface Route {
  /** Merging schedule to run under; null or missing merges nothing. */
  readonly schedule?: string | null;
  /** Tells whether to evaluate the exit after `block`. */
  visits(block: number): boolean;
  /** Chooses the images that leave after `block`, one boolean for each. */
  leaves(block: number, verdict: Verdict): boolean[];
  /** Tells whether to end the run after `block`; asked only once an exit has been visited. */
  stops?(block: number): boolean;
  /** Is called after each part; wanted where there is `stops`. */
  ran?(part: string, images: number): void;
}

/** What an exit computed for the images that reached it. */
export interface Verdict {
  /** Of unit length, for each image. */
  readonly embedding: Float32Array[];
  readonly probabilities: Float32Array[];
  /** Confidence, margin between the first two labels, spatial activation variance. */
  readonly features: Float32Array[];
  /** 0 to 1. */
  readonly gate: number[];
  /** How many labels there are. */
  readonly labels: number;
  /** Positions of these images in the batch. */
  readonly rows: number[];
}

/** Leaves by the learned gates at one of the bundle's operating points. */
export class Adaptive implements Policy {
  /** @param choice name of an operating point, null for the bundle's default, or thresholds by block */
  constructor(choice?: string | null | { thresholds: Readonly<Record<number, number>> });
  bind(manifest: Manifest): Route;
}

/** Runs every image at full depth. */
export class Full implements Policy {
  /** @param schedule merging schedule to run under; null merges nothing */
  constructor(schedule?: string | null);
  bind(manifest: Manifest): Route;
}

/** Lets every image leave at one exit. */
export class ExitAt implements Policy {
  /**
   * @param block counted from 1; the bundle must have an exit there
   * @param schedule merging schedule to run under; null merges nothing
   */
  constructor(block: number, schedule?: string | null);
  bind(manifest: Manifest): Route;
}

/** Gives the best answer that can be computed in time. */
export class Deadline implements Policy {
  /** @param ms milliseconds from the start of the call; above 0 */
  constructor(ms: number, options?: { policy?: Policy | null; clock?: () => number });
  bind(manifest: Manifest): Route;
}

/** The answer for one image. */
export interface Prediction {
  /** The most likely label. */
  readonly label: string;
  /** Its probability, 0 to 1. */
  readonly score: number;
  /** The most likely labels, best first. */
  readonly top: { readonly label: string; readonly score: number }[];
  /** Position of `label` among the model's labels. */
  readonly index: number;
  /** Block after which the image left, counted from 1; the depth of the tower when it ran to the end. */
  readonly exitBlock: number;
  /** Whether it left through an exit. */
  readonly early: boolean;
  /** Value of the gate where it left, 0 to 1; null at full depth. */
  readonly gate: number | null;
  /** FLOPs of what ran for this image: multiply-add = 2, GEMMs only. */
  readonly flops: number;
  /** Of unit length. */
  readonly embedding: Float32Array;
  /** Position of the image in the call, from 0. */
  readonly position: number;
}

/** What the parts gave for one image, for programs that measure. */
export interface Answer {
  readonly embedding: Float32Array;
  readonly probabilities: Float32Array;
  readonly exitBlock: number;
  /** `exitBlock`, or more where a route ended the run between two exits. */
  readonly blocksRun: number;
  readonly early: boolean;
  readonly gate: number | null;
  /** Blocks after which an exit was evaluated. */
  readonly visited: number[];
}

/** What `manifest.json` says; docs/bundle-format.md lists every key. */
export interface Manifest {
  readonly format: number;
  readonly tower: {
    readonly blocks: number;
    readonly width: number;
    readonly tokens: number;
    readonly embed_dim: number;
  };
  readonly preprocessing: Preprocessing;
  readonly exits: readonly { readonly block: number; readonly part: string }[];
  readonly operating_points: readonly { readonly name: string; readonly schedule: string | null }[];
  readonly default_point: string | null;
  readonly schedules: readonly { readonly name: string }[];
  readonly [key: string]: unknown;
}

/** How a tower wants its images. */
export interface Preprocessing {
  readonly image_size: number;
  readonly resize_mode: "shortest" | "squash" | "longest";
  readonly interpolation: "bicubic" | "bilinear" | "nearest";
  readonly fill_color: number;
}

export interface ClassifySettings {
  /** Decides after which block an image leaves; null takes the model's. */
  policy?: Policy | null;
  /** How many labels `Prediction.top` lists; 5 unless given. */
  top?: number;
}

export interface BatchSettings {
  /** Images that run together; 8 unless given. */
  batchSize?: number;
}

/** A loaded bundle. */
export class Model {
  private constructor();
  readonly manifest: Manifest;
  /** Names of the labels, in the order of the probabilities. */
  readonly labels: readonly string[];
  /** Threads that run one operator; null where onnxruntime-web decides. */
  readonly threads: number | null;
  /** Classifies one image. */
  classify(image: Pixels, settings?: ClassifySettings): Promise<Prediction>;
  /** Classifies images in batches; each leaves at its own depth. */
  classifyBatch(images: Iterable<Pixels>, settings?: ClassifySettings & BatchSettings): Promise<Prediction[]>;
  /** Embeds one image, of unit length; at full depth unless a policy is given. */
  embed(image: Pixels, settings?: { policy?: Policy }): Promise<Float32Array>;
  /** Embeds images in batches. */
  embedBatch(images: Iterable<Pixels>, settings?: { policy?: Policy } & BatchSettings): Promise<Float32Array[]>;
  /** Embeds texts as they are, without a template. */
  embedText(texts: string | Iterable<string>): Promise<Float32Array[]>;
  /**
   * Classifies among other labels from now on.
   *
   * Without `embeddings` the bundle's text tower embeds the names in its templates, or in those given: texts with `{}`
   * for the name. `embeddings` are one row for each name, of any length but 0.
   */
  setLabels(
    names: Iterable<string>,
    settings?: {
      templates?: Iterable<string>;
      embeddings?: Float32Array | readonly ArrayLike<number>[] | null;
    },
  ): Promise<void>;
  /** Makes all sessions now instead of when an image first reaches them. */
  warm(): Promise<void>;
  /** Frees the sessions; a call that comes later makes them again. */
  release(): Promise<void>;
  /** Runs preprocessed pixels (batch, image_size, image_size, 3) as one batch. */
  runPixels(
    pixels: Uint8Array,
    settings?: { policy?: Policy | null; onPart?: (part: string, images: number) => void },
  ): Promise<Answer[]>;
}

export interface LoadSettings {
  /** Threads that run one operator, in Node; null takes one for each core, or 1 where blocks are small. */
  threads?: number | null;
  /** `parts` checks a part's hash before it is first used, `all` checks everything now. */
  verify?: "parts" | "all";
  /** Used when a call names none; null takes the bundle's default operating point, or full depth. */
  policy?: Policy | null;
  /** Makes all sessions before it returns. */
  warm?: boolean;
  /** Asks a server in place of the global `fetch`, such as with a header of yours. */
  fetch?: (address: string) => Promise<Response>;
}

/**
 * Opens a bundle.
 *
 * @param ort the module `onnxruntime-node` or `onnxruntime-web`
 * @param source path or address of a folder that lraee-export wrote, or of its zip file; or the zip file's bytes
 */
export function load(
  ort: OnnxRuntime,
  source: string | URL | Uint8Array | ArrayBuffer | Blob,
  settings?: LoadSettings,
): Promise<Model>;

/** Resizes and crops (or pads) pixels to the model's input: RGB, image_size x image_size x 3. */
export function preprocess(image: Pixels, preprocessing: Preprocessing): Uint8Array;

/** Base of all errors raised on purpose. */
export class LraeeError extends Error {}
/** A bundle is damaged, incomplete, newer than this code, or unsafe. */
export class BundleError extends LraeeError {}
/** Pixels have another shape than those of an image. */
export class ImageError extends LraeeError {}
/** Labels are missing, empty, or cannot be embedded by this bundle. */
export class LabelsError extends LraeeError {}
/** A setting is unknown, of another type, or out of its range. */
export class SettingsError extends LraeeError {}
/** A policy asks for something the bundle does not have. */
export class PolicyError extends LraeeError {}
