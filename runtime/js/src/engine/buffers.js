/**
 * Keeps two token buffers that the blocks of one call write into in turn: tokens stay in cache, nothing is allocated.
 *
 * A call takes its buffers from a pool and gives them back, so calls that wait for one another do not share them.
 */

/** Two tensors for one batch size. */
class Buffers {
  constructor(ort, tokens, width) {
    this.ort = ort;
    this.shape = [tokens, width];
    this.batch = 0;
    this.pair = [];
  }

  /** Gives the tensor that a part may write to, other than the one it reads; null where none has its shape. */
  for(batch, read, tokens) {
    if (tokens !== this.shape[0]) return null;
    if (batch !== this.batch) {
      const make = () => {
        const data = new Float32Array(batch * this.shape[0] * this.shape[1]);
        return new this.ort.Tensor("float32", data, [batch, ...this.shape]);
      };
      this.batch = batch;
      this.pair = [make(), make()];
    }
    return this.pair[0] === read ? this.pair[1] : this.pair[0];
  }
}

/** Lends buffers to calls. */
export class BufferPool {
  constructor(ort, tower) {
    this.make = () => new Buffers(ort, tower.tokens, tower.width);
    this.free = [];
  }

  /** Runs `use` with buffers of its own. */
  async with(use) {
    const buffers = this.free.pop() ?? this.make();
    try {
      return await use(buffers);
    } finally {
      this.free.push(buffers);
    }
  }
}
