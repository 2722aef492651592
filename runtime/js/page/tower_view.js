/** Draws the tower: a bar for each block's time, the blocks that ran below it, and the one where the image left. */

const SVG = "http://www.w3.org/2000/svg";

const BARS = 96;
const ABOVE = 16;
const BOX = 26;
const BELOW = 34;

/** Columns narrower than this have no figures above their bars, and a number in every other box only. */
const NARROW = 27;
const TINY = 17;

/** Joins the times of a block and of the exit after it. */
export function columnsOf(answer, blocks) {
  const of = (part) => answer.times.find((time) => time.part === part)?.ms ?? null;
  const numbered = Array.from({ length: blocks }, (_, index) => {
    const name = String(index + 1).padStart(2, "0");
    return { name: String(index + 1), block: of(`block_${name}`), exit: of(`exit_${name}`) };
  });
  return [
    { name: "stem", block: of("stem"), exit: null },
    ...numbered,
    { name: "tail", block: of("tail"), exit: null },
  ];
}

/**
 * Draws one answer.
 *
 * @param {HTMLElement} place whose content is replaced
 * @param {object} answer of Runner
 * @param {{blocks: number, exits: number[]}} tower of the bundle
 */
export function drawTower(place, answer, { blocks, exits }) {
  const columns = columnsOf(answer, blocks);
  const width = Math.max(place.clientWidth, 280);
  const step = width / columns.length;
  const most = Math.max(...columns.map(({ block, exit }) => (block ?? 0) + (exit ?? 0)));
  const height = ABOVE + BARS + BOX + BELOW;
  const picture = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  const where = answer.early ? `left after block ${answer.exitBlock} of ${blocks}` : `ran through all ${blocks} blocks`;
  picture.setAttribute("aria-label", `The photo ${where}; the table below has the time of each part`);
  columns.forEach((column, at) => picture.append(...drawColumn(column, at, step, most)));
  for (const block of exits) picture.append(marker(block, step, columns[block].exit !== null));
  picture.append(...drawExit(answer, columns.length, step, width));
  place.replaceChildren(picture);
}

function drawColumn({ name, block, exit }, at, step, most) {
  const [left, wide] = [at * step + step * 0.1, step * 0.8];
  const base = ABOVE + BARS;
  const high = (ms) => ((ms ?? 0) / most) * BARS;
  const ran = block !== null;
  const drawn = [
    element("rect", {
      class: `box ${ran ? "on" : "skipped"}`,
      x: left,
      y: base + 4,
      width: wide,
      height: BOX - 4,
      rx: 3,
    }),
  ];
  if (ran)
    drawn.push(element("rect", { class: "block", x: left, y: base - high(block), width: wide, height: high(block) }));
  if (exit !== null) {
    const y = base - high(block) - high(exit);
    drawn.push(element("rect", { class: "exit", x: left, y, width: wide, height: Math.max(high(exit), 1) }));
  }
  const middle = left + wide / 2;
  const isEnd = at === 0 || name === "tail";
  if (ran && step >= NARROW)
    drawn.push(text(shown(block + (exit ?? 0)), middle, base - high(block + (exit ?? 0)) - 4, ""));
  const fits = isEnd ? step >= NARROW : step >= TINY || at % 2 === 0;
  if (fits) drawn.push(text(name, middle, base + 19, ran ? "number-on" : ""));
  return drawn;
}

/** Marks the exit after a block: filled where it was asked. */
function marker(block, step, asked) {
  const [x, y] = [(block + 0.5) * step, ABOVE + BARS + BOX + 3];
  return element("path", { class: asked ? "exit" : "box", d: `M${x - 4} ${y}h8l-4 6z` });
}

/** Draws the way out, and says where it is. */
function drawExit(answer, count, step, width) {
  const at = answer.early ? answer.exitBlock : count - 1;
  const [x, y] = [(at + 0.5) * step, ABOVE + BARS + BOX + 9];
  const words = answer.early ? `left after block ${answer.exitBlock}` : "ran to the end";
  const half = words.length * 3.2;
  const label = text(words, Math.min(Math.max(x, half), width - half), y + 22, "answer");
  return [element("path", { class: "out", d: `M${x} ${y}v8m-4 -4l4 4l4 -4` }), label];
}

/** Writes milliseconds shortly. */
export function shown(ms) {
  return ms >= 99.95 ? ms.toFixed(0) : ms.toFixed(1);
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(words, x, y, kind) {
  const made = element("text", { x, y, class: kind });
  made.textContent = words;
  return made;
}
