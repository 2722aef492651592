/**
 * Keeps the page for use without a network, each file under its content's hash: a new version fetches only what changed.
 *
 * FILES, the hash of each path, is written above these lines when the page is assembled. Bundles are kept elsewhere, by
 * bundle_store.js.
 */

const CACHE = "lraee-page";

/** What lets a page have threads; the kept files have the headers that the server gave them. */
const ISOLATION = ["cross-origin-opener-policy", "cross-origin-embedder-policy"];

/** How long a server may take to say which headers it gives, before the kept page is shown. */
const PATIENCE_MS = 2000;

const addressOf = (path) => new URL(`${path}?sha256=${FILES[path]}`, self.registration.scope).href;

/** Gives the path below the scope that an address is for; null where it is none of the page's files. */
function pathOf(address) {
  const { origin, pathname } = new URL(address);
  const scope = new URL(self.registration.scope);
  if (origin !== scope.origin || !pathname.startsWith(scope.pathname)) return null;
  const path = decodeURIComponent(pathname.slice(scope.pathname.length)) || "index.html";
  return Object.hasOwn(FILES, path) ? path : null;
}

/** Fetches files and keeps them; fails where the server has another version of one. */
async function keep(cache, paths, mode) {
  await Promise.all(
    paths.map(async (path) => {
      const response = await fetch(new URL(path, self.registration.scope), { cache: mode });
      const content = await response.arrayBuffer();
      const found = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
      const hash = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
      if (!response.ok || hash !== FILES[path]) throw new Error(`${path} is not the file of this version`);
      const { headers } = response; // a new response, since one that was redirected cannot be shown as a page
      await cache.put(addressOf(path), new Response(content, { headers }));
    }),
  );
}

async function install() {
  const cache = await caches.open(CACHE);
  const kept = await Promise.all(Object.keys(FILES).map(async (path) => [path, await cache.match(addressOf(path))]));
  await keep(
    cache,
    kept.filter(([, response]) => response === undefined).map(([path]) => path),
    "no-cache",
  );
}

async function removeOthers() {
  const cache = await caches.open(CACHE);
  const wanted = new Set(Object.keys(FILES).map(addressOf));
  for (const { url } of await cache.keys()) {
    if (url.startsWith(self.registration.scope) && !wanted.has(url)) await cache.delete(url);
  }
}

async function answer(request, path) {
  const cache = await caches.open(CACHE);
  if (request.mode === "navigate") await followHeaders(cache, request.url);
  return (await cache.match(addressOf(path))) ?? fetch(request);
}

/** Fetches all files again where the server gives other isolation headers than it did: all files need the same. */
async function followHeaders(cache, address) {
  const kept = await cache.match(addressOf("index.html"));
  try {
    const now = await fetch(address, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    const isSame = ISOLATION.every((name) => now.headers.get(name) === kept?.headers.get(name));
    if (now.ok && !isSame) await keep(cache, Object.keys(FILES), "reload");
  } catch {
    // without a network, or with another version on the server, what is kept is good
  }
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(removeOthers().then(() => self.clients.claim())));
self.addEventListener("message", ({ data }) => {
  if (data === "use") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const path = event.request.method === "GET" ? pathOf(event.request.url) : null;
  if (path !== null) event.respondWith(answer(event.request, path));
});
