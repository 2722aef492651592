/**
 * Cleans texts before they are tokenized, as open_clip does: repairs mojibake, resolves HTML's character references,
 * makes every white space one blank, lowers the case.
 *
 * open_clip repairs with ftfy. Here the same is done for text that was decoded as Windows-1252 or Latin-1 as a whole;
 * text that is broken in another way, or in a part only, stays as it is. docs/javascript.md says how often that shows.
 */

import { ENTITIES } from "./html_entities.js";

/** White space as Python has it. */
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;

const CONTROL = /[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;
const TERMINAL_ESCAPE = /\x1b\[[0-9;]*[a-zA-Z]/g;
const LIGATURE = /[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]/g;

/** What is no letter alone: ftfy writes these as it does, and leaves the long s as it is. */
const LIGATURES = { "\u0149": "\u02bcn", "\ufb05": "\u017ft" };

const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/g;
const STRICT_REFERENCE = /&(#?[0-9A-Za-z]{1,24};)/g;

/** Characters of Windows-1252 in the place of the control characters 0x80 to 0x9f; holes stay control characters. */
const WINDOWS_1252 =
  "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
  "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

/** Cleans one text. */
export function clean(text) {
  const repaired = (text.match(/[^\n]*\n|[^\n]+/g) ?? []).map(repairedLine).join("");
  return unescaped(unescaped(repaired)).replace(SPACE, " ").replace(/^ | $/g, "").toLowerCase();
}

/** Repairs one line as ftfy does, until nothing changes any more. */
function repairedLine(line) {
  const isMarkup = line.includes("<");
  for (let before = null, text = line; ; before = text) {
    if (before === text) return text;
    if (!isMarkup) text = text.replace(STRICT_REFERENCE, (whole, name) => resolved(name) ?? whole);
    text = withoutMojibake(text)
      .replace(/[\x80-\x9f]/g, (character) => WINDOWS_1252[character.charCodeAt(0) - 0x80])
      .replace(LIGATURE, (character) => LIGATURES[character] ?? letters(character))
      .replace(/[\u3000\uff01-\uffef]/g, (character) => character.normalize("NFKC"))
      .replace(/[\u02bc\u2018-\u201b]/g, "'")
      .replace(/[\u201c-\u201f]/g, '"')
      .replace(/\r\n|[\r\u2028\u2029\x85]/g, "\n")
      .replace(/\p{Cs}/gu, "\ufffd")
      .replace(TERMINAL_ESCAPE, "")
      .replace(CONTROL, "")
      .normalize("NFC");
  }
}

/** Takes a ligature apart and keeps the accents of its letters on them. */
function letters(character) {
  return character.normalize("NFKC").normalize("NFC");
}

/** Decodes as UTF-8 what was decoded as Windows-1252 or Latin-1 before; other text stays as it is. */
function withoutMojibake(text) {
  for (let now = text; ;) {
    const bytes = bytesOf(now);
    if (bytes === null) return now;
    try {
      now = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return now;
    }
  }
}

/** Gives the bytes of a text in Windows-1252; null where it has none there, or is ASCII alone. */
function bytesOf(text) {
  const bytes = new Uint8Array(text.length);
  let isAscii = true;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    const special = code > 0x7f ? WINDOWS_1252.indexOf(text[at]) : -1;
    if (code > 0xff && special < 0) return null;
    bytes[at] = special < 0 ? code : 0x80 + special;
    isAscii &&= bytes[at] < 0x80;
  }
  return isAscii ? null : bytes;
}

/** Resolves character references as browsers and Python's `html.unescape` do. */
function unescaped(text) {
  return text.replace(REFERENCE, (whole, name) => {
    const found = resolved(name);
    if (found !== null || name.startsWith("#")) return found ?? whole;
    for (let length = name.length - 1; length > 1; length -= 1) {
      const known = ENTITIES.get(name.slice(0, length));
      if (known !== undefined) return known + name.slice(length);
    }
    return whole;
  });
}

/** Gives the text of a reference, `eacute;` or `#233;`; null where it is unknown. */
function resolved(name) {
  if (!name.startsWith("#")) return ENTITIES.get(name) ?? null;
  const found = /^#(?:[xX]([0-9a-fA-F]+)|([0-9]+));?$/.exec(name);
  if (found === null) return null;
  const point = found[1] === undefined ? Number.parseInt(found[2], 10) : Number.parseInt(found[1], 16);
  if (point === 0 || (point >= 0xd800 && point <= 0xdfff) || point > 0x10ffff) return "\ufffd";
  if (point >= 0x80 && point <= 0x9f) return WINDOWS_1252[point - 0x80];
  return isUnassigned(point) ? "" : String.fromCodePoint(point);
}

/** Tells whether a code point is none that HTML allows. */
function isUnassigned(point) {
  if (point < 0x20) return ![0x9, 0xa, 0xc, 0xd].includes(point);
  return point === 0x7f || (point >= 0xfdd0 && point <= 0xfdef) || (point & 0xfffe) === 0xfffe;
}
