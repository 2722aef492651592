/**
 * Embeds texts with the text tower of a bundle, and labels as the means over their prompts (arXiv 2103.00020, 3.1.4).
 *
 * Texts are tokenized here: the bundle's `tokenizer.onnx` needs a library of onnxruntime-extensions, which JavaScript
 * cannot load.
 */

import { LabelsError, quoted } from "../errors.js";
import { checkTexts } from "./labels.js";
import { Tokenizer } from "./tokenizer.js";

/** Texts that run together; this bounds memory, however many labels there are. */
const TEXTS_PER_RUN = 32;

/** Embeds texts with the part `text`. */
export class TextTower {
  /**
   * Reads the tokenizer's file.
   *
   * @throws {LabelsError} the bundle has no text tower
   */
  static async of(bundle, sessions) {
    const { text } = bundle.manifest;
    if (text === null) {
      throw new LabelsError(
        "this bundle has no text tower, so its labels are fixed; export it with lraee-export --text fp16, or give " +
          "embeddings of your own: setLabels(names, { embeddings })",
      );
    }
    return new TextTower(new Tokenizer(await bundle.merges(text.merges)), text.context_length, sessions);
  }

  /** Use `TextTower.of`. */
  constructor(tokenizer, contextLength, sessions) {
    this.tokenizer = tokenizer;
    this.contextLength = contextLength;
    this.sessions = sessions;
  }

  /**
   * Embeds texts as they are, without a template.
   *
   * @param {string[]} texts
   * @returns {Promise<Float32Array[]>} one of unit length for each text
   */
  async embed(texts) {
    checkTexts("text", texts);
    const rows = texts.map((text) => this.tokenizer.row(text, this.contextLength));
    const order = rows.map((_, index) => index).sort((one, other) => rows[one].length - rows[other].length);
    const embeddings = new Array(texts.length);
    for (let start = 0; start < order.length; start += TEXTS_PER_RUN) {
      const chosen = order.slice(start, start + TEXTS_PER_RUN);
      const { embedding } = await this.sessions.run("text", {
        tokens: this.padded(chosen.map((index) => rows[index])),
      });
      const width = embedding.dims[1];
      chosen.forEach((index, at) => {
        embeddings[index] = embedding.data.slice(at * width, (at + 1) * width);
      });
    }
    return embeddings;
  }

  /**
   * Averages the embeddings of each label's prompts.
   *
   * @returns {Promise<Float32Array[]>} one for each name, not scaled
   * @throws {LabelsError} two labels have the same tokens in every prompt
   */
  async embedLabels(names, templates) {
    this.checkToldApart(names, templates);
    const prompts = names.flatMap((name) => templates.map((template) => promptOf(template, name)));
    const rows = await this.embed(prompts);
    return names.map((_, label) => {
      const own = rows.slice(label * templates.length, (label + 1) * templates.length);
      return own[0].map((_, at) => own.reduce((sum, row) => sum + row[at], 0) / own.length);
    });
  }

  checkToldApart(names, templates) {
    const seen = new Map();
    for (const name of names) {
      const read = templates.map((template) => this.tokenizer.row(promptOf(template, name), this.contextLength));
      const key = JSON.stringify(read);
      if (seen.has(key)) {
        throw new LabelsError(
          `labels ${quoted(seen.get(key))} and ${quoted(name)} are one to the text tower: it reads the same tokens ` +
            "of both; give names that differ sooner, or keep one of them",
        );
      }
      seen.set(key, name);
    }
  }

  /** Joins rows of token ids to one tensor, padded with zeros to the longest: a causal tower does not look ahead. */
  padded(rows) {
    const length = Math.max(...rows.map((row) => row.length));
    const data = new BigInt64Array(rows.length * length);
    rows.forEach((row, at) =>
      row.forEach((id, place) => {
        data[at * length + place] = BigInt(id);
      }),
    );
    return new this.sessions.ort.Tensor("int64", data, [rows.length, length]);
  }
}

function promptOf(template, name) {
  return template.split("{}").join(name);
}
