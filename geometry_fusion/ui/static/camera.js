/* Recording from a camera of this machine: a stretch of video that is then opened like a file. */

const LONGEST_S = 60;
const KINDS = ["video/webm;codecs=vp8", "video/webm", "video/mp4"];

export class Camera {
  /* box: holds a video element and a span. done: receives a File. problem: receives text. */
  constructor(button, box, done, problem) {
    this.button = button;
    this.box = box;
    this.done = done;
    this.problem = problem;
    button.onclick = () => (this.recorder ? this.stop() : this.start());
    button.hidden = !(navigator.mediaDevices && window.MediaRecorder);
  }

  async start() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 640}}, audio: false});
      const kind = KINDS.find(text => MediaRecorder.isTypeSupported(text));
      this.recorder = new MediaRecorder(this.stream, {mimeType: kind, videoBitsPerSecond: 4e6});
    } catch (error) {
      this.close();
      this.problem(`The camera cannot be used: ${error.message}`);
      return;
    }
    const parts = [];
    this.recorder.ondataavailable = event => { if (event.data.size) parts.push(event.data); };
    this.recorder.onstop = () => {
      const type = this.recorder.mimeType.split(";")[0];
      this.close();
      this.done(new File(parts, `camera.${type === "video/mp4" ? "mp4" : "webm"}`, {type}));
    };
    const video = this.box.querySelector("video");
    video.srcObject = this.stream;
    video.play();
    this.box.hidden = false;
    this.button.textContent = "Stop and use it";
    const began = performance.now();
    this.clock = setInterval(() => {
      const seconds = Math.floor((performance.now() - began) / 1000);
      this.box.querySelector("span").textContent = `recording, ${seconds} s of at most ${LONGEST_S}`;
      if (seconds >= LONGEST_S) this.stop();
    }, 500);
    this.recorder.start(500);
  }

  stop() { if (this.recorder && this.recorder.state === "recording") this.recorder.stop(); }

  close() {
    clearInterval(this.clock);
    for (const track of this.stream ? this.stream.getTracks() : []) track.stop();
    this.box.querySelector("video").srcObject = null;
    this.box.hidden = true;
    this.button.textContent = "Record from a camera";
    this.recorder = this.stream = null;
  }
}
