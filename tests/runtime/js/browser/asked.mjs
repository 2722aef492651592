/**
 * Classifies images in Chromium, as the documentation shows it for a page.
 *
 *     node asked.mjs PACKAGE BUNDLE IMAGE... > answers.json
 *
 * PACKAGE is a copy of runtime/js with its node_modules. A server on this machine gives the page everything. Exit status 3
 * says that Chromium cannot be started here.
 */

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";

import chromium from "@sparticuz/chromium";
import { chromium as browsers } from "playwright-core";

const [, , home, bundle, ...images] = process.argv;
const FOLDERS = { js: join(home, "src"), ort: join(home, "node_modules", "onnxruntime-web", "dist"), bundle };
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };

const server = createServer(async (request, response) => {
  const [, place, ...names] = decodeURIComponent(request.url).split("/");
  const rest = names.join("/");
  try {
    if (request.url === "/") return response.setHeader("content-type", "text/html").end("<!doctype html>");
    const path = place === "images" ? images[Number(rest)] : join(FOLDERS[place], rest);
    const content = await readFile(path);
    return response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream").end(content);
  } catch {
    response.statusCode = 404;
    return response.end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

/** Runs in the page: loads the bundle, and answers for each image, with the hash of its pixels. */
async function answers(count) {
  const ort = await import("/ort/ort.wasm.min.mjs");
  const { load } = await import("/js/index.js");
  const { decode } = await import("/js/browser.js");
  ort.env.wasm.numThreads = 1;
  const model = await load(ort, "/bundle/");
  const found = [];
  for (let at = 0; at < count; at += 1) {
    const image = await decode(await (await fetch(`/images/${at}`)).blob());
    const { label, exitBlock, embedding } = await model.classify(image);
    const { data, width, height } = image;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    found.push({ label, exitBlock, embedding: Array.from(embedding), width, height, sha256: Array.from(digest) });
  }
  return found;
}

let browser;
try {
  browser = await browsers.launch({ executablePath: await chromium.executablePath(), args: chromium.args });
} catch (error) {
  console.error(String(error.message).split("\n")[0]);
  process.exit(3);
}
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${server.address().port}/`);
process.stdout.write(JSON.stringify(await page.evaluate(answers, images.length)));
await browser.close();
server.close();
