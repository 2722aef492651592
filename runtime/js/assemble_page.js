/**
 * Assembles the page in `page` as a folder that any server of files can serve.
 *
 *     npm run page -- OUT BUNDLE.zip... [--ort FOLDER]
 *
 * The folder gets the page, this runtime, the WebAssembly of onnxruntime-web and the bundles. `--ort` names a folder of
 * onnxruntime-web where it is not installed here. A folder that this command wrote is written again.
 */

import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Bundle } from "./src/bundle/bundle.js";
import { openPath } from "./src/bundle/folder_source.js";
import { LraeeError } from "./src/errors.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const USAGE = "wanted a folder to write and at least one bundle: npm run page -- OUT BUNDLE.zip...";

/** Files that lie at the top of the folder: the page, and what may speak for all files below it. */
const TOP = ["index.html", "service_worker.js"];

/** Files of onnxruntime-web, under names that every server knows the kind of. */
const ORT_FILES = {
  "ort.js": "ort.wasm.min.mjs",
  "threads.js": "ort-wasm-simd-threaded.mjs",
  "ort.wasm": "ort-wasm-simd-threaded.wasm",
};

/** What this command wrote, by which it knows its folder again. */
const OWN = ["bundles", "bundles.json", "index.html", "ort", "page", "service_worker.js", "src"];

/** A fault that is told in one line. */
class UsageError extends Error {}

/** Finds the folder of onnxruntime-web's files. */
async function ortFolder(given) {
  let folder = given;
  if (given === undefined) {
    try {
      folder = dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
    } catch {
      throw new UsageError(
        "onnxruntime-web is not installed here: npm ci --ignore-scripts, or name its folder with --ort",
      );
    }
  }
  for (const inside of [folder, join(folder, "dist")]) {
    if (await isFile(join(inside, ORT_FILES["ort.wasm"]))) return inside;
  }
  throw new UsageError(`${folder} has no ${ORT_FILES["ort.wasm"]}; wanted a folder of onnxruntime-web`);
}

/** Opens a bundle, checks all of it, and describes it for bundles.json. */
async function described(path) {
  if (!(await isFile(path))) {
    throw new UsageError(`${path} is not a file; wanted the zip file of a bundle: python -m lraee zip BUNDLE`);
  }
  const bundle = await Bundle.open(await openPath(path));
  await bundle.verify();
  const content = await readFile(path);
  return {
    name: basename(path).replace(/(\.lraee)?\.zip$/i, ""),
    file: basename(path),
    size_bytes: content.length,
    sha256: hashOf(content),
  };
}

/** Empties a folder that this command wrote; refuses one that it did not. */
async function cleared(folder) {
  const found = await readdir(folder).catch((error) => {
    if (error.code === "ENOENT") return [];
    throw new UsageError(`${folder} cannot be written: ${error.code}`);
  });
  const other = found.find((name) => !OWN.includes(name));
  if (other !== undefined || (found.length > 0 && !found.includes("bundles.json"))) {
    throw new UsageError(`${folder} has ${other ?? found[0]}, which this command did not write; name a new folder`);
  }
  for (const name of found) await rm(join(folder, name), { recursive: true });
}

/** Copies the page, the runtime and onnxruntime-web. */
async function copyFiles(folder, ort) {
  await mkdir(join(folder, "ort"), { recursive: true });
  await cp(join(HERE, "src"), join(folder, "src"), { recursive: true });
  await cp(join(HERE, "page"), join(folder, "page"), { recursive: true });
  for (const name of TOP) {
    await cp(join(HERE, "page", name), join(folder, name));
    await rm(join(folder, "page", name));
  }
  for (const [name, from] of Object.entries(ORT_FILES)) await cp(join(ort, from), join(folder, "ort", name));
}

/** Copies bundles, and writes which there are. */
async function copyBundles(folder, paths, entries) {
  await mkdir(join(folder, "bundles"));
  for (const path of paths) await cp(path, join(folder, "bundles", basename(path)));
  await writeFile(join(folder, "bundles.json"), `${JSON.stringify(entries, null, 1)}\n`);
}

/** Writes the hash of each file above the lines of the service worker, so that it changes whenever one of them does. */
async function writeHashes(folder) {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  const hashes = {};
  for (const entry of found.filter((one) => one.isFile())) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const name = relative(folder, path).split(sep).join("/");
    if (!name.startsWith("bundles/") && name !== "service_worker.js") hashes[name] = hashOf(await readFile(path));
  }
  const worker = join(folder, "service_worker.js");
  const sorted = Object.fromEntries(Object.entries(hashes).sort(([one], [other]) => (one < other ? -1 : 1)));
  await writeFile(worker, `const FILES = ${JSON.stringify(sorted, null, 1)};\n\n${await readFile(worker, "utf8")}`);
}

async function isFile(path) {
  return (await stat(path).catch(() => null))?.isFile() === true;
}

function hashOf(content) {
  return createHash("sha256").update(content).digest("hex");
}

/** Does what the command line says. */
async function main() {
  const { values, positionals } = parseArgs({ options: { ort: { type: "string" } }, allowPositionals: true });
  const [out, ...bundles] = positionals;
  if (bundles.length === 0) throw new UsageError(USAGE);
  const start = process.env.INIT_CWD ?? "."; // npm runs in the package's folder, not where it was called
  const [folder, ...paths] = [out, ...bundles].map((path) => resolve(start, path));
  const ort = await ortFolder(values.ort === undefined ? undefined : resolve(start, values.ort));
  const entries = [];
  for (const path of paths) entries.push(await described(path));
  if (new Set(entries.map((entry) => entry.file)).size < entries.length) {
    throw new UsageError("two bundles have the same file name; rename one");
  }
  await cleared(folder);
  await copyFiles(folder, ort);
  await copyBundles(folder, paths, entries);
  await writeHashes(folder);
  console.log(`${folder} is ready to be served, with ${entries.map((entry) => entry.name).join(", ")}`);
}

try {
  await main();
} catch (error) {
  const isUsage =
    error instanceof UsageError || error instanceof LraeeError || error.code?.startsWith("ERR_PARSE_ARGS");
  if (!isUsage) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
