/**
 * Defines every error that this package raises on purpose, in one tree.
 *
 *     LraeeError
 *     ├── BundleError      a bundle is damaged, incomplete, newer than this code, or unsafe
 *     ├── ImageError       pixels have another shape than those of an image
 *     ├── LabelsError      labels are missing, empty, or cannot be embedded by this bundle
 *     ├── SettingsError    a setting of a model or a call is unknown, of another type, or out of its range
 *     └── PolicyError      a policy asks for something the bundle does not have
 *
 * A message says what was met, what was wanted, and what to do next.
 */

/** Characters of a message; beyond it the middle is left out. */
const LONGEST_MESSAGE = 2000;

/** Characters of a value that a message quotes. */
const LONGEST_VALUE = 60;

/** Base of all errors raised on purpose. */
export class LraeeError extends Error {
  /**
   * @param {string} message what was met, what was wanted, and what to do next
   * @param {{cause?: unknown}} [options] `cause` is the error of another library that led to this one
   */
  constructor(message, options) {
    super(shortened(message, LONGEST_MESSAGE), options);
    this.name = "LraeeError";
  }
}

/** A bundle is damaged, incomplete, of a newer format, or points outside its folder. */
export class BundleError extends LraeeError {
  constructor(message, options) {
    super(message, options);
    this.name = "BundleError";
  }
}

/** An image is not an object with `data`, `width` and `height`, or cannot be resized. */
export class ImageError extends LraeeError {
  constructor(message, options) {
    super(message, options);
    this.name = "ImageError";
  }
}

/** Labels are missing, empty, or need a text tower that this bundle does not carry. */
export class LabelsError extends LraeeError {
  constructor(message, options) {
    super(message, options);
    this.name = "LabelsError";
  }
}

/** A setting such as a number of threads is unknown, of another type, or out of its range. */
export class SettingsError extends LraeeError {
  constructor(message, options) {
    super(message, options);
    this.name = "SettingsError";
  }
}

/** A policy names an exit, operating point or schedule that the bundle does not have. */
export class PolicyError extends LraeeError {
  constructor(message, options) {
    super(message, options);
    this.name = "PolicyError";
  }
}

/** Leaves out the middle of a text that is longer than `most` characters, and says how much. */
export function shortened(text, most) {
  if (text.length <= most) return text;
  const note = `... ${(text.length - most).toLocaleString("en")} characters left out ...`;
  const kept = Math.max(most - note.length, 2);
  const head = Math.floor((kept * 2) / 3);
  return text.slice(0, head) + note + text.slice(text.length - (kept - head));
}

/** Quotes any value for a message: texts in quotation marks, other values as JSON or by their kind. */
export function quoted(value) {
  if (typeof value === "string") return `'${shortened(value, LONGEST_VALUE)}'`;
  if (typeof value === "bigint" || typeof value === "symbol") return String(value);
  if (typeof value === "function") return `the function ${value.name || "without a name"}`;
  if (typeof value === "number" || value === undefined) return String(value);
  if (value instanceof Map) return "an object";
  if (Array.isArray(value) && value.length > 8) return `a list of ${value.length}`;
  if (ArrayBuffer.isView(value)) return `a ${value.constructor.name} of ${value.byteLength} bytes`;
  try {
    return shortened(JSON.stringify(value) ?? kindOf(value), LONGEST_VALUE);
  } catch {
    return kindOf(value);
  }
}

/** Names the kind of a value for a message: `a string`, `null`, `a Uint8Array`. */
export function kindOf(value) {
  if (value === null || value === undefined) return String(value);
  const name = typeof value === "object" ? (value.constructor?.name ?? "object") : typeof value;
  return `${/^[aeiou]/i.test(name) && !/^uint/i.test(name) ? "an" : "a"} ${name}`;
}
