/** Describes the answer for one image: its label, its score, where it left the tower, and what that cost. */

/**
 * Describes one answer.
 *
 * @param {object} answer from the orchestrator
 * @param {import("./bundle/manifest.js").Manifest} manifest of the bundle that answered, for the FLOPs
 * @param {{names: readonly string[], schedule: string | null, top: number, position: number}} more `top`: how many
 *   labels to list; `position`: the image's place in the call
 */
export function predictionOf(answer, manifest, { names, schedule, top, position }) {
  const { probabilities } = answer;
  const best = Array.from(probabilities.keys())
    .sort((one, other) => probabilities[other] - probabilities[one] || one - other)
    .slice(0, top);
  const [index] = best;
  return {
    label: names[index],
    score: probabilities[index],
    top: best.map((label) => ({ label: names[label], score: probabilities[label] })),
    index,
    exitBlock: answer.exitBlock,
    early: answer.early,
    gate: answer.gate,
    flops: flopsOf(answer, manifest, schedule),
    embedding: Float32Array.from(answer.embedding),
    position,
  };
}

/** Adds up the FLOPs of the parts that ran for one image. */
function flopsOf(answer, manifest, schedule) {
  const chosen = manifest.schedule(schedule);
  const exits = new Map(chosen.exits.map((exit) => [exit.block, exit.part]));
  const names = [
    "stem",
    ...chosen.blocks.slice(0, answer.blocksRun),
    ...answer.visited.map((block) => exits.get(block)),
  ];
  if (!answer.early) names.push(chosen.tail);
  return names.reduce((sum, name) => sum + manifest.flopsOf(name, answer.probabilities.length), 0);
}
