/** Shows one answer: labels with bars, where the photo left, what that saved, and the time of each part. */

import { columnsOf, drawTower, shown } from "./tower_view.js";

const $ = (id) => document.getElementById(id);

/** Shows an answer, and draws it again when the window changes its width. */
export class ResultView {
  constructor() {
    this.latest = null;
    new ResizeObserver(() => this.draw()).observe($("tower"));
  }

  /** Shows an answer of Runner for a bundle. */
  show(answer, bundle) {
    this.latest = { answer, bundle };
    $("result").hidden = false;
    $("top").replaceChildren(...answer.top.map(labelRow));
    $("summary").textContent = summaryOf(answer, bundle);
    $("compared").textContent = "";
    $("times").replaceChildren(...timeRows(answer, bundle));
    drawInput(answer);
    this.draw();
  }

  /** Says how long full depth takes for the same photo. */
  showCompared({ ms, fullMs, fullLabel, pairs }, answer) {
    const same = fullLabel === answer.label ? "the same answer" : `the answer ${fullLabel}`;
    const saved = 1 - ms / fullMs;
    const words = saved > 0 ? `leaving early saves ${percent(saved)} of the time` : "leaving early saves no time here";
    $("compared").textContent =
      `Full depth gives ${same} and takes ${shown(fullMs)} ms, this way ${shown(ms)} ms: ${words} ` +
      `(${pairs === 1 ? "one run of each" : `medians of ${pairs} runs each, in turns`}).`;
  }

  hide() {
    this.latest = null;
    $("result").hidden = true;
  }

  draw() {
    if (this.latest !== null) drawTower($("tower"), this.latest.answer, this.latest.bundle);
  }
}

function labelRow({ label, score }) {
  const row = document.createElement("li");
  const [name, figure, bar, filled] = ["span", "span", "div", "span"].map((kind) => document.createElement(kind));
  name.textContent = label;
  figure.textContent = percent(score);
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  filled.style.width = `${100 * score}%`;
  bar.append(filled);
  row.append(name, figure, bar);
  return row;
}

function summaryOf(answer, { blocks }) {
  const where = answer.early ? `Left after block ${answer.exitBlock} of ${blocks}` : `Ran through all ${blocks} blocks`;
  const { flopsSaved: saved, ms, decodeMs, resizeMs } = answer;
  const flops = saved >= 0 ? `saved ${percent(saved)} of the FLOPs` : `took ${percent(-saved)} more FLOPs, for exits`;
  return `${where}, ${flops}. ${shown(ms)} ms in the encoder; ${shown(decodeMs)} ms to decode, ${shown(resizeMs)} ms to resize.`;
}

function timeRows(answer, { blocks }) {
  const rows = columnsOf(answer, blocks).flatMap(({ name, block, exit }) => [
    [/^\d/.test(name) ? `block ${name}` : name, block],
    [`exit after block ${name}`, exit],
  ]);
  return rows
    .filter(([, ms]) => ms !== null)
    .map(([name, ms]) => {
      const row = document.createElement("tr");
      for (const words of [name, ms.toFixed(2)]) {
        const cell = document.createElement("td");
        cell.textContent = words;
        row.append(cell);
      }
      return row;
    });
}

/** Draws the pixels that the model sees. */
function drawInput({ pixels, size }) {
  const canvas = $("input");
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  for (let at = 0; at < size * size; at += 1) {
    image.data.set(pixels.subarray(3 * at, 3 * at + 3), 4 * at);
    image.data[4 * at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function percent(share) {
  const value = 100 * share;
  return `${value >= 9.95 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}
