/** Gives the parts of a bundle as functions on tensors; each runs an ONNX Runtime session. */

import { rowsOf } from "./rows.js";

/** Runs an image tower with its exits for one set of labels, under one merging schedule. */
export class Parts {
  /**
   * @param {import("./sessions.js").Sessions} sessions of the parts
   * @param {import("../labels/labels.js").Labels} labels to classify among
   * @param {string | null} schedule name of the merging schedule; null merges nothing
   */
  constructor(sessions, labels, schedule) {
    const { manifest } = sessions;
    const chosen = manifest.schedule(schedule);
    this.sessions = sessions;
    this.ort = sessions.ort;
    this.blocks = chosen.blocks;
    this.merged = chosen.merged;
    this.tailName = chosen.tail;
    this.exits = new Map(chosen.exits.map((exit) => [exit.block, exit.part]));
    this.depth = manifest.tower.blocks;
    const { Tensor } = this.ort;
    this.labelFeed = {
      label_matrix: new Tensor("float32", labels.matrix, [manifest.tower.embed_dim, labels.names.length]),
      logit_scale: new Tensor("float32", Float32Array.of(manifest.logit_scale), []),
    };
  }

  /** Turns pixels (batch, size, size, 3) uint8 into tokens; `buffers` are those of this call. */
  stem(pixels, buffers) {
    return this.plain("stem", { pixels }, pixels.dims[0], buffers);
  }

  /** Runs block `number`, counted from 1; the output is valid until two more blocks have run with these buffers. */
  block(number, read, buffers) {
    const name = this.blocks[number - 1];
    const isMerging = this.merged[number - 1] > 0;
    if (!isMerging && read.sizes === null)
      return this.plain(name, { tokens: read.tokens }, read.tokens.dims[0], buffers);
    return this.sessions
      .run(name, feedOf(read))
      .then(({ tokens_out: tokens, sizes_out: sizes }) => ({ tokens, sizes: isMerging ? sizes : read.sizes }));
  }

  /** Tells whether there is an exit after block `number`. */
  hasExit(number) {
    return this.exits.has(number);
  }

  /** Evaluates head and gate of the exit after block `number` for the images `rows` of the batch. */
  async exit(number, read, rows) {
    const found = await this.sessions.run(this.exits.get(number), { ...feedOf(read), ...this.labelFeed });
    return {
      embedding: rowsOf(found.embedding),
      probabilities: rowsOf(found.probabilities),
      features: rowsOf(found.features),
      gate: Array.from(found.gate.data),
      labels: found.probabilities.dims[1],
      rows,
    };
  }

  /** Gives embedding and probabilities at full depth. */
  async tail(read) {
    const given = this.tailName === "tail" ? { tokens: read.tokens } : feedOf(read); // a class token needs no size
    const found = await this.sessions.run(this.tailName, { ...given, ...this.labelFeed });
    return { embedding: rowsOf(found.embedding), probabilities: rowsOf(found.probabilities) };
  }

  /** Runs a part whose only output are tokens without sizes, into a buffer where one fits. */
  plain(name, feed, batch, buffers) {
    const into = buffers.for(batch, feed.tokens, this.sessions.outputTokens(name));
    const running = this.sessions.run(name, feed, into === null ? undefined : { tokens_out: into });
    return running.then(({ tokens_out: own }) => ({ tokens: into ?? own, sizes: null }));
  }
}

function feedOf({ tokens, sizes }) {
  return sizes === null ? { tokens } : { tokens, sizes };
}
