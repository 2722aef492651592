/** Tells what the page cannot do here and why: threads, a safe connection, a network, a newer version. */

const $ = (id) => document.getElementById(id);

/** Shows a fault in one sentence; null hides it. */
export function showError(message) {
  $("error").hidden = message === null;
  $("error").textContent = message === null ? "" : `${message}${/[.!?]$/.test(message) ? "" : "."}`;
}

/** Says why there is one thread only, and what to do. */
export function showThreads() {
  if (globalThis.crossOriginIsolated) return;
  const code = (words) => Object.assign(document.createElement("code"), { textContent: words });
  $("threads").replaceChildren(
    "Runs with one thread, because the server does not isolate this page. It would have to send the headers ",
    code("Cross-Origin-Opener-Policy: same-origin"),
    " and ",
    code("Cross-Origin-Embedder-Policy: require-corp"),
    ".",
  );
  $("threads").hidden = false;
}

/** Says what stops the page from working in this browser at all; null where nothing does. */
export function obstacle() {
  if (!globalThis.isSecureContext)
    return "This page must come from https or localhost; elsewhere browsers cannot check a bundle";
  if (typeof OffscreenCanvas === "undefined" || typeof WebAssembly === "undefined") {
    return "This browser is too old; it has no WebAssembly or OffscreenCanvas";
  }
  return null;
}

/** Lets the service worker keep the page for use without a network; comes back when it is kept. */
export async function keepOffline() {
  if (navigator.serviceWorker === undefined) return false;
  try {
    const registration = await navigator.serviceWorker.register("service_worker.js", { updateViaCache: "none" });
    offerUpdates(registration);
    await navigator.serviceWorker.ready;
    return true;
  } catch {
    return false; // some browsers allow none in private windows
  }
}

/** Says whether the page works without a network, and with which bundle. */
export function showOffline(isKept, bundle) {
  const other = bundle?.isKept === false ? `; ${bundle.name} is not` : "";
  const kept = bundle?.isKept
    ? `This page and ${bundle.name} are kept in this browser`
    : "This page is kept in this browser";
  $("offline").textContent = isKept
    ? `${kept} for use without a network${other}.`
    : "This page needs its server: the browser does not keep it.";
}

/** Offers a newer version once its files are all there. */
function offerUpdates(registration) {
  const look = () => {
    if (registration.waiting === null || navigator.serviceWorker.controller === null) return;
    $("update").hidden = false;
    $("update").querySelector("button").onclick = () => {
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
      registration.waiting.postMessage("use");
    };
  };
  const follow = () => registration.installing?.addEventListener("statechange", look);
  look();
  follow();
  registration.addEventListener("updatefound", follow);
}
