/**
 * Turns pixels into the square of uint8 RGB that a bundle's stem takes, as Python's runtime does.
 *
 * The order of arithmetic is that of torchvision: the long edge is truncated and the crop offset rounded to even. Mean
 * and standard deviation are part of the stem.
 */

import { ImageError, kindOf } from "../errors.js";
import { resize } from "./resize.js";

/** An image so narrow that its resized copy would have more pixels than this is refused. */
const MOST_RESIZED_PIXELS = 2 ** 26;

/**
 * Resizes and crops (or pads) one image to the model's input.
 *
 * @param {{data: Uint8Array | Uint8ClampedArray, width: number, height: number}} image RGBA or RGB, row after row;
 *   an `ImageData` of a canvas is one. Alpha weighs pixels while they are resized, and is dropped then.
 * @param {object} preprocessing the manifest's
 * @returns {Uint8Array} RGB, image_size x image_size x 3
 * @throws {ImageError} it is something else, or so narrow that resizing it would exhaust memory
 */
export function preprocess(image, preprocessing) {
  const { image_size: size, resize_mode: mode, interpolation, fill_color: fill } = preprocessing;
  const picture = checkImage(image);
  if (picture.width === size && picture.height === size) return toRgb(picture).data;
  const [width, height] = resizedSize(picture.width, picture.height, size, mode);
  if (width * Math.max(height, picture.height) > Math.max(MOST_RESIZED_PIXELS, size * size)) {
    throw new ImageError(
      `the image is ${picture.width} x ${picture.height} pixels, too narrow to classify: it would be resized to ` +
        `${width} x ${height}; crop it first`,
    );
  }
  const resized = toRgb(resizeWeighted(picture, width, height, interpolation));
  if (width === size && height === size) return resized.data;
  if (mode === "longest") return padded(resized, size, fill);
  return cropped(resized, size, roundToEven((width - size) / 2), roundToEven((height - size) / 2));
}

/** Gives width and height after resizing and before the crop or padding, in pixels. */
export function resizedSize(width, height, size, mode) {
  if (mode === "squash") return [size, size];
  if (mode === "longest") {
    const ratio = Math.max(height / size, width / size);
    return [Math.max(1, roundToEven(width / ratio)), Math.max(1, roundToEven(height / ratio))];
  }
  if (width <= height) return [size, Math.trunc((size * height) / width)];
  return [Math.trunc((size * width) / height), size];
}

/** Takes an image that was passed in, as bytes with their number of channels. */
function checkImage(image) {
  const wanted = "wanted {data, width, height} with the bytes of RGBA or RGB pixels, as ImageData has them";
  if (image === null || typeof image !== "object") throw new ImageError(`the image is ${kindOf(image)}; ${wanted}`);
  const { data, width, height } = image;
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new ImageError(`the image's data is ${kindOf(data)}; ${wanted}; scale other numbers to 0..255`);
  }
  if (![width, height].every((edge) => Number.isSafeInteger(edge) && edge > 0)) {
    throw new ImageError(`the image is ${width} x ${height} pixels; ${wanted}, at least one pixel`);
  }
  const channels = data.length / (width * height);
  if (channels !== 3 && channels !== 4) {
    const hint = channels === 1 ? "repeat a grey image's values for red, green and blue" : wanted;
    throw new ImageError(`the image has ${data.length} bytes for ${width} x ${height} pixels; ${hint}`);
  }
  return { data: new Uint8Array(data.buffer, data.byteOffset, data.length), width, height, channels };
}

/** Resizes an image; where pixels are transparent, they weigh less in what becomes of them and their neighbours. */
function resizeWeighted(picture, width, height, interpolation) {
  const isSame = picture.width === width && picture.height === height;
  if (picture.channels === 3 || isSame || isOpaque(picture) || interpolation === "nearest") {
    return resize(toRgb(picture), width, height, interpolation);
  }
  return divided(resize(multiplied(picture), width, height, interpolation));
}

function isOpaque({ data }) {
  for (let at = 3; at < data.length; at += 4) if (data[at] !== 255) return false;
  return true;
}

/** Multiplies colours by alpha, rounded as Pillow does (MULDIV255). */
function multiplied(picture) {
  const data = Uint8Array.from(picture.data);
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3];
    for (let colour = at; colour < at + 3; colour += 1) {
      const product = data[colour] * alpha + 128;
      data[colour] = ((product >> 8) + product) >> 8;
    }
  }
  return { ...picture, data };
}

/** Divides colours by alpha, cut off as Pillow does. */
function divided(picture) {
  const data = Uint8ClampedArray.from(picture.data);
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3];
    if (alpha === 0 || alpha === 255) continue;
    for (let colour = at; colour < at + 3; colour += 1) data[colour] = Math.trunc((255 * data[colour]) / alpha);
  }
  return { ...picture, data: new Uint8Array(data.buffer) };
}

/** Drops alpha; RGB is returned itself. */
function toRgb(picture) {
  if (picture.channels === 3) return picture;
  const data = new Uint8Array(picture.width * picture.height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = picture.data[from];
    data[to + 1] = picture.data[from + 1];
    data[to + 2] = picture.data[from + 2];
  }
  return { ...picture, data, channels: 3 };
}

function cropped(picture, size, left, top) {
  const data = new Uint8Array(size * size * 3);
  for (let row = 0; row < size; row += 1) {
    const start = ((top + row) * picture.width + left) * 3;
    data.set(picture.data.subarray(start, start + size * 3), row * size * 3);
  }
  return data;
}

function padded(picture, size, fill) {
  const data = new Uint8Array(size * size * 3).fill(fill);
  const left = Math.floor((size - picture.width) / 2);
  const top = Math.floor((size - picture.height) / 2);
  for (let row = 0; row < picture.height; row += 1) {
    const line = picture.data.subarray(row * picture.width * 3, (row + 1) * picture.width * 3);
    data.set(line, ((top + row) * size + left) * 3);
  }
  return data;
}

/** Rounds halves to the even number, as Python does. */
function roundToEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
