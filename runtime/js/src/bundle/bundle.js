/**
 * Opens a bundle: a manifest with name, size and hash of every file, and the files.
 *
 * Checked when it is opened: the manifest, sizes, and the labels. Checked before a part's session is made: the hashes
 * of its files, and that its external data stays inside the bundle. `verify` checks everything at once.
 */

import { BundleError, quoted } from "../errors.js";
import { externalLocations } from "./external_data.js";
import { parseJson } from "./json.js";
import { readLabelEmbeddings } from "./label_embeddings.js";
import { decodeManifest, utf8 } from "./manifest.js";
import { LABEL_FILE } from "./manifest_schema.js";
import { sha256 } from "./sha256.js";

/** Line ends of Python's `splitlines`. */
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

/** Holds a bundle after its manifest was read and its files were found. */
export class Bundle {
  /**
   * Opens a bundle.
   *
   * @param {object} source gives its files: a `FolderSource`, `ZipSource` or `UrlSource`
   * @returns {Promise<Bundle>}
   * @throws {BundleError} a file is missing or has another size; the manifest or the labels are not what is wanted
   */
  static async open(source) {
    const manifest = decodeManifest(await source.manifest());
    await source.find(manifest.files);
    const bundle = new Bundle(source, manifest);
    await bundle.readLabels();
    return bundle;
  }

  /** Use `Bundle.open`. */
  constructor(source, manifest) {
    this.source = source;
    this.manifest = manifest;
    this.entries = new Map(manifest.files.map((entry) => [entry.name, entry]));
    this.verified = new Set();
  }

  /** Says where the bundle lies. */
  get place() {
    return this.source.place;
  }

  /** Reads a file and checks its hash. */
  async content(name) {
    const entry = this.entries.get(name);
    const content = await this.source.read(entry);
    this.checkHash(entry, await sha256(content));
    return content;
  }

  /**
   * Checks graph and weights of a part.
   *
   * @param {object} part of the manifest
   * @param {boolean} byPath whether ONNX Runtime may open files itself
   * @returns {Promise<{model: string | Uint8Array, externalData: {path: string, data: Uint8Array}[]}>} what its session
   *   is made from: the graph's path where all files lie in one folder, their content elsewhere
   */
  async checkedPart(part, byPath) {
    const graph = await this.content(part.graph);
    const named = this.weightFiles(part, graph);
    const paths = [part.graph, ...named].map((name) => this.source.path(name));
    if (byPath && !paths.includes(null)) {
      for (const name of named) await this.checkFile(name);
      return { model: paths[0], externalData: [] };
    }
    const externalData = [];
    for (const name of named) externalData.push({ path: name, data: await this.content(name) });
    return { model: graph, externalData };
  }

  /** Checks every hash and every external data path of the bundle. */
  async verify() {
    for (const part of this.manifest.parts) this.weightFiles(part, await this.content(part.graph));
    for (const name of this.entries.keys()) await this.checkFile(name);
  }

  /** Reads the lines of the tokenizer's file, two tokens each. */
  async merges(name) {
    const lines = utf8(await this.content(name), name).split(LINE_END);
    if (lines.at(-1) === "") lines.pop();
    lines.forEach((line, index) => {
      if (line.split(" ").length !== 2) {
        throw new BundleError(
          `${name}: line ${index + 1} is ${quoted(line)}, wanted two tokens with a blank between them`,
        );
      }
    });
    return lines;
  }

  /** Lists the files in which a graph keeps its weights; no path leaves the bundle. */
  weightFiles(part, graph) {
    const files = part.data !== null ? [part.data] : this.manifest.parts.map((one) => one.data);
    const named = [...externalLocations(graph, part.graph)].sort();
    const other = named.find((location) => !files.includes(location));
    if (other !== undefined) {
      throw new BundleError(
        `${part.graph}: external data is at ${quoted(other)}, wanted one of the bundle's own weight files`,
      );
    }
    return named;
  }

  async readLabels() {
    const { names, embeddings, count } = this.manifest.labels;
    this.labels = LABEL_FILE(parseJson(utf8(await this.content(names), names), names), names);
    if (this.labels.names.length !== count) {
      throw new BundleError(`${names}: names has ${this.labels.names.length} labels, the manifest says ${count}`);
    }
    const content = await this.content(embeddings);
    this.labelEmbeddings = readLabelEmbeddings(embeddings, content, count, this.manifest.tower.embed_dim);
  }

  /** Checks the hash of a file once, without holding it in memory where that is possible. */
  async checkFile(name) {
    if (this.verified.has(name)) return;
    const entry = this.entries.get(name);
    if (this.source.hash !== undefined) this.checkHash(entry, await this.source.hash(entry));
    else await this.content(name);
    this.verified.add(name);
  }

  checkHash(entry, digest) {
    if (digest !== entry.sha256) {
      throw new BundleError(
        `${entry.name} has SHA-256 ${digest.slice(0, 12)}…, the manifest says ${quoted(entry.sha256.slice(0, 12))}…; ` +
          "the bundle is damaged, export it again",
      );
    }
  }
}
