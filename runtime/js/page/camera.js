/** Classifies what the camera sees, one frame after the other, until it is stopped or the page is hidden. */

import { PageError } from "./client.js";

const REASONS = {
  NotAllowedError: "the browser does not allow it; allow it in the address bar",
  NotFoundError: "there is none",
  NotReadableError: "another program uses it",
};

/** Shows the camera's picture and hands out its frames. */
export class Camera {
  /**
   * @param {HTMLVideoElement} video that shows the picture
   * @param {(frame: ImageBitmap) => Promise<void>} use takes one frame; the next one comes when it is done
   */
  constructor(video, use) {
    this.video = video;
    this.use = use;
    this.stream = null;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.stop();
    });
  }

  get isOn() {
    return this.stream !== null;
  }

  /** Starts; comes back when the camera was stopped. */
  async run(onStart) {
    if (navigator.mediaDevices === undefined) throw new PageError("The camera cannot be used: this browser gives none");
    try {
      const wanted = { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    } catch (error) {
      throw new PageError(`The camera cannot be used: ${REASONS[error.name] ?? error.message}.`);
    }
    try {
      this.video.srcObject = this.stream;
      await this.video.play();
      onStart();
      while (this.isOn) await this.use(await createImageBitmap(this.video));
    } finally {
      this.stop();
    }
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }
}
