/** Takes rows out of tensors: those of a batch, some of them, or the most likely label of one. */

/** Gives a view of each row of a tensor (batch, ...). */
export function rowsOf(tensor) {
  const width = tensor.data.length / tensor.dims[0];
  return Array.from({ length: tensor.dims[0] }, (_, row) => tensor.data.subarray(row * width, (row + 1) * width));
}

/** Copies the rows of a tensor (batch, ...) that are kept. */
export function keptRows(ort, tensor, kept) {
  const all = rowsOf(tensor);
  const width = all[0].length;
  const data = new Float32Array(kept.length * width);
  kept.forEach((row, to) => data.set(all[row], to * width));
  return new ort.Tensor("float32", data, [kept.length, ...tensor.dims.slice(1)]);
}

/** Finds the first of the largest values. */
export function mostLikely(probabilities) {
  let best = 0;
  for (let index = 1; index < probabilities.length; index += 1) {
    if (probabilities[index] > probabilities[best]) best = index;
  }
  return best;
}
