/** A program with types: it is compiled and not run. */

import * as ortNode from "onnxruntime-node";
import * as ortWeb from "onnxruntime-web";
import { Adaptive, BundleError, Deadline, ExitAt, Full, load, preprocess } from "lraee";
import type { Policy, Prediction } from "lraee";
import { decode } from "lraee/browser";

export async function classified(file: Blob): Promise<Prediction[]> {
  const model = await load(ortWeb, new URL("https://example.org/photo-clip.lraee/"), { verify: "all", warm: true });
  const pixels: ImageData = await decode(file);
  const policies: Policy[] = [
    new Adaptive("fast"),
    new Full(),
    new ExitAt(8),
    new Deadline(40, { policy: new Adaptive() }),
  ];
  await model.setLabels(["a cat", "a dog"], { templates: ["a photo of {}."] });
  await model.setLabels(["a cat", "a dog"], { embeddings: [new Float32Array(4), [1, 2, 3, 4]] });
  const input: Uint8Array = preprocess(pixels, model.manifest.preprocessing);
  const [answer] = await model.runPixels(input, { onPart: (part, images) => console.log(part, images) });
  const share: number = answer?.probabilities[0] ?? 0;
  return Promise.all(policies.map((policy) => model.classify(pixels, { policy, top: share > 0.5 ? 1 : 2 })));
}

export async function onThisMachine(path: string): Promise<string> {
  try {
    const model = await load(ortNode, path, { threads: 1 });
    const [embedding] = await model.embedText("a photo of a cat");
    return `${model.labels.length} labels, ${embedding?.length} numbers`;
  } catch (error) {
    if (error instanceof BundleError) return error.message;
    throw error;
  }
}

// @ts-expect-error a path alone is no module of ONNX Runtime
void load("reference.lraee");
