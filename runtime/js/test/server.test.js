/** What a server gives is checked as a folder is, and nothing is read beyond what the manifest says. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { test } from "node:test";

import { BundleError, Full, load } from "lraee";
import * as ort from "onnxruntime-node";

import { GOLDEN } from "./helpers.js";

const ADDRESS = "https://example.org/models/small.lraee/";
const grey = { data: new Uint8Array(16 * 16 * 4).fill(99), width: 16, height: 16 };

/** A server that gives a golden bundle, but for some files; `asked` collects what it is asked for. */
function serverOf(changes = {}) {
  const asked = [];
  const fetch = async (address) => {
    const name = decodeURIComponent(basename(address));
    asked.push(name);
    if (name in changes) return changes[name]();
    return new Response(await readFile(`${GOLDEN}/format_2.lraee/${name}`));
  };
  return { fetch, asked };
}

function refused(promise, words) {
  return assert.rejects(promise, (error) => {
    assert.ok(error instanceof BundleError, String(error));
    assert.ok(error.message.includes(words), error.message);
    return true;
  });
}

test("parts are asked for when an image reaches them", async () => {
  const { fetch, asked } = serverOf();
  const model = await load(ort, ADDRESS, { fetch });
  assert.deepEqual(asked, ["manifest.json", "labels.json", "labels.npy"]);
  await model.classify(grey, { policy: new Full() });
  assert.ok(asked.includes("block_03_class.onnx") && asked.includes("block_03.data"));
  assert.ok(!asked.includes("exit_01.onnx"));
});

test("all parts are asked for at once where that is wanted", async () => {
  const { fetch, asked } = serverOf();
  await load(ort, new URL(ADDRESS), { fetch, warm: true });
  assert.ok(asked.includes("exit_01.onnx") && asked.includes("tail.data"));
});

test("a server that has no bundle, or is not there, is named", async () => {
  const missing = serverOf({ "manifest.json": () => new Response("", { status: 404, statusText: "Not Found" }) });
  await refused(
    load(ort, ADDRESS, { fetch: missing.fetch }),
    `${ADDRESS}manifest.json cannot be read: the server answers 404 Not Found`,
  );
  const away = async () => {
    throw new TypeError("fetch failed");
  };
  await refused(load(ort, ADDRESS, { fetch: away }), "lets this page read it (CORS)");
});

test("a file that goes on without end is not read on", async () => {
  let given = 0;
  const endless = () =>
    new Response(
      new ReadableStream({
        pull: (controller) => {
          given += 1;
          controller.enqueue(new Uint8Array(65536));
        },
      }),
    );
  await refused(load(ort, ADDRESS, { fetch: serverOf({ "labels.json": endless }).fetch }), "not read on");
  assert.ok(given < 5, `${given} pieces were read`);
});

test("a file that ends early, or holds something else, is refused", async () => {
  const short = serverOf({ "labels.npy": () => new Response("short") });
  await refused(load(ort, ADDRESS, { fetch: short.fetch }), "the manifest says 320");
  const other = serverOf({ "labels.npy": () => new Response(new Uint8Array(320)) });
  await refused(load(ort, ADDRESS, { fetch: other.fetch }), "labels.npy has SHA-256");
  const page = serverOf({ "manifest.json": () => new Response("<!doctype html>") });
  await refused(load(ort, ADDRESS, { fetch: page.fetch }), "manifest.json is not JSON");
});
