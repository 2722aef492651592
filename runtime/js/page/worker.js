/** Runs a bundle in a thread of its own, so that the page goes on scrolling; `client.js` asks it by messages. */

import * as ort from "../ort/ort.js";
import { Runner } from "./runner.js";

const folder = new URL("../ort/", import.meta.url).href;
ort.env.wasm.wasmPaths = { mjs: `${folder}threads.js`, wasm: `${folder}ort.wasm` };
ort.env.logLevel = "error";

const runner = new Runner(ort);

self.addEventListener("message", async ({ data: { id, what, given } }) => {
  try {
    const answer = await runner[what](given, (state) => self.postMessage({ id, state }));
    self.postMessage({ id, answer });
  } catch (error) {
    self.postMessage({ id, error: { name: error.name, message: error.message } });
  }
});
