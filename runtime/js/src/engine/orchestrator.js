/**
 * Runs a batch as in the paper's figure: blocks one after the other, with gates between them.
 *
 * Images that leave take their answer with them; the rest is compacted, so later blocks only compute what is needed.
 */

import { partName } from "../bundle/names.js";
import { isAnytime } from "../policies/route.js";
import { keptRows } from "./rows.js";

/**
 * Runs a batch until every image has an answer.
 *
 * @param {import("./parts.js").Parts} parts of the tower
 * @param {object} pixels tensor (batch, size, size, 3) uint8
 * @param {object} route decides which images leave after which block
 * @param {object} buffers of this call
 * @param {(part: string, images: number) => void} [onPart] is called after each part
 * @returns {Promise<object[]>} for each image embedding, probabilities, exitBlock, blocksRun, early, gate and visited
 */
export async function run(parts, pixels, route, buffers, onPart = () => {}) {
  const answers = new Answers(pixels.dims[0]);
  const anytime = isAnytime(route);
  const ran = (part, images) => {
    onPart(part, images);
    if (anytime) route.ran(part, images);
  };
  let rows = answers.all.map((_, row) => row);
  let tokens = await parts.stem(pixels, buffers);
  ran("stem", rows.length);
  for (let block = 1; block <= parts.depth; block += 1) {
    tokens = await parts.block(block, tokens, buffers);
    ran(partName("block", block), rows.length);
    if (anytime && route.stops(block)) return answers.fallBack(block, rows);
    if (!parts.hasExit(block) || !route.visits(block)) continue;
    const verdict = await parts.exit(block, tokens, rows);
    ran(partName("exit", block), rows.length);
    answers.visit(block, verdict);
    const leaving = route.leaves(block, verdict);
    if (!leaving.includes(true)) continue;
    answers.leave(block, verdict, leaving);
    const kept = leaving.flatMap((leaves, at) => (leaves ? [] : [at]));
    if (kept.length === 0) return answers.all;
    rows = kept.map((at) => rows[at]);
    tokens = compacted(parts.ort, tokens, kept);
  }
  const deepest = await parts.tail(tokens);
  ran("tail", rows.length);
  rows.forEach((row, at) => answers.finish(row, parts.depth, deepest.embedding[at], deepest.probabilities[at]));
  return answers.all;
}

function compacted(ort, { tokens, sizes }, kept) {
  return { tokens: keptRows(ort, tokens, kept), sizes: sizes === null ? null : keptRows(ort, sizes, kept) };
}

/** Puts answers into the order of the batch. */
class Answers {
  constructor(count) {
    this.all = Array.from({ length: count }, () => ({ early: false, gate: null, visited: [] }));
    this.latest = null;
  }

  visit(block, verdict) {
    this.latest = { block, verdict };
    for (const row of verdict.rows) this.all[row].visited.push(block);
  }

  leave(block, verdict, leaving) {
    verdict.rows.forEach((row, at) => {
      if (!leaving[at]) return;
      Object.assign(this.all[row], { early: true, gate: verdict.gate[at] });
      this.finish(row, block, verdict.embedding[at], verdict.probabilities[at]);
    });
  }

  /** Gives the images that are left the answers of the last exit visited, after `block` has run. */
  fallBack(block, rows) {
    const { block: exitBlock, verdict } = this.latest;
    const left = new Set(rows);
    this.leave(
      exitBlock,
      verdict,
      verdict.rows.map((row) => left.has(row)),
    );
    for (const row of rows) this.all[row].blocksRun = block;
    return this.all;
  }

  finish(row, block, embedding, probabilities) {
    Object.assign(this.all[row], { exitBlock: block, blocksRun: block, embedding, probabilities });
  }
}
