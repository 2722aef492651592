/** Files are decoded as they are: EXIF data are hidden from the browser, colours and alpha left alone. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ImageError } from "lraee";
import { decode } from "lraee/browser";
import sharp from "sharp";

import { withoutExif } from "../src/images/orientation.js";

const pixels = Uint8Array.from({ length: 24 * 16 * 3 }, (_, at) => (at * 5) % 256);

/** A picture of 24 x 16 pixels that asks to be turned by a quarter. */
async function turned(kind) {
  const picture = sharp(pixels, { raw: { width: 24, height: 16, channels: 3 } });
  return new Uint8Array(await picture.withMetadata({ orientation: 6 })[kind]({ quality: 90 }).toBuffer());
}

for (const kind of ["jpeg", "png", "webp"]) {
  test(`the EXIF data of a ${kind} are hidden, and its pixels are the same`, async () => {
    const file = await turned(kind);
    const plain = withoutExif(file);
    assert.equal((await sharp(file).metadata()).orientation, 6);
    assert.equal((await sharp(plain).metadata()).orientation, undefined);
    assert.deepEqual(await sharp(plain).raw().toBuffer(), await sharp(file).raw().toBuffer());
    assert.equal((await sharp(file).metadata()).orientation, 6, "the file itself is not changed");
  });
}

test("files that are cut off, or of another kind, come back without an error", async () => {
  for (const kind of ["jpeg", "png", "webp"]) {
    const file = await turned(kind);
    for (let length = 0; length < Math.min(file.length, 400); length += 7) {
      assert.equal(withoutExif(file.subarray(0, length)).length, length);
    }
  }
  assert.deepEqual(withoutExif(Uint8Array.of(1, 2, 3)), Uint8Array.of(1, 2, 3));
});

test("a browser is asked to convert nothing, and its picture is freed", async (context) => {
  const told = [];
  const bitmap = { width: 2, height: 1, close: () => told.push("closed") };
  const canvas = { drawImage: () => {}, getImageData: (left, top, width, height) => ({ width, height }) };
  globalThis.createImageBitmap = async (file, options) => {
    told.push(options);
    return bitmap;
  };
  globalThis.OffscreenCanvas = class {
    getContext(kind, settings) {
      told.push(kind, settings.colorSpace);
      return canvas;
    }
  };
  context.after(() => {
    delete globalThis.createImageBitmap;
    delete globalThis.OffscreenCanvas;
  });
  const image = await decode(new Blob([await turned("jpeg")]));
  assert.deepEqual(image, { width: 2, height: 1 });
  assert.deepEqual(told, [{ colorSpaceConversion: "none", premultiplyAlpha: "none" }, "2d", "srgb", "closed"]);
  globalThis.createImageBitmap = async () => {
    throw new Error("The source image could not be decoded.");
  };
  await assert.rejects(decode(new Blob([])), (error) => error instanceof ImageError && /cannot be decoded/.test(error));
  await assert.rejects(decode("cat.jpg"), ImageError);
});
