/** Collects what a stream gives, up to a limit. */

/**
 * Joins the chunks of a stream; it is cancelled where it becomes longer than allowed.
 *
 * @param {ReadableStream<Uint8Array>} stream
 * @param {number} most bytes allowed
 * @param {() => Error} tooLong makes the error of a longer stream
 * @returns {Promise<Uint8Array>}
 */
export async function collected(stream, most, tooLong) {
  const chunks = [];
  let bytes = 0;
  const reader = stream.getReader();
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    bytes += chunk.value.length;
    if (bytes > most) {
      await reader.cancel().catch(() => {});
      throw tooLong();
    }
    chunks.push(chunk.value);
  }
  const joined = new Uint8Array(bytes);
  let filled = 0;
  for (const chunk of chunks) {
    joined.set(chunk, filled);
    filled += chunk.length;
  }
  return joined;
}
