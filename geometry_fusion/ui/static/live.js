/* Live sessions: the latest frame with its masks as it comes, clicks while it runs; and this page's
   camera as a source. */

const $ = id => document.getElementById(id);
const SIDE = 640;       // pixels: the longer side of pictures that are sent
const LEAST_MS = 66;    // between two pictures that are sent
const QUALITY = 0.85;   // of JPEG

export class Live {
  /* studio: api, state, player, take(state), alert(text), say(text), update() of studio.js */
  constructor(studio) {
    this.studio = studio;
    this.turn = 0;
    $("live-page").hidden = !navigator.mediaDevices;
    $("live-page").onclick = () => this.startPage();
    $("live-server").onclick = () => this.start(false);
    $("live-pause").onclick = () => this.control(this.view.paused ? "resume" : "pause");
    $("live-stop").onclick = () => this.control("stop");
  }

  get view() { return this.studio.state && this.studio.state.live; }

  /* After every state of the server. */
  update() {
    const {studio, view} = this, {info} = studio;
    $("live-server").hidden = !info.live;
    $("live-server").textContent = `Live from ${info.live}`;
    $("live-tools").hidden = !view;
    $("source").hidden = !!view;
    $("stage").classList.toggle("live", !!view);
    if (!view) { this.closeCamera(); return; }
    $("live-pause").textContent = view.paused ? "Resume" : "Pause";
    $("live-pause").setAttribute("aria-pressed", view.paused);
    const pace = this.pace ? `, ${this.pace.toFixed(1)} frames/s` : "";
    $("live-text").textContent = view.frames ? `${view.paused ? "paused" : "live"}: ${view.name}, frame ${this.number ?? view.frames - 1}${pace}` : `${view.name} is being opened …`;
    if (view.note && view.note !== this.note) { this.note = view.note; studio.say(view.note, true); }
    if (!this.watching) this.watch();
  }

  async start(fromPage) {
    const {studio} = this;
    const arm = studio.panels.arms;
    this.turn = 0; this.number = this.pace = this.note = undefined;
    try {
      while (!studio.info.ready) { // which arms can run is not known before
        $("model").textContent = "the models are being loaded …";
        await new Promise(done => setTimeout(done, 300));
        studio.info = await studio.api.info();
      }
      studio.take(await studio.api.liveStart(fromPage, arm && arm[0]));
      studio.hurry();
      return true;
    } catch (error) { studio.alert(error.message); return false; }
  }

  async control(what) {
    const {studio} = this;
    try { studio.take(await studio.api.liveControl(what)); studio.hurry(); }
    catch (error) { studio.alert(error.message); }
  }

  /* Show frames until the session is not live any more. A frame is asked for when the one before
     it is on the screen; while the mouse is down the picture stands still. */
  async watch() {
    const {studio} = this;
    this.watching = true;
    while (this.view) {
      try {
        const got = await studio.api.live(this.turn);
        if (got) { this.turn = got.head.turn; await this.show(got); }
        else await studio.refresh();
      } catch (error) {
        if (error.status === 404) break;
        studio.alert(error.message);
        await new Promise(done => setTimeout(done, 1000));
      }
    }
    this.watching = false;
  }

  async show({head, image, mask}) {
    const {studio} = this;
    if (!studio.state.source) await studio.refresh();
    const [picture, ids] = await Promise.all([createImageBitmap(image), createImageBitmap(mask, {colorSpaceConversion: "none", premultiplyAlpha: "none"})]);
    while (studio.player && studio.player.held) await new Promise(done => setTimeout(done, 20));
    if (!this.view || !studio.player || studio.state.source === null) return;
    this.number = head.number; this.pace = head.pace;
    await studio.player.showLive(head.number, picture, ids);
    this.update();
    await new Promise(requestAnimationFrame);
  }

  // --- this page's camera

  async startPage() {
    try { this.stream = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: SIDE}}, audio: false}); }
    catch (error) { this.studio.alert(`The camera cannot be used: ${error.message}`); return; }
    this.video = document.createElement("video");
    this.video.muted = true; this.video.playsInline = true;
    this.video.srcObject = this.stream;
    await this.video.play();
    if (await this.start(true)) this.sendPictures(this.stream);
    else this.closeCamera();
  }

  async sendPictures(stream) {
    const canvas = document.createElement("canvas");
    while (this.stream === stream && this.view) {
      const began = performance.now();
      if (!this.view.paused) {
        const [w, h] = [this.video.videoWidth, this.video.videoHeight];
        const scale = Math.min(1, SIDE / Math.max(w, h));
        canvas.width = Math.round(w * scale); canvas.height = Math.round(h * scale);
        canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
        const blob = await new Promise(done => canvas.toBlob(done, "image/jpeg", QUALITY));
        try { await this.studio.api.livePicture(blob); }
        catch (error) { if (this.view) this.studio.alert(error.message); await this.studio.refresh(); }
      }
      await new Promise(done => setTimeout(done, Math.max(5, LEAST_MS - (performance.now() - began))));
    }
    this.closeCamera(stream);
  }

  closeCamera(stream = this.stream) {
    if (!stream) return;
    for (const track of stream.getTracks()) track.stop();
    if (this.stream === stream) { this.stream = null; this.video = null; }
  }
}
