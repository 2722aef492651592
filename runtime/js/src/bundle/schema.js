/**
 * Decodes parsed JSON by a schema and refuses whatever does not fit exactly.
 *
 * A schema is a function `(value, where)` that gives the decoded value or throws. An unknown key may be a typing error
 * or a promise that this code cannot keep, so it is refused with its path, never ignored.
 */

import { BundleError, kindOf, quoted } from "../errors.js";
import { Float } from "./json.js";

/** Decodes a text. */
export function text(value, where) {
  if (typeof value !== "string") throw wrongType(where, value, "a text");
  return value;
}

/** Decodes a whole number. */
export function integer(value, where) {
  if (typeof value !== "number") throw wrongType(where, value, "a whole number");
  return value;
}

/** Decodes a finite number. */
export function float(value, where) {
  const number = value instanceof Float ? value.value : value;
  if (typeof number !== "number") throw wrongType(where, value, "a number");
  if (!Number.isFinite(number)) throw new BundleError(`${where} is ${number}, wanted a finite number`);
  return number;
}

/** Makes a schema of a few words. */
export function oneOf(...words) {
  return (value, where) => {
    if (typeof value !== "string" || !words.includes(value)) {
      throw new BundleError(`${where} is ${quoted(value)}, wanted one of ${words.map(quoted).join(", ")}`);
    }
    return value;
  };
}

/** Makes a schema that also takes null. */
export function orNull(schema) {
  return (value, where) => (value === null ? null : schema(value, where));
}

/** Makes a schema of a list. */
export function listOf(schema) {
  return (value, where) => {
    if (!Array.isArray(value)) throw wrongType(where, value, "a list");
    return Object.freeze(value.map((item, index) => schema(item, `${where}[${index}]`)));
  };
}

/** Makes a schema of a list of three. */
export function threeOf(schema) {
  const list = listOf(schema);
  return (value, where) => {
    if (Array.isArray(value) && value.length !== 3) {
      throw new BundleError(`${where} has ${value.length} entries, wanted 3`);
    }
    return list(value, where);
  };
}

/** Makes a schema of an object with any keys. */
export function mapOf(schema) {
  return (value, where) => {
    if (!(value instanceof Map)) throw wrongType(where, value, "an object");
    return Object.freeze(Object.fromEntries([...value].map(([key, item]) => [key, schema(item, inside(where, key))])));
  };
}

/**
 * Makes a schema of an object with known keys.
 *
 * @param {Record<string, Function>} fields the schema of each key
 * @param {Record<string, unknown>} [defaults] values of the keys that may be missing
 * @param {(record: object, where: string) => void} [check] throws where values are out of their ranges
 */
export function record(fields, defaults = {}, check = () => {}) {
  const names = Object.keys(fields);
  const schema = (value, where) => {
    if (!(value instanceof Map)) throw wrongType(where, value, "an object");
    const unknown = [...value.keys()].filter((key) => !Object.hasOwn(fields, key)).sort();
    if (unknown.length > 0) {
      throw new BundleError(
        `${where} has the unknown key ${quoted(unknown[0])}; this version reads ${names.join(", ")}`,
      );
    }
    const missing = names.filter((name) => !value.has(name) && !Object.hasOwn(defaults, name)).sort();
    if (missing.length > 0) {
      throw new BundleError(
        `${where} lacks the key ${quoted(missing[0])}; the file is incomplete or of another format`,
      );
    }
    const decoded = { ...defaults };
    for (const name of names) if (value.has(name)) decoded[name] = fields[name](value.get(name), inside(where, name));
    check(decoded, where);
    return Object.freeze(decoded);
  };
  schema.fields = fields;
  schema.defaults = defaults;
  return schema;
}

/** Appends one more key to `where`: `manifest.json`, `manifest.json: tower`, `manifest.json: tower.width`. */
function inside(where, key) {
  return where.includes(": ") ? `${where}.${key}` : `${where}: ${key}`;
}

function wrongType(where, value, wanted) {
  return new BundleError(`${where} is ${quoted(value)} (${kindOf(value)}), wanted ${wanted}`);
}
