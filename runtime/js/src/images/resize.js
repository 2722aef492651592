/**
 * Resizes uint8 pixels and gives those that Pillow gives, bit for bit.
 *
 * Pillow resizes one axis, rounds to uint8, then the other. A value is a weighted sum of its neighbours in integers,
 * with weights of 22 bits. Source: Pillow, src/libImaging: Resample.c (precompute_coeffs, normalize_coeffs_8bpc),
 * Geometry.c (ImagingScaleAffine).
 */

/** Of the fraction of a weight; sums of weight times level then fit into 32 bits. */
const WEIGHT_BITS = 22;

const ONE_HALF = 2 ** (WEIGHT_BITS - 1);

/** Kernel of each filter, and how far it reaches. */
const FILTERS = { bicubic: [bicubic, 2], bilinear: [bilinear, 1] };

/**
 * Resizes an image.
 *
 * @param {{data: Uint8Array, width: number, height: number, channels: number}} image rows of pixels, channels last
 * @param {number} width wanted, in pixels
 * @param {number} height wanted, in pixels
 * @param {"bicubic" | "bilinear" | "nearest"} interpolation Pillow's filter of that name
 * @returns {{data: Uint8Array, width: number, height: number, channels: number}} the image itself where its size is
 *   that already
 */
export function resize(image, width, height, interpolation) {
  if (interpolation === "nearest") return resizeNearest(image, width, height);
  if (heightsFirst(image, width, height)) {
    return resizeWidth(resizeHeight(image, height, interpolation), width, interpolation);
  }
  return resizeHeight(resizeWidth(image, width, interpolation), height, interpolation);
}

/** Tells whether Pillow resizes heights before widths: since version 13, where much more of the height is to go. */
function heightsFirst(image, width, height) {
  return image.height - height > 2 * Math.max(image.width - width, 0);
}

function resizeHeight(image, height, interpolation) {
  if (image.height === height) return image;
  const { first, counts, weights, most } = weightsOf(image.height, height, interpolation);
  const rowBytes = image.width * image.channels;
  const data = new Uint8ClampedArray(rowBytes * height);
  const totals = new Int32Array(rowBytes);
  for (let row = 0; row < height; row += 1) {
    totals.fill(ONE_HALF);
    for (let neighbour = 0; neighbour < counts[row]; neighbour += 1) {
      const weight = weights[row * most + neighbour];
      const start = (first[row] + neighbour) * rowBytes;
      for (let at = 0; at < rowBytes; at += 1) totals[at] += weight * image.data[start + at];
    }
    for (let at = 0; at < rowBytes; at += 1) data[row * rowBytes + at] = totals[at] >> WEIGHT_BITS;
  }
  return { ...image, data: asBytes(data), height };
}

function resizeWidth(image, width, interpolation) {
  if (image.width === width) return image;
  const { first, counts, weights, most } = weightsOf(image.width, width, interpolation);
  const { channels, height } = image;
  const data = new Uint8ClampedArray(width * height * channels);
  for (let row = 0, to = 0; row < height; row += 1) {
    const rowStart = row * image.width * channels;
    for (let column = 0; column < width; column += 1) {
      const start = rowStart + first[column] * channels;
      for (let channel = 0; channel < channels; channel += 1, to += 1) {
        let total = ONE_HALF;
        for (let neighbour = 0, at = start + channel; neighbour < counts[column]; neighbour += 1, at += channels) {
          total += weights[column * most + neighbour] * image.data[at];
        }
        data[to] = total >> WEIGHT_BITS;
      }
    }
  }
  return { ...image, data: asBytes(data), width };
}

function resizeNearest(image, width, height) {
  const [rows, columns] = [nearest(image.height, height), nearest(image.width, width)];
  const { channels } = image;
  const data = new Uint8Array(width * height * channels);
  let to = 0;
  for (const row of rows) {
    for (const column of columns) {
      const start = (row * image.width + column) * channels;
      for (let channel = 0; channel < channels; channel += 1, to += 1) data[to] = image.data[start + channel];
    }
  }
  return { ...image, data, width, height };
}

/** Finds the nearest neighbour of each of `count` values; steps are added up one by one, as Pillow does. */
function nearest(length, count) {
  const step = length / count;
  const found = new Int32Array(count);
  for (let at = 0, place = step * 0.5; at < count; at += 1, place += step) {
    found[at] = Math.min(Math.trunc(place), length - 1);
  }
  return found;
}

/** Gives for each value its first neighbour, the number of neighbours, and their weights. */
function weightsOf(length, count, interpolation) {
  const [kernel, reach] = FILTERS[interpolation];
  const scale = length / count;
  const stretch = Math.max(scale, 1);
  const most = Math.ceil(reach * stretch) * 2 + 1;
  const [first, counts] = [new Int32Array(count), new Int32Array(count)];
  const weights = new Int32Array(count * most);
  for (let value = 0; value < count; value += 1) {
    const centre = (value + 0.5) * scale;
    first[value] = Math.max(Math.trunc(centre - reach * stretch + 0.5), 0);
    counts[value] = Math.min(Math.trunc(centre + reach * stretch + 0.5), length) - first[value];
    const shares = Array.from({ length: counts[value] }, (_, neighbour) =>
      kernel((neighbour + first[value] - centre + 0.5) * (1 / stretch)),
    );
    const sum = shares.reduce((total, share) => total + share, 0);
    shares.forEach((share, neighbour) => {
      const scaled = (share / sum) * 2 ** WEIGHT_BITS;
      weights[value * most + neighbour] = Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
  }
  return { first, counts, weights, most };
}

/** Computes Keys' kernel with a = -0.5. */
function bicubic(distance) {
  const a = -0.5;
  const x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function bilinear(distance) {
  return Math.max(1 - Math.abs(distance), 0);
}

function asBytes(clamped) {
  return new Uint8Array(clamped.buffer);
}
