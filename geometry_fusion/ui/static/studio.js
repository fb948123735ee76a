/* The studio's page: keeps the state that the server sends, and connects its parts. */

import {Api} from "./api.js";
import {Camera} from "./camera.js";
import {PromptCanvas} from "./canvas.js";
import {Live} from "./live.js";
import {Panels, el} from "./panels.js";

const $ = id => document.getElementById(id);
const BUSY_MS = 300, IDLE_MS = 4000;

class Studio {
  constructor() {
    this.api = new Api();
    this.info = null;
    this.state = null;
    this.after = 0;
    this.epoch = null;
    this.seen = {};
    this.numbers = {};
    this.active = null;
    this.frame = 0;
    this.previews = 0;
    this.spoken = 0;
  }

  async start() {
    this.info = await this.api.info();
    this.panels = new Panels(this);
    this.live = new Live(this);
    this.listen();
    $("samples").replaceChildren(el("option", {value: "", text: "choose …"}),
      ...Object.entries(this.info.samples).map(([name, title]) => el("option", {value: name, text: `${name}: ${title}`})));
    $("open-path").hidden = !this.info.paths;
    const kept = sessionStorage.getItem("studio-session");
    this.api.key = /^[0-9a-f]{32}$/.test(kept || "") ? kept : null;
    if (this.api.key) {
      try { this.take(await this.api.state(0)); }
      catch (error) { if (error.status !== 404) throw error; this.api.key = null; }
    }
    if (!this.api.key) {
      sessionStorage.setItem("studio-session", await this.api.create());
      if (!this.info.live || !await this.live.start(false)) this.take(await this.api.sample(this.info.first_sample));
    }
    this.poll();
  }

  // --- state

  take(state) {
    if (state.key !== this.api.key) return;
    if (this.state && this.state.key === state.key && state.made < this.state.made) return; // overtaken
    const wasLive = !!(this.state && this.state.live);
    const fresh = state.epoch !== this.epoch || wasLive !== !!state.live;
    if (fresh) { this.seen = {}; this.numbers = {}; this.epoch = state.epoch; this.after = 0; }
    const before = this.state;
    this.state = state;
    const count = state.source ? state.source.count : 0;
    for (const record of state.results) {
      if (record.n <= (this.numbers[record.arm] || {})[record.frame]) continue;
      (this.numbers[record.arm] ||= {})[record.frame] = record.n;
      const arm = this.seen[record.arm] ||= {};
      for (const list of Object.values(arm)) list[record.frame] = null;
      for (const [id, values] of Object.entries(record.objects)) {
        (arm[id] ||= new Array(count).fill(null))[record.frame] = values;
      }
      this.after = Math.max(this.after, record.n);
    }
    const ids = state.board.objects.map(object => object.id);
    if (!ids.includes(this.active)) this.active = ids.length ? ids[ids.length - 1] : null;
    this.show(fresh, state.results.length > 0, before);
    if (state.has_scene && (fresh || !this.scene || before && before.job && before.job.status === "running" && !this.running)) this.loadScene();
  }

  get running() { return !!(this.state && this.state.job && ["waiting", "running"].includes(this.state.job.status)); }
  get hasPrompts() { return !!this.state && this.state.board.marks.some(mark => mark.kind !== "negative"); }
  has(arm) { return Object.keys(this.numbers[arm] || {}).length > 0; }
  title(arm) { return this.info.arms[arm] || {baseline: "SAM2", geom: "3AM"}[arm]; }
  colour(object) { return this.info.colours[object.colour % this.info.colours.length]; }

  show(fresh, withResults, before) {
    const {state} = this, {source, board} = state;
    $("stage").hidden = !source;
    if (!source) { this.update(); return; }
    const objects = board.objects.map(object => ({...object, colour: this.colour(object)}));
    const part = {objects, marks: board.marks, deletions: board.deletions, seen: this.seen};
    if (fresh || !this.player) {
      const keys = state.live ? [state.live.arm] : Object.keys(this.info.arms);
      const arms = (keys.length ? keys : ["baseline"]).map(key => ({key, title: this.title(key)}));
      const [top, bottom] = source.rate.split("/").map(Number);
      Object.assign(part, {
        size: source.size, count: source.count, rate: top / (bottom || 1), epoch: state.epoch, arms,
        frames: {url: i => this.api.frameAddress(this.epoch, i)},
        live: !!state.live,
        mask: state.live ? (arm, i) => this.live.number === i ? `${arm} ${i}` : null : (arm, i) => (this.numbers[arm] || {})[i] ? this.api.maskAddress(arm, i, `${this.epoch}-${this.numbers[arm][i]}`) : null,
        scene: null,
      });
      this.scene = null;
    }
    if (!this.player) this.makePlayer(part);
    else if (fresh || withResults && !state.live || !before || JSON.stringify(before.board) !== JSON.stringify(board)) this.player.setData(part);
    if (fresh) {
      const first = board.marks.length ? board.marks[0].frame : 0;
      this.player.go(first);
      this.player.select(this.active);
    }
    if (before && before.live && !state.live) this.player.setMode(before.live.arm === this.player.data.arms[0].key ? "a" : "b");
    if (this.player.active !== this.active) this.player.select(this.active);
    this.update();
  }

  makePlayer(data) {
    this.player = new window.Player($("stage"), data, {stretches: true});
    this.player.on("frame", i => { this.frame = i; this.update(); this.previewHere(); })
      .on("select", id => { if (id !== this.active) this.select(id); })
      .on("stretch", stretch => { this.select(stretch.object); this.panels.setStretch(stretch); })
      .on("problem", text => this.say(text, true))
      .on("jump", (kind, i, at, all) => this.say(`${kind === "doubtful" ? "doubtful frame" : "disagreement"} ${at} of ${all}: frame ${i}`, true));
    this.canvas = new PromptCanvas(this.player, {
      mark: (kind, values) => this.mark(kind, values),
      move: (key, values) => this.act({do: "move", key, values}).then(() => this.previewHere(true)),
      unmark: key => this.act({do: "unmark", key}),
      place: ([x, y]) => { $("place").textContent = `x ${Math.round(x)}, y ${Math.round(y)}`; },
      say: text => this.say(text),
    });
  }

  async loadScene() {
    try { this.scene = await this.api.scene(); this.player.setData({scene: this.scene}); }
    catch { /* a run without geometry has no scene */ }
  }

  // --- commands

  async act(action) {
    try { this.take(await this.api.act({...action, after: this.after})); this.hurry(); }
    catch (error) { this.alert(error.message); await this.refresh(); }
  }

  async addObject() {
    await this.act({do: "add_object"});
    const last = this.state.board.objects.at(-1);
    if (last) { this.select(last.id); this.say(`${last.name} added: click on it in the frame`); }
  }

  select(id) {
    this.active = id;
    if (this.player && this.player.active !== id) this.player.select(id);
    this.update();
    this.previewHere();
  }

  async mark(kind, values) {
    if (this.active === null) {
      await this.act({do: "add_object"});
      if (this.active === null) return;
    }
    const rounded = values.map(value => Math.round(value * 10) / 10);
    await this.act({do: "mark", kind, frame: this.player.index, object: this.active, values: rounded, arm: this.player.arm});
    await this.previewHere(true);
  }

  /* The mask of the active object's marks on this frame, before anything is tracked. The last
     request wins. */
  async previewHere(always = false) {
    if (!this.player || this.active === null || this.state.live) return;
    const frame = this.player.index, object = this.active;
    const marked = this.state.board.marks.some(mark => mark.frame === frame && mark.object_id === object && mark.kind !== "negative");
    if (!marked) { if (this.player.preview && this.player.preview.object === object) { this.player.preview = null; this.player.draw(); } return; }
    if (!always && !this.state.stale && this.player.maskAddress(this.player.arm, frame)) return;
    const turn = ++this.previews;
    if (this.asking) this.asking.abort();
    this.asking = new AbortController();
    try {
      const began = performance.now();
      const blob = await this.api.preview(frame, object, this.asking.signal);
      if (!blob || turn !== this.previews || frame !== this.player.index) return;
      const address = URL.createObjectURL(blob);
      const image = new Image();
      image.src = address;
      await image.decode();
      URL.revokeObjectURL(address);
      if (turn !== this.previews || frame !== this.player.index) return;
      this.player.showPreview(frame, object, image);
      this.previewMs = Math.round(performance.now() - began);
      this.say(`mask of ${this.nameOf(object)} shown`);
    } catch (error) {
      if (error.name !== "AbortError") this.alert(error.message);
    }
  }

  nameOf(id) { return (this.state.board.objects.find(object => object.id === id) || {name: "object"}).name; }

  async run() {
    if (this.running || this.state.live) return;
    if (!this.hasPrompts) { this.alert("There is no prompt: click on an object first."); return; }
    try { this.take(await this.api.run(this.panels.arms, this.after)); this.say("the run begins"); this.hurry(); }
    catch (error) { this.alert(error.message); }
  }

  async cancel() {
    try { this.take(await this.api.cancel()); this.hurry(); }
    catch (error) { this.alert(error.message); }
  }

  async sample(name) {
    if (!name) return;
    try { this.take(await this.api.sample(name)); this.hurry(); }
    catch (error) { this.alert(error.message); }
    $("samples").value = "";
  }

  /* Receive files; returns their ids. */
  async send(files) {
    const ids = [];
    for (const file of files) {
      const done = ids.length;
      const answer = await this.api.uploadFile(file, share => this.progress((done + share) / files.length, `receiving ${file.name}`));
      ids.push(answer.id);
    }
    return ids;
  }

  async truth(files) {
    try {
      this.take(await this.api.truth(await this.send(files), this.after));
      this.say("the curve shows the IoU with the ground truth", true);
    } catch (error) { this.alert(error.message); }
    this.progress(null);
    $("truth-file").value = "";
  }

  async openFiles(files) {
    const number = id => $(id).value === "" ? null : +$(id).value;
    const cut = {every: number("every"), first: number("first"), last: number("last"), long_side: $("long-side").value ? +$("long-side").value : null};
    try {
      const ids = await this.send(files);
      this.progress(1, "reading the frames");
      this.take(await this.api.open(ids, cut));
      this.say("the video is open: click on an object");
    } catch (error) { this.alert(error.message); }
    this.progress(null);
    $("file").value = "";
    this.update();
  }

  async maskFile(file) {
    if (this.active === null) await this.act({do: "add_object"});
    try { this.take({...await this.api.uploadMask(file, this.player.index, this.active)}); this.previewHere(true); }
    catch (error) { this.alert(error.message); }
  }

  async export(kind, button) {
    const text = button.textContent;
    button.dataset.busy = "1"; button.disabled = true; button.textContent = `${text} …`;
    try { await this.api.download(kind); this.say(`${text} is ready`); }
    catch (error) { this.alert(error.message); }
    button.dataset.busy = ""; button.textContent = text;
    this.update();
  }

  // --- page

  update() {
    const {state, info} = this;
    if (!state || !info) return;
    const {source, job} = state;
    $("facts").textContent = this.facts();
    $("model").textContent = info.ready ? `model: ${info.model}` : "the models are being loaded …";
    this.live.update();
    $("clip-tools").hidden = $("run-tools").hidden = !!state.live;
    $("undo").disabled = !state.can_undo; $("redo").disabled = !state.can_redo;
    const both = !this.panels.arms && Object.keys(info.arms).length > 1;
    $("run").textContent = `${state.stale && this.after ? "Run again" : "Run"}${both ? (state.stale && this.after ? "" : " both") : ""}`;
    $("run").hidden = this.running; $("cancel").hidden = !this.running;
    $("run").disabled = !this.hasPrompts;
    for (const id of ["stretch-first", "stretch-last"]) $(id).max = source ? source.count - 1 : 0;
    if (state.live) this.progress(null);
    else if (this.running) {
      const pace = Object.entries(job.pace).map(([arm, value]) => `${this.title(arm)} ${value} ${source.unordered ? "photos" : "frames"}/s`).join(", ");
      const left = job.seconds_left ? `, ${Math.ceil(job.seconds_left)} s left` : "";
      const text = job.status === "waiting" ? (!info.ready ? "the models are being loaded" : job.position ? `waiting: number ${job.position} in the queue` : "the run begins") : `${source.unordered ? "step" : "frame"} ${job.done} of ${job.total}${left}${pace ? ` (${pace})` : ""}`;
      this.progress(job.total ? job.done / job.total : 0, text);
      if (performance.now() - (this.told || 0) > 5000) { this.told = performance.now(); this.say(text); }
    } else if (!this.uploading) this.progress(null);
    $("hint").textContent = this.hint();
    this.panels.update();
  }

  facts() {
    const {source, live} = this.state;
    if (live) return `live: ${live.name}`;
    if (!source) return "no video";
    const size = `${source.size[0]}×${source.size[1]}`;
    if (source.is_photos) return `${source.name}, ${size}`;
    return `${source.name} · ${source.count} frames, ${size}, ${+rateOf(source.rate).toFixed(2)} per second`;
  }

  hint() {
    const {state} = this;
    if (state.live) return this.hasPrompts ? "Click on what is wrong, or add an object. Stop: what was recorded becomes a clip." : "Click on an object while it runs; the click is for the picture that you see. Right-click or Shift-click: not it.";
    if (!state.source) return "";
    if (state.source.kind === "live" && state.stale) return "The recorded clip: correct it, then run both arms over it, forwards and backwards.";
    if (state.incomplete.length) return `Frame ${state.incomplete[0][0]} has only clicks beside ${this.nameOf(state.incomplete[0][1])}: click on it as well.`;
    if (!this.hasPrompts) return "Click on an object. Right-click or Shift-click: not it. Drag: a box.";
    const unordered = state.source.unordered;
    if (this.running) return unordered ? "All photos are compared first. The masks of an arm appear when it is done." : "Results appear as they come. You can watch, click and cancel meanwhile.";
    if (state.job && state.job.status === "cancelled" && state.stale) return "Cancelled: the frames that were done are kept. Correct what is wrong, then run again.";
    if (state.stale && this.after) return unordered ? "Prompts or settings have changed since the last run: run again." : "The prompts have changed since the last run: run again to track from them, forwards and backwards.";
    if (state.source.sample && this.after && !state.can_undo) return "Both arms were run from one click. Press “Next disagreement” to see where they part.";
    if (!this.after) return unordered ? "The mask is a preview on this photo. Run finds the object in all photos, whatever their order." : "The mask is a preview on this frame. Run tracks it through the video.";
    return unordered ? "Is something wrong? Click what is right on that photo, and run again." : "Is something wrong? Go to that frame, click what is right, and run again.";
  }

  progress(share, text = "") {
    this.uploading = share !== null && !this.running;
    $("progress").hidden = share === null;
    if (share === null) return;
    $("progress").querySelector("progress").value = share;
    $("progress").querySelector("span").textContent = text;
  }

  alert(text, kind = "") {
    $("alert").className = kind;
    $("alert").querySelector("span").textContent = text;
    $("alert").hidden = false;
  }

  /* For people who do not see the page; at most once a second, unless asked for. */
  say(text, visible = false) {
    const now = performance.now();
    clearTimeout(this.speaking);
    const wait = Math.max(0, 1000 - (now - this.spoken));
    this.speaking = setTimeout(() => { this.spoken = performance.now(); $("status").textContent = text; }, wait);
    if (visible) $("hint").textContent = text;
  }

  listen() {
    $("samples").onchange = event => this.sample(event.target.value);
    $("open-file").onclick = () => $("file").click();
    $("file").onchange = event => this.openFiles([...event.target.files]);
    this.camera = new Camera($("record"), $("camera"), file => this.openFiles([file]), text => this.alert(text));
    $("open-path").onclick = () => this.openPath();
    $("truth").onclick = () => $("truth-file").click();
    $("truth-file").onchange = event => this.truth([...event.target.files]);
    $("run").onclick = () => this.run();
    $("cancel").onclick = () => this.cancel();
    $("undo").onclick = () => this.undo("undo");
    $("redo").onclick = () => this.undo("redo");
    $("alert").querySelector("button").onclick = () => { $("alert").hidden = true; };
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.onclick = () => {
        this.canvas.setTool(button.dataset.tool);
        for (const other of document.querySelectorAll("[data-tool]")) other.setAttribute("aria-pressed", other === button);
      };
    }
    document.addEventListener("keydown", event => {
      const typing = event.target.matches("input:not([type=range]), textarea");
      if (!(event.ctrlKey || event.metaKey)) return;
      const key = event.key.toLowerCase();
      if (typing && key !== "enter") return;
      if (key === "z") this.undo(event.shiftKey ? "redo" : "undo");
      else if (key === "y") this.undo("redo");
      else if (key === "enter") this.run();
      else return;
      event.preventDefault();
    });
    document.addEventListener("dragover", event => event.preventDefault());
    document.addEventListener("drop", event => {
      event.preventDefault();
      const files = [...event.dataTransfer.files];
      if (!files.length) return;
      const onFrame = event.target.closest && event.target.closest(".p-frame");
      if (onFrame && files.length === 1 && files[0].type === "image/png") this.maskFile(files[0]);
      else this.openFiles(files);
    });
  }

  async undo(what) {
    await this.act({do: what});
    this.player.preview = null;
    this.player.draw();
    this.previewHere();
    this.say(what === "undo" ? "undone" : "redone");
  }

  async openPath() {
    const path = prompt("Path of a video or a folder of frames, in the folder that the studio may open:");
    if (!path) return;
    try { this.take(await this.api.path(path, {})); }
    catch (error) { this.alert(error.message); }
  }

  // --- asking the server

  hurry() { if (this.wake) this.wake(); }

  async refresh() {
    const wasRunning = this.running;
    this.wasLive = !!(this.state && this.state.live);
    const state = await this.api.state(this.after);
    if (state.epoch === this.epoch && state.number < this.after) { this.after = 0; this.numbers = {}; return; }
    const began = performance.now();
    this.take(state);
    this.spent = performance.now() - began;
    if (wasRunning && !this.running) this.ended();
  }

  ended() {
    const {job} = this.state;
    if (!job || !this.player) return;
    if (job.text && this.wasLive) this.alert(job.text, job.status === "failed" ? "" : "note");
    if (this.wasLive) { this.say("the live video has ended; what was recorded is a clip"); return; }
    const words = {done: "the run is complete", cancelled: "the run was cancelled; what is done is kept", failed: "the run failed"}[job.status];
    this.say(words);
    this.player.preview = null;
    this.player.draw();
    if (job.status === "failed") this.alert(`The run failed: ${job.text}. What was done is kept.`);
    else if (job.text) this.alert(job.text, "note");
  }

  async poll() {
    for (;;) {
      try {
        await this.refresh();
        if (!this.info.ready) { this.info = await this.api.info(); this.update(); }
        if (this.offline) { this.offline = false; $("alert").hidden = true; }
      } catch (error) {
        if (error.status === 404) { sessionStorage.removeItem("studio-session"); location.reload(); return; }
        this.offline = true;
        this.alert(error.message);
      }
      const quick = Math.max(BUSY_MS, 4 * (this.spent || 0)); // long videos take longer to show
      const wait = this.running || !this.info.ready || this.state.busy ? quick : IDLE_MS;
      await new Promise(done => { this.wake = done; setTimeout(done, wait); });
    }
  }
}

/* "30000/1001" -> 29.97 */
function rateOf(rate) {
  const [top, bottom] = String(rate).split("/").map(Number);
  return top / (bottom || 1);
}

const studio = new Studio();
window.studio = studio;
studio.start().catch(error => studio.alert(error.message));
