/** Keeps the bytes of bundles in the browser's cache, so that each is downloaded once and is there without a network. */

const CACHE = "lraee-bundles";

/** A download that failed, told in one sentence. */
export class DownloadError extends Error {}

/** Gives the address under which one version of a bundle is kept: with other content it is another address. */
function addressOf(entry) {
  return new URL(`../bundles/${encodeURIComponent(entry.file)}?sha256=${entry.sha256}`, import.meta.url).href;
}

/**
 * Gives the bytes of a bundle, from the cache or else from the server.
 *
 * @param {{file: string, sha256: string, size_bytes: number}} entry of bundles.json
 * @param {(bytes: number) => void} onProgress is told how many bytes have come
 * @returns {Promise<{blob: Blob, isKept: boolean}>} `isKept`: whether it is there without a network from now on
 * @throws {DownloadError} it is neither kept nor to be had
 */
export async function bundleBlob(entry, onProgress) {
  const cache = await caches.open(CACHE);
  const address = addressOf(entry);
  const kept = await cache.match(address);
  if (kept !== undefined) return { blob: await kept.blob(), isKept: true };
  const blob = await download(address, entry, onProgress);
  try {
    await cache.put(address, new Response(blob));
    return { blob, isKept: true };
  } catch {
    return { blob, isKept: false }; // no space is left for it
  }
}

/** Forgets a bundle whose bytes turned out to be damaged, so that it is downloaded again. */
export async function forget(entry) {
  await (await caches.open(CACHE)).delete(addressOf(entry));
}

/** Forgets bundles that the server no longer offers. */
export async function forgetOthers(entries) {
  const cache = await caches.open(CACHE);
  const wanted = entries.map(addressOf);
  for (const { url } of await cache.keys()) {
    if (url.startsWith(new URL("../bundles/", import.meta.url).href) && !wanted.includes(url)) await cache.delete(url);
  }
}

async function download(address, { file, size_bytes: size }, onProgress) {
  const response = await fetch(address).catch(() => null);
  if (response === null)
    throw new DownloadError(`${file} cannot be downloaded: the server does not answer; try again online`);
  if (!response.ok) throw new DownloadError(`${file} cannot be downloaded: the server answers ${response.status}`);
  const pieces = [];
  let got = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) break;
    pieces.push(value);
    got += value.length;
    onProgress(got);
  }
  if (got !== size) throw new DownloadError(`${file} came with ${got} of ${size} bytes; try again`);
  return new Blob(pieces);
}
