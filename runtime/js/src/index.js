/**
 * Runs bundles of lraee: CLIP as INT8 ONNX in blocks, each image leaving as soon as its answer is good.
 *
 * Needs `onnxruntime-node` or `onnxruntime-web`, which is passed to `load`.
 */

export { BundleError, ImageError, LabelsError, LraeeError, PolicyError, SettingsError } from "./errors.js";
export { preprocess } from "./images/preprocess.js";
export { load } from "./load.js";
export { Model } from "./model.js";
export { Adaptive } from "./policies/adaptive.js";
export { Deadline } from "./policies/deadline.js";
export { ExitAt } from "./policies/exit_at.js";
export { Full } from "./policies/full.js";
