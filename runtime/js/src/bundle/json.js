/**
 * Parses JSON text without repeated keys, and keeps apart `5` and `5.0`.
 *
 * `JSON.parse` takes the last of two equal keys and knows one kind of number. A bundle is data from elsewhere, and
 * Python's runtime refuses both, so this package has a parser of its own. Objects become a `Map`: a key such as
 * `__proto__` is then a key like any other.
 */

import { BundleError, quoted } from "../errors.js";

/** Objects and lists within one another; no file of a bundle has more than ten. */
const DEEPEST = 100;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const SPACE = /[ \t\n\r]*/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPED = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

/** A number that was written with a point or an exponent, or a whole number beyond 2^53. */
export class Float {
  /** @param {number} value its value, perhaps infinite */
  constructor(value) {
    this.value = value;
  }

  toJSON() {
    return this.value;
  }
}

/**
 * Parses the text of a whole file.
 *
 * @param {string} text of the file
 * @param {string} where the file's name, for messages
 * @returns {unknown} null, booleans, texts, numbers (`Float` where they are no whole numbers), arrays and Maps
 * @throws {BundleError} it is not JSON, nested beyond reason, or an object has one key twice
 */
export function parseJson(text, where) {
  return new Parser(text, where).whole();
}

class Parser {
  constructor(text, where) {
    this.text = text;
    this.where = where;
    this.position = 0;
    this.depth = 0;
  }

  whole() {
    const value = this.value();
    this.match(SPACE);
    if (this.position < this.text.length) this.fail("text goes on after the value");
    return value;
  }

  value() {
    this.match(SPACE);
    const next = this.text[this.position];
    if (next === "{") return this.nested(() => this.object());
    if (next === "[") return this.nested(() => this.list());
    if (next === '"') return this.string();
    for (const [word, value] of [
      ["null", null],
      ["true", true],
      ["false", false],
    ]) {
      if (this.text.startsWith(word, this.position)) {
        this.position += word.length;
        return value;
      }
    }
    const number = this.match(NUMBER);
    if (number === "") this.fail("a value is missing");
    const value = Number(number);
    return /[.eE]/.test(number) || !Number.isSafeInteger(value) ? new Float(value) : value + 0;
  }

  nested(read) {
    this.depth += 1;
    if (this.depth > DEEPEST) this.fail("it is nested too deep");
    this.position += 1;
    const value = read();
    this.depth -= 1;
    return value;
  }

  object() {
    const found = new Map();
    if (this.takes("}")) return found;
    do {
      this.match(SPACE);
      if (this.text[this.position] !== '"') this.fail("a key is missing");
      const key = this.string();
      if (!this.takes(":")) this.fail("':' is missing");
      if (found.has(key)) {
        throw new BundleError(
          `${this.where} has the key ${quoted(key)} twice in one object; the file was not written by lraee`,
        );
      }
      found.set(key, this.value());
    } while (this.takes(","));
    if (!this.takes("}")) this.fail("'}' is missing");
    return found;
  }

  list() {
    const found = [];
    if (this.takes("]")) return found;
    do found.push(this.value());
    while (this.takes(","));
    if (!this.takes("]")) this.fail("']' is missing");
    return found;
  }

  string() {
    this.position += 1;
    let found = this.match(PLAIN);
    while (this.text[this.position] === "\\") {
      found += this.escape() + this.match(PLAIN);
    }
    if (this.text[this.position] !== '"') this.fail("a string does not end, or has a control character");
    this.position += 1;
    return found;
  }

  escape() {
    const letter = this.text[this.position + 1];
    if (letter === "u") {
      const digits = this.text.slice(this.position + 2, this.position + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.fail("\\u wants four hexadecimal digits");
      this.position += 6;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    if (letter === undefined || !Object.hasOwn(ESCAPED, letter)) this.fail("an escape is unknown");
    this.position += 2;
    return ESCAPED[letter];
  }

  takes(sign) {
    this.match(SPACE);
    if (this.text[this.position] !== sign) return false;
    this.position += 1;
    return true;
  }

  match(pattern) {
    pattern.lastIndex = this.position;
    const found = pattern.exec(this.text)?.[0] ?? "";
    this.position += found.length;
    return found;
  }

  fail(reason) {
    throw new BundleError(
      `${this.where} is not JSON (${reason}, at character ${this.position}); the bundle is damaged, export it again`,
    );
  }
}
