/**
 * Classifies photos with a bundle of lraee.
 *
 *     npm install --ignore-scripts PATH/TO/lraee/runtime/js onnxruntime-node sharp
 *     node classify.mjs BUNDLE PHOTO... [--labels "a cat, a dog"] [--policy full] [--top 3] [--threads 1] [--json]
 *
 * BUNDLE is a folder, its zip file, or the address of either. Photos are decoded by sharp, to the very pixels that
 * Python's runtime sees: neither turned as EXIF says, nor with their colours converted.
 */

import { parseArgs } from "node:util";

import { Adaptive, Deadline, ExitAt, Full, load, LraeeError } from "lraee";
import * as ort from "onnxruntime-node";
import sharp from "sharp";

const POLICIES = "adaptive[=POINT] | full[@SCHEDULE] | exit=BLOCK[@SCHEDULE] | deadline=MS";

/** A fault of the command line or of a photo, which is told in one line. */
class UsageError extends Error {}

/** Decodes a photo to RGBA or RGB pixels. */
async function decode(path) {
  try {
    const picture = sharp(path, { autoOrient: false, ignoreIcc: true }).toColourspace("srgb");
    const { data, info } = await picture.raw().toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height };
  } catch (error) {
    throw new UsageError(`${path} cannot be decoded: ${error.message}`);
  }
}

/** Makes a policy of the words that Python's commands take. */
function policyOf(words) {
  if (words === undefined) return null;
  const [kind, value] = words.split("=");
  const [number, schedule = null] = (value ?? "").split("@");
  if (kind === "adaptive") return new Adaptive(value ?? null);
  if (/^full(@.+)?$/.test(words)) return new Full(words.split("@")[1] ?? null);
  if (kind === "exit" && /^[0-9]+$/.test(number)) return new ExitAt(Number(number), schedule);
  if (kind === "deadline" && Number(value) > 0) return new Deadline(Number(value));
  throw new UsageError(`${words} is no policy; wanted ${POLICIES}`);
}

/** Parses a whole number of the command line. */
function countOf(name, words) {
  if (words === undefined) return undefined;
  if (!/^[1-9][0-9]*$/.test(words)) throw new UsageError(`--${name} is ${words}, wanted a whole number from 1`);
  return Number(words);
}

/** Reads the command line. */
function settings() {
  const text = { type: "string" };
  const options = { labels: text, policy: text, top: text, threads: text, json: { type: "boolean" } };
  let found;
  try {
    found = parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error.message);
  }
  const { values, positionals } = found;
  const [bundle, ...photos] = positionals;
  if (photos.length === 0) throw new UsageError("wanted a bundle and at least one photo: classify.mjs BUNDLE PHOTO...");
  return {
    bundle,
    photos,
    labels: values.labels?.split(",").map((name) => name.trim()),
    policy: policyOf(values.policy),
    top: countOf("top", values.top) ?? 3,
    threads: countOf("threads", values.threads) ?? null,
    isJson: values.json ?? false,
  };
}

/** Writes one answer as a line. */
function line(photo, { top, exitBlock, early, flops }, isJson) {
  if (isJson) return JSON.stringify({ photo, top, exitBlock, early, flops });
  const names = top.map(({ label, score }) => `${label} ${(100 * score).toFixed(1)} %`).join(", ");
  return `${photo}: ${names} (${early ? "left" : "ran to the end,"} after block ${exitBlock})`;
}

async function main() {
  const { bundle, photos, labels, policy, top, threads, isJson } = settings();
  const model = await load(ort, bundle, { policy, threads });
  if (labels !== undefined) await model.setLabels(labels);
  for (const photo of photos) {
    const prediction = await model.classify(await decode(photo), { top });
    console.log(line(photo, prediction, isJson));
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof LraeeError || error instanceof UsageError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
