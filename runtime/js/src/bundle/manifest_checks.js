/** Refuses a manifest whose parts contradict one another, in the order of Python's runtime. */

import { BundleError, quoted } from "../errors.js";
import { blockNames, MANIFEST_NAME, partName } from "./names.js";

/** Characters that Python does not print: control characters, unassigned ones, and all separators but the blank. */
const NOT_PRINTABLE = /[\p{C}\p{Z}]/u;

const LONGEST_NAME = 255;

/**
 * Checks ranges, file names, schedules, exits and operating points.
 *
 * @param {import("./manifest.js").Manifest} manifest
 * @throws {BundleError} something is out of its range, missing, or named twice
 */
export function checkConsistency(manifest) {
  checkRanges(manifest);
  checkFiles(manifest);
  checkParts(manifest);
  checkQuantization(manifest);
  checkSchedules(manifest);
  checkExits(manifest.exits, manifest, "exits");
  for (const schedule of manifest.schedules) {
    checkExits(schedule.exits, manifest, `schedules.${schedule.name}.exits`);
  }
  checkPoints(manifest);
}

function refuse(reason) {
  throw new BundleError(`${MANIFEST_NAME}: ${reason}`);
}

function checkRanges(manifest) {
  const { tower, labels, text } = manifest;
  const keys = ["blocks", "width", "heads", "mlp_width", "patch_size", "tokens", "embed_dim"];
  const least = keys.map((key) => [`tower.${key}`, tower[key], 1]);
  least.push(["labels.count", labels.count, 2]);
  if (text !== null) least.push(["text.context_length", text.context_length, 2]);
  for (const part of manifest.parts) {
    for (const key of ["flops", "flops_per_label"]) least.push([`parts.${part.name}.${key}`, part[key], 0]);
  }
  for (const [key, value, wanted] of least) if (value < wanted) refuse(`${key} is ${value}, wanted at least ${wanted}`);
  if (manifest.probabilities === "sigmoid" && manifest.logit_bias === null) {
    refuse("probabilities are 'sigmoid', which needs a number as logit_bias");
  }
  if (manifest.onnxruntime !== null && !/^[0-9]{1,4}(\.[0-9]{1,4}){1,2}$/.test(manifest.onnxruntime)) {
    refuse(`onnxruntime is ${quoted(manifest.onnxruntime)}, wanted a version as '1.17'`);
  }
  if (manifest.logit_scale <= 0) refuse(`logit_scale is ${manifest.logit_scale}, wanted above 0`);
}

function checkFiles(manifest) {
  const files = new Set(manifest.files.map((entry) => entry.name));
  if (files.size !== manifest.files.length) refuse("files names one file twice");
  for (const name of files) {
    if (!isPlainName(name)) refuse(`files has ${quoted(name)}, wanted a plain name inside the bundle folder`);
  }
  const { labels, text } = manifest;
  const wanted = [
    ["labels.names", labels.names],
    ["labels.embeddings", labels.embeddings],
  ];
  if (text !== null) wanted.push(["text.merges", text.merges], ["text.tokenizer", text.tokenizer]);
  for (const part of manifest.parts) {
    wanted.push([`parts.${part.name}.graph`, part.graph]);
    if (part.data !== null) wanted.push([`parts.${part.name}.data`, part.data]);
    if (!part.graph.endsWith(".onnx")) {
      refuse(`parts.${part.name}.graph is ${quoted(part.graph)}, wanted a name in .onnx`);
    }
  }
  for (const [key, name] of wanted) {
    if (!files.has(name)) refuse(`${key} is ${quoted(name)}, which is not among files`);
  }
}

function checkParts(manifest) {
  const { parts, partsByName, tower } = manifest;
  if (partsByName.size !== parts.length) refuse("parts has one name twice");
  if (tower.blocks > parts.length) refuse(`tower.blocks is ${tower.blocks}, but there are ${parts.length} parts`);
  const text = manifest.text === null ? [] : ["text"];
  for (const name of ["stem", ...blockNames(tower.blocks), "tail", ...text]) manifest.part(name);
}

/** Tells whether `name` is the printable name of a file in the bundle folder itself. */
export function isPlainName(name) {
  if (["", ".", "..", MANIFEST_NAME].includes(name) || /[/\\]/.test(name)) return false;
  if (NOT_PRINTABLE.test(name.replaceAll(" ", ""))) return false;
  if (globalThis.process?.platform === "win32" && name.includes(":")) return false; // of another drive or stream
  return new TextEncoder().encode(name).length <= LONGEST_NAME;
}

function checkQuantization(manifest) {
  if (manifest.quantization?.scheme === "static-qdq-u8s8-unsaturated" && manifest.format < 4) {
    refuse(
      `quantization.scheme is ${quoted(manifest.quantization.scheme)}, which is not in format ${manifest.format}, ` +
        "wanted format 4",
    );
  }
}

function checkSchedules(manifest) {
  const { schedules, tower, format } = manifest;
  if (schedules.length > 0 && format < 3) refuse(`schedules are not in format ${format}, wanted format 3`);
  if (new Set(schedules.map((one) => one.name)).size !== schedules.length) refuse("schedules has one name twice");
  for (const schedule of schedules) {
    const where = `schedules.${schedule.name}`;
    for (const key of ["merged", "blocks"]) {
      const count = schedule[key].length;
      if (count !== tower.blocks) {
        refuse(`${where}.${key} has ${count} entries, wanted one for each of ${tower.blocks} blocks`);
      }
    }
    let left = tower.tokens;
    schedule.merged.forEach((merged, index) => {
      if (merged < 0 || merged > Math.floor(left / 2)) {
        refuse(`${where}.merged is ${merged} in block ${index + 1}, wanted 0 to half of ${left} tokens`);
      }
      left -= merged;
    });
    for (const part of [...schedule.blocks, schedule.tail]) manifest.part(part);
  }
}

function checkExits(exits, manifest, where) {
  const blocks = exits.map((exit) => exit.block);
  const rising = blocks.every((block, index) => index === 0 || block > blocks[index - 1]);
  if (!rising || blocks.some((block) => block < 1 || block > manifest.tower.blocks)) {
    refuse(`${where} are after blocks ${blocks.join(", ")}, wanted rising numbers up to the depth`);
  }
  for (const exit of exits) {
    if (["attention", "local"].includes(exit.reads) && manifest.format < 2) {
      refuse(
        `${where}: the head after block ${exit.block} reads ${quoted(exit.reads)}, which is not in format ` +
          `${manifest.format}, wanted format 2`,
      );
    }
    const name = partName("exit", exit.block);
    if (exit.part !== name && (where === "exits" || !exit.part.startsWith(`${name}_`))) {
      refuse(`${where}: part after block ${exit.block} is ${quoted(exit.part)}, wanted exit_NN`);
    }
    if (exit.temperature <= 0) {
      refuse(`${where}: temperature after block ${exit.block} is ${exit.temperature}, wanted above 0`);
    }
    manifest.part(exit.part);
  }
}

function checkPoints(manifest) {
  const names = manifest.operating_points.map((point) => point.name);
  if (new Set(names).size !== names.length) refuse("operating_points has one name twice");
  if (manifest.default_point !== null && !names.includes(manifest.default_point)) {
    refuse(`default_point is ${quoted(manifest.default_point)}, wanted one of ${names.join(", ")}`);
  }
  for (const point of manifest.operating_points) checkPoint(point, manifest);
}

function checkPoint(point, manifest) {
  if (point.schedule !== null && !manifest.schedules.some((schedule) => schedule.name === point.schedule)) {
    refuse(`operating_points.${point.name}.schedule is ${quoted(point.schedule)}, which is not there`);
  }
  const blocks = new Set(manifest.schedule(point.schedule).exits.map((exit) => exit.block));
  const where = `operating_points.${point.name}.thresholds`;
  const named = point.thresholds.map((threshold) => threshold.block);
  if (new Set(named).size !== named.length) refuse(`${where} names one block twice: ${named.join(", ")}`);
  for (const threshold of point.thresholds) {
    if (!blocks.has(threshold.block)) refuse(`${where} names block ${threshold.block}, which has no exit`);
    const values = threshold.per_class;
    if (values !== null && values.length !== manifest.labels.count) {
      refuse(`${where}: per_class has ${values.length} values, wanted one for each of ${manifest.labels.count} labels`);
    }
  }
}
