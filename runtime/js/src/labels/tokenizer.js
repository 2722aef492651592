/**
 * Turns text into token ids, as open_clip's `SimpleTokenizer` does: clean, split into words, merge bytes.
 *
 * Source: Sennrich et al., arXiv 1508.07909 (byte-pair encoding); openai/CLIP, `simple_tokenizer.py`.
 */

import { clean } from "./clean.js";

const START = "<start_of_text>";
const END = "<end_of_text>";

/** Special tokens, contractions, runs of letters, single digits, runs of the rest; case does not count. */
const WORD = /<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{L}\p{N} \u0345]+/giu;

/** Encodes texts with CLIP's byte-pair encoding. */
export class Tokenizer {
  /**
   * Token ids are, in this order: the 256 bytes, the 256 bytes at the end of a word, the merges, start, end.
   *
   * @param {string[]} merges two tokens each, with a blank between them, the first to be merged first
   */
  constructor(merges) {
    this.characters = byteCharacters();
    const letters = [...this.characters.values()];
    this.ranks = new Map(merges.map((merge, rank) => [merge, rank]));
    const vocabulary = [...letters, ...letters.map((letter) => `${letter}</w>`)];
    for (const merge of merges) vocabulary.push(merge.replace(" ", ""));
    this.ids = new Map([...vocabulary, START, END].map((token, id) => [token, id]));
    this.start = vocabulary.length;
    this.end = vocabulary.length + 1;
    this.known = new Map();
  }

  /** Encodes a text as token ids, without start and end. */
  encode(text) {
    return split(clean(text)).flatMap((word) => this.tokensOf(word));
  }

  /** Encodes a text with start and end; it is cut to the context, and the end is kept. */
  row(text, contextLength) {
    return [this.start, ...this.encode(text).slice(0, contextLength - 2), this.end];
  }

  tokensOf(word) {
    const known = this.known.get(word);
    if (known !== undefined) return known;
    const tokens = this.merged(word);
    if (this.known.size < 4096) this.known.set(word, tokens);
    return tokens;
  }

  /** Encodes one word: takes its bytes, and merges the neighbours of least rank until none has a rank. */
  merged(word) {
    if (word === START || word === END) return [this.ids.get(word)];
    let parts = Array.from(new TextEncoder().encode(word), (byte) => this.characters.get(byte));
    parts[parts.length - 1] += "</w>";
    for (;;) {
      let best = null;
      for (let at = 0; at + 1 < parts.length; at += 1) {
        const pair = `${parts[at]} ${parts[at + 1]}`;
        if (this.ranks.has(pair) && (best === null || this.ranks.get(pair) < this.ranks.get(best))) best = pair;
      }
      if (best === null) return parts.map((part) => this.ids.get(part));
      parts = withPairJoined(parts, best.split(" "));
    }
  }
}

/** Splits a cleaned text into words. */
export function split(text) {
  return text.match(WORD) ?? [];
}

/** Gives the printable character that stands for each byte in merges, in the order of the token ids. */
function byteCharacters() {
  const printable = [];
  for (const [first, last] of [
    [33, 126],
    [161, 172],
    [174, 255],
  ]) {
    for (let byte = first; byte <= last; byte += 1) printable.push(byte);
  }
  const found = new Map(printable.map((byte) => [byte, String.fromCharCode(byte)]));
  for (let byte = 0, other = 256; byte < 256; byte += 1) {
    if (!found.has(byte)) found.set(byte, String.fromCharCode(other++));
  }
  return found;
}

/** Joins every occurrence of a pair of neighbours, from left to right. */
function withPairJoined(parts, [left, right]) {
  const joined = [];
  for (let at = 0; at < parts.length; at += 1) {
    if (parts[at] === left && parts[at + 1] === right) {
      joined.push(left + right);
      at += 1;
    } else {
      joined.push(parts[at]);
    }
  }
  return joined;
}
