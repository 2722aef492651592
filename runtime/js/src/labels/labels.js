/** Holds labels as the graphs take them: names, and their text embeddings as the columns of one matrix. */

import { kindOf, LabelsError, quoted } from "../errors.js";

/** Distance of two embeddings of unit length that differ by rounding alone. */
const ROUNDING = 1e-5;

/** Holds the labels that probabilities are about. */
export class Labels {
  /**
   * @param {readonly string[]} names
   * @param {Float32Array} rows (labels, embed_dim) of unit length, row after row
   */
  constructor(names, rows) {
    this.names = Object.freeze([...names]);
    /** (embed_dim, labels), unit columns. */
    this.matrix = transposed(rows, names.length);
  }
}

/**
 * Checks names that were passed in.
 *
 * @throws {LabelsError} they are no list, fewer than two, or one is no text, blank or repeated
 */
export function checkNames(names) {
  if (typeof names === "string" || typeof names?.[Symbol.iterator] !== "function") {
    throw new LabelsError(`names is ${quoted(names)} (${kindOf(names)}), wanted a list such as ["a cat", "a dog"]`);
  }
  const list = [...names];
  checkTexts("label", list);
  const blank = list.findIndex((name) => name.trim() === "");
  if (blank >= 0) throw new LabelsError(`label ${blank + 1} of ${list.length} is blank; remove it or name it`);
  const different = new Set(list.map((name) => name.normalize("NFC"))).size;
  if (list.length < 2 || different !== list.length) {
    throw new LabelsError(`met ${list.length} labels, ${different} different; wanted at least two, all different`);
  }
  return list;
}

/** Checks templates that were passed in: texts with exactly one `{}` each. */
export function checkTemplates(templates) {
  if (typeof templates === "string" || typeof templates?.[Symbol.iterator] !== "function") {
    throw new LabelsError(`templates is ${quoted(templates)}, wanted a list such as ["a photo of a {}."]`);
  }
  const list = [...templates];
  checkTexts("template", list);
  const unusable = list.find((template) => template.split("{}").length !== 2);
  if (unusable !== undefined || list.length === 0) {
    const met = unusable === undefined ? "no template" : quoted(unusable);
    throw new LabelsError(`templates: met ${met}, wanted at least one text with exactly one {} for the name`);
  }
  return list;
}

/** Refuses all but texts. */
export function checkTexts(kind, list) {
  const other = list.find((item) => typeof item !== "string");
  if (other !== undefined || list.includes(undefined)) {
    throw new LabelsError(`${kind} ${quoted(other)} is not a text but ${kindOf(other)}; wanted a string`);
  }
}

/**
 * Checks embeddings and scales them to unit length.
 *
 * @param {string[]} names at least two different labels
 * @param {Float32Array | ArrayLike<number>[]} embeddings (labels, embed_dim), row after row, or a list of rows
 * @param {number} width length of the bundle's embeddings
 * @returns {Labels}
 * @throws {LabelsError} shapes disagree, a row has no direction, or two rows are equal up to rounding
 */
export function unitLabels(names, embeddings, width) {
  const rows = rowsOf(embeddings, names.length, width);
  const units = new Float32Array(names.length * width);
  rows.forEach((row, label) => {
    const length = Math.hypot(...row);
    if (!(length > 0 && Number.isFinite(length))) {
      throw new LabelsError("a label embedding is zero or not finite; embed the labels again");
    }
    row.forEach((value, at) => {
      units[label * width + at] = value / length;
    });
  });
  const pair = equalRows(units, names.length);
  if (pair !== null) {
    const [one, other] = pair.map((row) => quoted(names[row]));
    throw new LabelsError(
      `labels ${one} and ${other} have the same embedding, so the second could never be the answer; keep one of ` +
        "them, or embed what tells them apart",
    );
  }
  return new Labels(names, units);
}

function rowsOf(embeddings, count, width) {
  const isFlat = ArrayBuffer.isView(embeddings);
  const rows = isFlat
    ? Array.from({ length: Math.ceil(embeddings.length / width) }, (_, row) =>
        Array.from(embeddings.subarray(row * width, (row + 1) * width)),
      )
    : Array.from(embeddings ?? [], (row) => Array.from(row ?? []));
  const isRight = rows.length === count && rows.every((row) => row.length === width);
  if (!isRight || !rows.every((row) => row.every((value) => typeof value === "number"))) {
    const met = isFlat ? `${embeddings.length} numbers` : `${rows.length} rows of ${rows[0]?.length ?? 0} entries`;
    throw new LabelsError(`label embeddings are ${met}, wanted ${count} rows of ${width} numbers, one for each name`);
  }
  return rows;
}

/**
 * Finds the first two rows not further apart than `ROUNDING`; null when there are none.
 *
 * Rows that are near each other are also near along any direction, so only neighbours along one are compared.
 */
function equalRows(units, count) {
  const width = units.length / count;
  const row = (label) => units.subarray(label * width, (label + 1) * width);
  const direction = Array.from({ length: width }, (_, at) => Math.sin(at * at + 1) / Math.sqrt(width));
  const along = Array.from({ length: count }, (_, label) =>
    row(label).reduce((sum, value, at) => sum + value * direction[at], 0),
  );
  const order = along.map((_, label) => label).sort((one, other) => along[one] - along[other]);
  const found = [];
  order.forEach((one, place) => {
    for (let next = place + 1; next < count && along[order[next]] - along[one] <= 2 * ROUNDING; next += 1) {
      const other = order[next];
      const distance = Math.hypot(...row(one).map((value, at) => value - row(other)[at]));
      if (distance <= ROUNDING) found.push([Math.min(one, other), Math.max(one, other)]);
    }
  });
  found.sort(([one, next], [other, after]) => one - other || next - after);
  return found[0] ?? null;
}

function transposed(rows, count) {
  const width = rows.length / count;
  const columns = new Float32Array(rows.length);
  for (let row = 0; row < count; row += 1) {
    for (let at = 0; at < width; at += 1) columns[at * count + row] = rows[row * width + at];
  }
  return columns;
}
