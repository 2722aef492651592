/** Brings the page to life: opens a bundle, takes photos and frames, and shows what came out. */

import { Camera } from "./camera.js";
import { Client, Ended, PageError } from "./client.js";
import { keepOffline, obstacle, showError, showOffline, showThreads } from "./notices.js";
import { ResultView } from "./result_view.js";
import {
  chosenPolicy,
  hideSettings,
  megabytes,
  showBundles,
  showLimit,
  showSettings,
  typedLabels,
} from "./settings.js";

const $ = (id) => document.getElementById(id);

/** Holds what is open and what was asked last. */
class Page {
  constructor() {
    this.entries = [];
    this.client = null;
    this.bundle = null;
    this.photo = null;
    this.asked = 0;
    this.keeping = Promise.resolve(false);
    this.view = new ResultView();
    this.camera = new Camera($("video"), (frame) => this.classifyFrame(frame));
  }

  /** Shows the bundles of the server and opens the first. */
  async start() {
    showThreads();
    const reason = obstacle();
    if (reason !== null) throw new PageError(reason);
    this.keeping = keepOffline();
    const response = await fetch("bundles.json").catch(() => null);
    if (!response?.ok) throw new PageError("The list of bundles cannot be read; assemble the page again, or go online");
    this.entries = await response.json();
    const { hash } = location;
    const named = this.entries.findIndex((entry) => `#${entry.name}` === decodeURIComponent(hash));
    await this.open(Math.max(named, 0));
  }

  /** Opens a bundle of the list, in a worker of its own. */
  async open(at) {
    this.client?.end();
    this.client = new Client();
    this.bundle = null;
    this.view.hide();
    hideSettings();
    showBundles(this.entries, at);
    this.bundle = await this.opened(this.entries[at], this.client);
    showSettings(this.bundle);
    this.showReady();
    this.keeping.then((isKept) => showOffline(isKept, this.bundle));
    await this.again();
  }

  /** Lets a worker open a bundle, and shows how far it is. */
  async opened(entry, client) {
    const { name, size_bytes: size, file } = entry;
    const entries = this.entries.filter((one) => !(one.file instanceof File));
    const source = file instanceof File ? { file } : { entry, entries };
    showProgress(name, 0, size);
    try {
      const tell = ({ got, made }) => showProgress(name, got, size, made);
      return { ...(await client.ask("open", source, { tell })), name };
    } catch (error) {
      if (error instanceof Ended) throw error;
      showStatus("No bundle is open.");
      throw new PageError(`${name} cannot be opened: ${error.message}`);
    } finally {
      if (client === this.client) $("progress").hidden = true;
    }
  }

  showReady() {
    const { name, blocks, labels, threads } = this.bundle;
    showStatus(
      `${name} is ready: ${blocks} blocks, ${labels.length} labels, ${threads === 1 ? "one thread" : `${threads} threads`}.`,
    );
  }

  /** Takes a file that was dropped or chosen: a photo, or the zip file of a bundle. */
  async take(file) {
    if (/\.zip$/i.test(file.name)) {
      this.entries = [...this.entries, { name: file.name, size_bytes: file.size, file }];
      return this.open(this.entries.length - 1);
    }
    this.camera.stop();
    this.photo = file;
    showPreview(file);
    return this.again();
  }

  /** Classifies the latest photo, such as after a setting was changed. */
  async again() {
    if (this.photo === null || this.bundle === null) return;
    const asked = (this.asked += 1);
    const policy = policyOrError();
    const turn = $("turn").checked;
    $("preview").classList.toggle("turned", turn);
    const { client, bundle } = this;
    const answer = await client.ask("classify", { file: this.photo, turn, policy });
    if (asked !== this.asked) return;
    this.view.show(answer, bundle);
    $("seen").hidden = false;
    $("result").scrollIntoView({ block: "nearest" });
    if (policy.kind === "full") return;
    const compared = await client.ask("compare", { policy });
    if (asked === this.asked) this.view.showCompared(compared, answer);
  }

  /** Classifies one frame of the camera. */
  async classifyFrame(frame) {
    if (this.bundle === null) {
      frame.close();
      return new Promise((resolve) => setTimeout(resolve, 100));
    }
    this.asked += 1;
    const policy = policyOrError();
    try {
      const answer = await this.client.ask("classify", { frame, policy }, { transfer: [frame] });
      if (this.camera.isOn) this.view.show(answer, this.bundle);
    } catch (error) {
      if (!(error instanceof Ended)) throw error; // the next frame is for the next bundle
    }
  }

  /** Turns the camera on or off. */
  async toggleCamera() {
    if (this.camera.isOn) return this.camera.stop();
    const onStart = () => {
      this.photo = null;
      showCamera(true);
    };
    try {
      await this.camera.run(onStart);
    } finally {
      showCamera(false);
    }
  }

  async useLabels() {
    const names = typedLabels();
    if (this.bundle === null) return;
    const { labels } = await this.client.ask("setLabels", { names });
    this.bundle.labels = labels;
    this.showReady();
    await this.again();
  }
}

function policyOrError() {
  const policy = chosenPolicy();
  if (policy === null) throw new PageError("The time limit is no number from 1; type milliseconds, such as 100");
  return policy;
}

function showStatus(words) {
  $("status").textContent = words;
}

function showProgress(name, got, size, made) {
  const progress = $("progress");
  progress.hidden = false;
  progress.value = made ?? got / size;
  showStatus(made === undefined ? `Loading ${name}: ${megabytes(got)} of ${megabytes(size)}` : `Preparing ${name}`);
}

function showPreview(file) {
  const preview = $("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
  $("video").hidden = true;
}

function showCamera(isOn) {
  $("camera").textContent = isOn ? "Stop the camera" : "Use the camera";
  $("video").hidden = !isOn;
  if (isOn) {
    $("preview").hidden = true;
    $("seen").hidden = false;
  }
}

/** Runs what an event asks for; a fault is told in one sentence. */
function on(target, event, run) {
  target.addEventListener(event, async (given) => {
    showError(null);
    await told(() => run(given));
  });
}

async function told(run) {
  try {
    await run();
  } catch (error) {
    if (error instanceof Ended) return;
    if (!(error instanceof PageError)) console.error(error);
    showError(error.message);
  }
}

function listen(page) {
  const drop = $("drop");
  on($("choose"), "click", () => $("file").click());
  on($("file"), "change", () => {
    const [file] = $("file").files;
    $("file").value = "";
    return file === undefined ? undefined : page.take(file);
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  on(document, "drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file === undefined) throw new PageError("What was dropped is no file; save the photo first");
    return page.take(file);
  });
  on($("camera"), "click", () => page.toggleCamera());
  on($("bundle"), "change", () => page.open(Number($("bundle").value)));
  on($("policy"), "change", () => {
    showLimit();
    return page.again();
  });
  on($("limit"), "change", () => page.again());
  on($("turn"), "change", () => page.again());
  on($("use-labels"), "click", () => page.useLabels());
}

const page = new Page();
listen(page);
await told(() => page.start());
