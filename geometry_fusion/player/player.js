"use strict";
/* The player: frames with the masks of one or two arms, to scrub, to compare, to jump in.

   const player = new Player(root, data, options);

   data = {
     size: [width, height],          of the original frames, in pixels
     count, rate,                    number of frames, frames per second
     frames: {urls: [...]}           or {url: i => address} or {video: address}
     arms: [{key, title}],           one or two
     masks: {arm: [address|null]}    or mask: (arm, i) => address|null; palette PNGs in DAVIS's
                                     colours, whose index is the object id
     objects: [{id, name, colour, hidden}],
     seen: {arm: {id: [[area, confidence, score, decision, agreement, truth] | null, ...]}},
     marks: [{key, frame, object_id, kind, values, automatic}],
     deletions: [{object_id, first, last}],
     scene                           of scene.js, or null
     start                           the frame that is shown first; default: 0
     live                            whether frames come by showLive; default: no
   }
   options = {stretches}             whether a stretch of a lane can be chosen (event "stretch")

   Everything is drawn in the browser; nothing waits for a server but the pictures themselves. */
(function () {
  const UNSURE = 0.6;            // confidence below which a frame is doubtful
  const APART = 3;               // frames between two places to jump to
  const LEAST_DIFFERENCE = 0.02; // of IoU
  const AHEAD = 16;              // frames that are fetched ahead
  const IMAGE_BYTES = 192 * 2 ** 20, MASK_BYTES = 64 * 2 ** 20;
  const AREA = 0, CONFIDENCE = 1, DECISION = 3, AGREEMENT = 4, TRUTH = 5;
  const SVG = "http://www.w3.org/2000/svg";

  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") node.textContent = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }
  function svg(tag, attributes = {}) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));

  /* A cache that forgets what was used longest ago, by bytes. */
  class Cache {
    constructor(most) { this.most = most; this.bytes = 0; this.items = new Map(); }
    get(key) {
      const item = this.items.get(key);
      if (item) { this.items.delete(key); this.items.set(key, item); }
      return item && item.value;
    }
    put(key, value, bytes) {
      this.drop(key);
      this.items.set(key, {value, bytes});
      this.bytes += bytes;
      for (const old of this.items.keys()) {
        if (this.bytes <= this.most || old === key) break;
        this.drop(old);
      }
    }
    drop(key) {
      const item = this.items.get(key);
      if (!item) return;
      this.bytes -= item.bytes;
      this.items.delete(key);
    }
    clear() { this.items.clear(); this.bytes = 0; }
  }

  /* A bitmap, not an image element: browsers keep the files of elements in a cache of their own. */
  async function picture(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${answer.status}`);
    return createImageBitmap(await answer.blob());
  }

  /* DAVIS's colours hold the id: its low bits are the high bits of red, green and blue in turn. */
  const BITS = new Uint8Array(256);
  for (let v = 0; v < 256; v++) {
    for (let k = 0; k < 3; k++) if (v & (128 >> k)) BITS[v] |= 1 << (3 * k);
  }
  function idsOf(image, scratch) {
    const [w, h] = [image.naturalWidth || image.width, image.naturalHeight || image.height];
    scratch.width = w; scratch.height = h;
    const context = scratch.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, w, h).data;
    const ids = new Uint8Array(w * h);
    for (let i = 0, p = 0; i < ids.length; i++, p += 4) {
      if (pixels[p] | pixels[p + 1] | pixels[p + 2]) {
        ids[i] = BITS[pixels[p]] | (BITS[pixels[p + 1]] << 1) | (BITS[pixels[p + 2]] << 2);
      }
    }
    return {ids, w, h};
  }

  /* Frames of an embedded video, in order of number. */
  class VideoFrames {
    constructor(address, rate) {
      this.rate = rate;
      this.video = el("video", {muted: true, playsinline: true, preload: "auto"});
      this.video.muted = true;
      this.ready = fetch(address).then(r => r.blob()).then(blob => {
        this.video.src = URL.createObjectURL(blob);
        return new Promise((good, bad) => {
          this.video.onloadeddata = good;
          this.video.onerror = () => bad(new Error("the video cannot be played"));
        });
      });
      this.queue = Promise.resolve();
    }
    get(i) {
      const shown = this.queue.then(() => this.seek(i));
      this.queue = shown.catch(() => {});
      return shown;
    }
    async seek(i) {
      await this.ready;
      const time = (i + 0.5) / this.rate;
      if (Math.abs(this.video.currentTime - time) > 1e-3) {
        const sought = new Promise(done => this.video.addEventListener("seeked", done, {once: true}));
        this.video.currentTime = time;
        await sought;
      }
      return createImageBitmap(this.video);
    }
  }

  class Player {
    constructor(root, data, options = {}) {
      this.root = root;
      root.player = this; // for scripts of the page
      this.data = {marks: [], deletions: [], seen: {}, scene: null, ...data};
      this.options = options;
      this.index = this.data.start || 0;
      this.mode = this.data.arms.length > 1 ? "side" : "a";
      this.wipe = 0.5;
      this.opacity = 0.55;
      this.zoom = "fit";
      this.speed = 1;
      this.active = this.data.objects.length ? this.data.objects[0].id : null;
      this.listeners = {};
      this.images = new Cache(IMAGE_BYTES);
      this.maskCache = new Cache(MASK_BYTES);
      this.pending = new Map();
      this.scratch = document.createElement("canvas");
      this.layer = document.createElement("canvas");
      this.preview = null;
      this.visited = {doubtful: new Set(), disagreement: new Set()};
      this.build();
      this.setData({});
      this.range.value = this.number.value = this.index;
      this.observer = new ResizeObserver(() => {
        this.layout();
        if (this.drawnWidth === this.root.clientWidth) return;
        this.drawnWidth = this.root.clientWidth;
        this.drawLanes(); this.drawCurve();
      });
      this.observer.observe(this.stage);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawLanes());
    }

    on(name, listener) { (this.listeners[name] ||= []).push(listener); return this; }
    emit(name, ...values) { for (const listener of this.listeners[name] || []) listener(...values); }

    // --- data

    setData(part) {
      const old = this.data;
      this.data = {...old, ...part};
      if (part.size || part.frames || part.epoch !== undefined && part.epoch !== old.epoch) {
        this.images.clear(); this.maskCache.clear(); this.pending.clear(); this.video = null;
        this.preview = null;
        this.index = clamp(this.index, 0, Math.max(0, this.data.count - 1));
      }
      if (this.data.frames && this.data.frames.video && !this.video) {
        this.video = new VideoFrames(this.data.frames.video, this.data.rate);
      }
      const ids = this.data.objects.map(object => object.id);
      if (!ids.includes(this.active)) this.active = ids.length ? ids[0] : null;
      this.visited = {doubtful: new Set(), disagreement: new Set()};
      this.range.max = Math.max(0, this.data.count - 1);
      this.number.max = Math.max(0, this.data.count - 1);
      this.of.textContent = `of ${Math.max(0, this.data.count - 1)}`;
      this.buildModes();
      this.drawLegend();
      this.layout();
      this.drawLanes();
      this.drawCurve();
      this.updateJumps();
      if (this.table.open) this.fillTable();
      if (part.scene !== undefined) this.buildScene();
    }

    async frame(i) {
      const held = this.images.get(i);
      if (held) return held;
      const key = `f${i}`;
      if (!this.pending.has(key)) {
        const {frames} = this.data;
        const got = this.video ? this.video.get(i) : picture(frames.urls ? frames.urls[i] : frames.url(i));
        const epoch = this.data.epoch;
        this.pending.set(key, got.then(image => {
          const [w, h] = [image.naturalWidth || image.width, image.naturalHeight || image.height];
          if (epoch === this.data.epoch) this.images.put(i, image, 4 * w * h);
          return image;
        }).finally(() => this.pending.delete(key)));
      }
      return this.pending.get(key);
    }

    maskAddress(arm, i) {
      return this.data.mask ? this.data.mask(arm, i) : (this.data.masks[arm] || [])[i] || null;
    }

    async mask(arm, i) {
      const address = this.maskAddress(arm, i);
      if (!address) return null;
      const held = this.maskCache.get(address);
      if (held) return held;
      if (!this.pending.has(address)) {
        this.pending.set(address, picture(address).then(image => {
          const ids = idsOf(image, this.scratch);
          image.close();
          this.maskCache.put(address, ids, ids.ids.length);
          return ids;
        }).finally(() => this.pending.delete(address)));
      }
      return this.pending.get(address);
    }

    seen(arm, id, i) {
      const of = this.data.seen[arm];
      const list = of && of[id];
      return list ? list[i] || null : null;
    }
    deleted(id, i) {
      return this.data.deletions.some(d => d.object_id === id && d.first <= i && i <= d.last);
    }
    prompted(id, i) {
      if (this.promptedOf !== this.data.marks) {
        this.promptedOf = this.data.marks;
        this.promptedSet = new Set(this.data.marks.map(mark => `${mark.object_id} ${mark.frame}`));
      }
      return this.promptedSet.has(`${id} ${i}`);
    }
    shownObjects() { return this.data.objects.filter(object => !object.hidden); }

    // --- page

    build() {
      this.root.classList.add("player");
      this.modes = el("div", {class: "p-modes", role: "group", "aria-label": "what is shown"});
      this.fade = el("input", {type: "range", min: 0, max: 1, step: 0.05, value: this.opacity, oninput: e => { this.opacity = +e.target.value; this.draw(); }});
      this.zoomer = el("select", {"aria-label": "zoom", onchange: e => this.setZoom(e.target.value)},
        ...["fit", "50", "100", "200", "400"].map(z => el("option", {value: z, text: z === "fit" ? "fit" : `${z} %`})));
      const tools = el("div", {class: "p-tools"}, this.modes,
        el("label", {class: "p-fade"}, el("span", {text: "mask strength"}), this.fade),
        el("label", {}, el("span", {text: "zoom"}), this.zoomer));
      this.stage = el("div", {class: "p-stage", tabindex: -1});
      this.legend = el("ul", {class: "p-legend", "aria-label": "objects and arms"});
      this.buildTransport();
      this.lanes = el("div", {class: "p-lanes"});
      this.curveBox = el("div", {class: "p-curve"});
      this.buildCurveTools();
      this.table = el("details", {class: "p-table", ontoggle: () => this.table.open && this.fillTable()},
        el("summary", {text: "Table of the frames that differ most"}));
      this.sceneBox = el("details", {class: "p-scene", ontoggle: () => this.buildScene()},
        el("summary", {text: "3D: points, camera path, place of the objects"}));
      this.root.replaceChildren(tools, this.stage, this.legend, this.transport, this.lanes,
        this.curveTools, this.curveBox, this.table, this.sceneBox);
      this.root.addEventListener("keydown", event => this.onKey(event));
    }

    buildTransport() {
      const button = (label, text, action, key) => el("button", {type: "button", title: `${label} (${key})`, "aria-label": label, text, onclick: action});
      this.playButton = button("play", "▶", () => this.toggle(), "space");
      this.range = el("input", {type: "range", class: "p-range", min: 0, max: 0, value: 0, step: 1, "aria-label": "frame", oninput: e => this.go(+e.target.value)});
      this.number = el("input", {type: "number", class: "p-number", min: 0, value: 0, "aria-label": "frame number", onchange: e => this.go(Math.round(+e.target.value) || 0)});
      this.of = el("span", {class: "p-of"});
      const speed = el("select", {"aria-label": "speed", onchange: e => { this.speed = +e.target.value; }},
        ...[0.25, 0.5, 1, 2, 4].map(s => el("option", {value: s, text: `${s}×`, selected: s === 1})));
      this.transport = el("div", {class: "p-transport"},
        el("div", {class: "p-buttons"},
          button("first frame", "❘◀", () => this.go(0), "Home"),
          button("one frame back", "‹", () => this.step(-1), ","),
          this.playButton,
          button("one frame on", "›", () => this.step(1), "."),
          button("last frame", "▶❘", () => this.go(this.data.count - 1), "End")),
        this.range,
        el("label", {class: "p-at"}, el("span", {text: "frame"}), this.number, this.of),
        speed);
    }

    buildCurveTools() {
      this.doubtButton = el("button", {type: "button", title: "jump to the frame with the lowest confidence, then the next one (D)", text: "Next doubtful frame", onclick: () => this.jump("doubtful")});
      this.differButton = el("button", {type: "button", title: "jump to the frame where the arms differ most, then the next one (N)", text: "Next disagreement", onclick: () => this.jump("disagreement")});
      this.curveKind = el("select", {"aria-label": "curve", onchange: () => this.drawCurve()},
        ...[["truth", "IoU with ground truth"], ["agreement", "IoU between the arms"], ["confidence", "confidence"], ["score", "object score"], ["area", "area in pixels"]]
          .map(([value, text]) => el("option", {value, text})));
      this.curveTools = el("div", {class: "p-jumps"}, this.differButton, this.doubtButton,
        el("label", {}, el("span", {text: "curve"}), this.curveKind));
      this.kindChosen = false;
      this.curveKind.addEventListener("change", () => { this.kindChosen = true; });
    }

    buildModes() {
      const {arms} = this.data;
      const modes = arms.length > 1
        ? [["a", arms[0].title], ["b", arms[1].title], ["wipe", "wipe"], ["side", "side by side"], ["diff", "difference"]]
        : [["a", arms[0].title]];
      modes.unshift(["none", "frame only"]);
      if (!modes.some(([mode]) => mode === this.mode)) this.mode = "a";
      const wanted = modes.map(String).join();
      if (this.builtModes !== wanted) {
        this.builtModes = wanted;
        this.modes.replaceChildren(...modes.map(([mode, text]) =>
          el("button", {type: "button", "data-mode": mode, text, onclick: () => this.setMode(mode)})));
      }
      for (const button of this.modes.children) button.setAttribute("aria-pressed", button.dataset.mode === this.mode);
    }

    setMode(mode) { this.mode = mode; this.buildModes(); this.layout(); this.drawLegend(); this.emit("mode", mode); }
    setZoom(zoom) { this.zoom = zoom; this.zoomer.value = zoom; this.layout(); }
    setWipe(share) { this.wipe = clamp(share, 0, 1); this.placeWipe(); this.draw(); }

    /* Panes: what each shows, by mode. */
    wanted() {
      const keys = this.data.arms.map(arm => arm.key);
      if (this.mode === "side") return keys.map(arm => ({arms: [arm]}));
      if (this.mode === "wipe" || this.mode === "diff") return [{arms: keys}];
      return [{arms: this.mode === "none" ? [] : [keys[this.mode === "b" ? 1 : 0]]}];
    }

    /* The arm that a person looks at, for corrections. */
    get arm() {
      const keys = this.data.arms.map(arm => arm.key);
      return this.mode === "a" || keys.length === 1 ? keys[0] : keys[1];
    }

    layout() {
      if (!this.data.size) return;
      const panes = this.wanted();
      const [width, height] = this.data.size;
      const room = Math.max(80, this.stage.clientWidth - 8 * (panes.length - 1));
      const stacked = panes.length > 1 && this.stage.clientWidth < 560;
      const columns = stacked ? 1 : panes.length;
      const tall = Math.max(220, window.innerHeight * 0.6) / (stacked ? 2 : 1);
      const fit = Math.min(room / columns / width, tall / height);
      this.scale = this.zoom === "fit" ? fit : +this.zoom / 100;
      this.stage.classList.toggle("stacked", stacked);
      if (this.panes && this.panes.length === panes.length) {
        this.panes.forEach((pane, at) => { pane.arms = panes[at].arms; });
      } else {
        this.panes = panes.map(wanted => this.buildPane(wanted));
        this.stage.replaceChildren(...this.panes.map(pane => pane.box));
        this.emit("panes", this.panes);
      }
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      for (const pane of this.panes) {
        const title = pane.arms.length === 1 && panes.length > 1 ? this.title(pane.arms[0]) : "";
        pane.caption.textContent = title;
        pane.frame.style.width = `${width * this.scale}px`;
        pane.frame.style.height = `${height * this.scale}px`;
        const backing = Math.min(ratio * this.scale, 2560 / width, 2560 / height);
        const [w, h] = [Math.max(1, Math.round(width * backing)), Math.max(1, Math.round(height * backing))];
        if (pane.canvas.width !== w || pane.canvas.height !== h) { pane.canvas.width = w; pane.canvas.height = h; }
        pane.marks.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
        pane.divider.hidden = this.mode !== "wipe";
      }
      this.placeWipe();
      this.draw();
    }

    title(arm) { return (this.data.arms.find(item => item.key === arm) || {title: arm}).title; }

    buildPane(wanted) {
      const canvas = el("canvas", {class: "p-canvas", role: "img", "aria-label": "the frame with its masks"});
      const marks = svg("svg", {class: "p-marks", "aria-hidden": "true"});
      const divider = el("div", {class: "p-divider", role: "slider", tabindex: 0, "aria-label": "wipe between the arms", "aria-valuemin": 0, "aria-valuemax": 100},
        el("span", {class: "p-grip", "aria-hidden": "true", text: "⇔"}));
      const frame = el("div", {class: "p-frame"}, canvas, marks, divider);
      const caption = el("div", {class: "p-caption"});
      const pane = {box: el("div", {class: "p-pane"}, caption, frame), frame, canvas, marks, divider, caption, arms: wanted.arms};
      divider.addEventListener("pointerdown", event => {
        divider.setPointerCapture(event.pointerId);
        event.preventDefault(); event.stopPropagation(); divider.focus();
        const move = at => { const box = frame.getBoundingClientRect(); this.setWipe((at.clientX - box.left) / box.width); };
        divider.onpointermove = move;
        divider.onpointerup = divider.onpointercancel = () => { divider.onpointermove = null; };
      });
      divider.addEventListener("keydown", event => {
        const steps = {ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1};
        if (event.key in steps) this.setWipe(this.wipe + steps[event.key]);
        else if (event.key === "Home") this.setWipe(0);
        else if (event.key === "End") this.setWipe(1);
        else return;
        event.preventDefault(); event.stopPropagation();
      });
      return pane;
    }

    placeWipe() {
      for (const pane of this.panes || []) {
        pane.divider.style.left = `${100 * this.wipe}%`;
        pane.divider.setAttribute("aria-valuenow", Math.round(100 * this.wipe));
        const [a, b] = this.data.arms;
        if (b) pane.divider.setAttribute("aria-valuetext", `${Math.round(100 * this.wipe)} % ${a.title}, the rest ${b.title}`);
      }
    }

    /* x, y in pixels of the original frame, at their centres, of a place in the window. */
    toPixel(pane, clientX, clientY) {
      const box = pane.frame.getBoundingClientRect();
      const [width, height] = this.data.size;
      return [
        clamp((clientX - box.left) / box.width * width - 0.5, 0, width - 1),
        clamp((clientY - box.top) / box.height * height - 0.5, 0, height - 1),
      ];
    }

    // --- moving in time

    go(i, quiet = false) {
      const next = clamp(i, 0, Math.max(0, this.data.count - 1));
      const moved = next !== this.index;
      this.index = next;
      this.range.value = this.number.value = next;
      this.range.setAttribute("aria-valuetext", `frame ${next} of ${this.data.count - 1}`);
      if (moved && !quiet) this.preview = null;
      this.moveCursor();
      if (moved) this.emit("frame", next);
      return this.draw();
    }
    step(by) { this.pause(); return this.go(this.index + by); }
    toggle() { this.playing ? this.pause() : this.play(); }
    pause() {
      this.playing = false;
      this.playButton.textContent = "▶"; this.playButton.setAttribute("aria-label", "play");
    }
    async play() {
      if (this.playing || this.data.count < 2) return;
      this.playing = true;
      this.playButton.textContent = "❚❚"; this.playButton.setAttribute("aria-label", "pause");
      if (this.index >= this.data.count - 1) await this.go(0);
      let due = performance.now();
      while (this.playing) {
        due += 1000 / (this.data.rate * this.speed);
        const wait = due - performance.now();
        if (wait > 0) await new Promise(done => setTimeout(done, wait));
        else due = performance.now();
        await new Promise(requestAnimationFrame);
        if (!this.playing) return;
        if (this.index >= this.data.count - 1) { this.pause(); return; }
        await this.go(this.index + 1);
      }
    }

    onKey(event) {
      const tag = event.target.tagName;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (tag === "INPUT" && event.target.type !== "range" || tag === "SELECT" || tag === "TEXTAREA") return;
      const onButton = tag === "BUTTON" || tag === "SUMMARY";
      const actions = {
        " ": onButton ? null : () => this.toggle(), ",": () => this.step(-1), ".": () => this.step(1),
        "[": () => this.setWipe(this.wipe - 0.05), "]": () => this.setWipe(this.wipe + 0.05),
        n: () => this.jump("disagreement"), d: () => this.jump("doubtful"),
        Home: tag === "INPUT" ? null : () => this.go(0), End: tag === "INPUT" ? null : () => this.go(this.data.count - 1),
      };
      const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (action) { event.preventDefault(); action(); }
    }

    /* A frame that has just come, with its mask: it is the last one so far. */
    showLive(i, image, mask) {
      this.data.count = Math.max(this.data.count, i + 1);
      this.images.clear(); this.maskCache.clear();
      this.images.put(i, image, 4 * image.width * image.height);
      const address = this.maskAddress(this.arm, i);
      this.maskCache.put(address, idsOf(mask, this.scratch), image.width * image.height);
      return this.go(i);
    }

    // --- drawing

    /* Draw; the promise ends when the latest drawing has ended, also one that was asked for later. */
    async draw() {
      let latest = this.drawing = this.drawOnce();
      for (await latest; latest !== this.drawing; await latest) latest = this.drawing;
    }

    async drawOnce() {
      if (!this.panes || !this.data.count || !this.data.frames) return;
      const turn = this.turn = (this.turn || 0) + 1;
      const i = this.index;
      if (this.data.live && !this.images.get(i)) return; // it comes by showLive
      let image;
      const masks = {};
      try {
        const arms = [...new Set(this.panes.flatMap(pane => pane.arms))];
        const all = await Promise.all([this.frame(i), ...arms.map(arm => this.mask(arm, i).catch(() => null))]);
        image = all[0];
        arms.forEach((arm, at) => { masks[arm] = all[at + 1]; });
      } catch (error) {
        if (turn === this.turn) this.emit("problem", `frame ${i} cannot be shown`);
        return;
      }
      if (turn !== this.turn) return;
      for (const pane of this.panes) this.drawPane(pane, image, masks, i);
      this.shownIndex = i;
      this.emit("drawn", i);
      this.fetchAhead(i);
    }

    drawPane(pane, image, masks, i) {
      const {canvas} = pane, context = canvas.getContext("2d");
      const [w, h] = [canvas.width, canvas.height];
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(image, 0, 0, w, h);
      const preview = this.preview && this.preview.frame === i ? this.preview : null;
      if (this.mode === "diff" && pane.arms.length === 2) {
        this.paint(context, this.differenceLayer(masks, i), 0, 1);
      } else if (this.mode === "wipe" && pane.arms.length === 2) {
        const at = this.wipe;
        this.paint(context, this.layerOf(masks[pane.arms[0]], i, false, preview), 0, at);
        this.paint(context, this.layerOf(masks[pane.arms[1]], i, true, preview), at, 1);
      } else if (pane.arms.length || preview) {
        const second = pane.arms[0] === (this.data.arms[1] || {}).key;
        this.paint(context, this.layerOf(masks[pane.arms[0]], i, second, preview), 0, 1);
      }
      this.drawMarks(pane, i);
      const words = pane.arms.map(arm => `${this.title(arm)}: ${this.inWords(arm, i)}`).join("; ");
      canvas.setAttribute("aria-label", `Frame ${i}. ${words}`);
    }

    inWords(arm, i) {
      const here = this.shownObjects().map(object => {
        const seen = this.seen(arm, object.id, i);
        if (this.deleted(object.id, i)) return `${object.name} deleted`;
        if (!seen) return `${object.name} not tracked yet`;
        return `${object.name} ${seen[AREA] ? "present" : "absent"}${seen[CONFIDENCE] < UNSURE ? ", uncertain" : ""}`;
      });
      return here.join(", ") || "no object";
    }

    paint(context, layer, from, to) {
      if (!layer || to <= from) return;
      const {width, height} = context.canvas;
      const left = Math.round(from * width), right = Math.round(to * width);
      if (right <= left) return;
      context.save();
      context.beginPath();
      context.rect(left, 0, right - left, height);
      context.clip();
      context.imageSmoothingEnabled = false;
      context.drawImage(layer, 0, 0, width, height);
      context.restore();
    }

    /* Visible ids of a mask, with a preview in the place of its object. */
    visible(mask, i, preview) {
      const table = new Uint8Array(256);
      for (const object of this.shownObjects()) if (!this.deleted(object.id, i)) table[object.id] = object.id;
      const base = mask || (preview && preview.mask);
      if (!base) return null;
      const ids = new Uint8Array(base.ids.length);
      const own = preview ? preview.object : 0;
      for (let p = 0; p < ids.length; p++) {
        let id = mask ? table[mask.ids[p]] : 0;
        if (own) {
          if (preview.mask.ids[p] && table[own]) id = own;
          else if (id === own) id = 0;
        }
        ids[p] = id;
      }
      return {ids, w: base.w, h: base.h};
    }

    layerOf(mask, i, hatched, preview) {
      const shown = this.visible(mask, i, preview && preview.mask && (!mask || mask.w === preview.mask.w) ? preview : null);
      if (!shown) return null;
      const {ids, w, h} = shown;
      const colours = {};
      for (const object of this.data.objects) colours[object.id] = rgb(object.colour);
      return this.fill(w, h, (out, at, x, y, id, edge) => {
        const colour = colours[id];
        if (!colour) return;
        out[at] = colour[0]; out[at + 1] = colour[1]; out[at + 2] = colour[2];
        const striped = hatched && ((x + y) % this.period(w)) * 2 >= this.period(w);
        out[at + 3] = edge ? 255 : 255 * this.opacity * (striped ? 0.35 : 1);
      }, ids);
    }

    period(w) { return Math.max(6, Math.round(w / 48)); }

    differenceLayer(masks, i) {
      const [a, b] = this.data.arms.map(arm => this.visible(masks[arm.key], i, null));
      const base = a || b;
      if (!base) return null;
      const [first, second, both] = [[230, 159, 0], [86, 180, 233], [200, 200, 200]];
      const empty = new Uint8Array(base.ids.length);
      const [one, two] = [a ? a.ids : empty, b ? b.ids : empty];
      return this.fill(base.w, base.h, (out, at, x, y, id, edge, p) => {
        const same = one[p] === two[p];
        const colour = same ? both : one[p] ? first : second;
        out[at] = colour[0]; out[at + 1] = colour[1]; out[at + 2] = colour[2];
        const striped = !same && !one[p] && ((x + y) % this.period(base.w)) * 2 >= this.period(base.w);
        out[at + 3] = edge ? 255 : 255 * Math.min(1, this.opacity * (same ? 0.8 : 1.4)) * (striped ? 0.5 : 1);
      }, one.map((id, p) => id || two[p]));
    }

    fill(w, h, colour, ids) {
      const image = new ImageData(w, h), out = image.data;
      const wide = Math.max(1, Math.round(Math.min(w, h) / 360));
      for (let y = 0, p = 0; y < h; y++) {
        for (let x = 0; x < w; x++, p++) {
          const id = ids[p];
          if (!id) continue;
          const edge = (x >= wide && ids[p - wide] !== id) || (x < w - wide && ids[p + wide] !== id)
            || (y >= wide && ids[p - wide * w] !== id) || (y < h - wide && ids[p + wide * w] !== id);
          colour(out, 4 * p, x, y, id, edge, p);
        }
      }
      this.layer.width = w; this.layer.height = h;
      this.layer.getContext("2d").putImageData(image, 0, 0);
      return this.layer;
    }

    drawMarks(pane, i) {
      const unit = 1 / this.scale;
      pane.marks.replaceChildren();
      for (const mark of this.data.marks) {
        const object = this.data.objects.find(item => item.id === mark.object_id);
        if (mark.frame !== i || !object || object.hidden) continue;
        const group = svg("g", {"data-key": mark.key, class: `p-mark p-${mark.kind}`});
        if (mark.kind === "box") {
          const [x0, y0, x1, y1] = mark.values;
          const place = {x: x0 - 0.5, y: y0 - 0.5, width: x1 - x0, height: y1 - y0, fill: "none"};
          group.append(svg("rect", {...place, stroke: "#000", "stroke-width": 4 * unit}),
            svg("rect", {...place, stroke: object.colour, "stroke-width": 2 * unit}));
        } else if (mark.values.length === 2) {
          const [x, y] = mark.values, r = 7 * unit, arm = 4 * unit;
          const fill = mark.kind === "point" ? "#0a7d2c" : "#b3261e";
          group.append(
            svg("circle", {cx: x, cy: y, r, fill, stroke: "#fff", "stroke-width": 2 * unit,
              ...(mark.automatic ? {"stroke-dasharray": `${3 * unit} ${2 * unit}`} : {})}),
            svg("path", {d: `M${x - arm} ${y}h${2 * arm}` + (mark.kind === "point" ? `M${x} ${y - arm}v${2 * arm}` : ""),
              stroke: "#fff", "stroke-width": 2 * unit}));
        }
        pane.marks.append(group);
      }
      this.emit("marks", pane, i);
    }

    fetchAhead(i) {
      const arms = [...new Set(this.panes.flatMap(pane => pane.arms))];
      for (let next = i + 1; next <= Math.min(i + AHEAD, this.data.count - 1); next++) {
        if (!this.video) this.frame(next).catch(() => {});
        for (const arm of arms) this.mask(arm, next).catch(() => {});
      }
    }

    drawLegend() {
      const differs = this.mode === "diff" && this.data.arms.length > 1;
      const items = (differs ? [] : this.data.objects).map(object => {
        const swatch = el("span", {class: "p-swatch"});
        swatch.style.background = object.colour;
        return el("li", {}, swatch, object.name + (object.hidden ? " (hidden)" : ""));
      });
      const [a, b] = this.data.arms;
      if (b && this.mode === "diff") {
        items.push(...[["p-first", `only ${a.title}`], ["p-second", `only ${b.title}`], ["p-both", "both"]]
          .map(([name, text]) => el("li", {}, el("span", {class: `p-swatch ${name}`}), text)));
      } else if (b && this.mode !== "none") {
        items.push(el("li", {}, el("span", {class: "p-swatch p-solid"}), `${a.title}: plain`),
          el("li", {}, el("span", {class: "p-swatch p-hatch"}), `${b.title}: striped`));
      }
      this.legend.replaceChildren(...items);
    }

    // --- timeline

    drawLanes() {
      const {objects, arms, count} = this.data;
      const wanted = JSON.stringify([objects.map(o => [o.id, o.name, o.colour]), arms, count]);
      if (wanted !== this.builtLanes) {
        this.builtLanes = wanted;
        this.buildLanes();
      }
      if (!count) return;
      for (const lane of this.laneList || []) this.drawLane(lane);
      this.moveCursor();
    }

    buildLanes() {
      this.laneList = [];
      const groups = [];
      for (const object of this.data.objects) {
        const swatch = el("span", {class: "p-swatch"});
        swatch.style.background = object.colour;
        const name = el("button", {type: "button", class: "p-name", title: `work on ${object.name}`, onclick: () => this.select(object.id)}, swatch, object.name);
        const rows = this.data.arms.map(arm => {
          const canvas = el("canvas", {class: "p-lane", height: 14, role: "img"});
          const lane = {object, arm, canvas};
          this.laneList.push(lane);
          this.scrubOn(canvas, lane);
          return el("div", {class: "p-row"}, el("span", {class: "p-arm", text: arm.title}), canvas);
        });
        groups.push(el("div", {class: "p-group", "data-object": object.id}, name, ...rows));
      }
      this.cursor = el("div", {class: "p-cursor", "aria-hidden": "true"});
      const key = el("p", {class: "p-key", text: "bar: present · striped: uncertain · thin line: absent · diamond: prompted · grey: deleted · empty: not tracked." + (this.options.stretches ? " Drag over a bar to choose a stretch." : "")});
      this.lanes.replaceChildren(el("div", {class: "p-groups"}, ...groups, this.cursor), ...(groups.length ? [key] : []));
    }

    select(id) {
      this.active = id;
      for (const group of this.lanes.querySelectorAll(".p-group")) {
        group.classList.toggle("active", +group.dataset.object === id);
      }
      this.drawCurve();
      this.emit("select", id);
    }

    scrubOn(canvas, lane) {
      const at = event => {
        const box = canvas.getBoundingClientRect();
        return clamp(Math.floor((event.clientX - box.left) / box.width * this.data.count), 0, this.data.count - 1);
      };
      canvas.addEventListener("pointerdown", event => {
        canvas.setPointerCapture(event.pointerId);
        const first = at(event);
        this.pause(); this.go(first);
        canvas.onpointermove = move => {
          const here = at(move);
          this.go(here);
          if (!this.options.stretches) return;
          this.stretch = first === here ? null : {object: lane.object.id, first: Math.min(first, here), last: Math.max(first, here)};
          this.drawLanes();
        };
        canvas.onpointerup = canvas.onpointercancel = () => {
          canvas.onpointermove = canvas.onpointerup = null;
          if (this.stretch) this.emit("stretch", this.stretch);
        };
        this.stretch = null;
        this.drawLanes();
      });
    }

    drawLane({object, arm, canvas}) {
      const width = Math.max(60, canvas.clientWidth || 300), height = 14;
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      canvas.width = width * ratio; canvas.height = height * ratio;
      const context = canvas.getContext("2d");
      context.scale(ratio, ratio);
      const style = getComputedStyle(this.root);
      const line = style.getPropertyValue("--p-line").trim() || "#888";
      const {count} = this.data;
      const one = width / count;
      let states = "", present = 0, unsure = 0;
      for (let i = 0; i < count; i++) states += this.stateOf(arm.key, object.id, i);
      context.fillStyle = style.getPropertyValue("--p-lane").trim() || "#eee";
      context.fillRect(0, 0, width, height);
      for (let i = 0; i < count;) {
        let end = i + 1;
        while (end < count && states[end] === states[i]) end++;
        const x = i * one, w = Math.max(1, (end - i) * one);
        this.drawState(context, states[i], x, w, height, object.colour, line);
        if (states[i] === "P") present += end - i;
        if (states[i] === "U") { present += end - i; unsure += end - i; }
        if (states[i] === "u") unsure += end - i;
        i = end;
      }
      context.fillStyle = style.getPropertyValue("--p-ink").trim() || "#000";
      for (const frame of new Set(this.data.marks.filter(m => m.object_id === object.id).map(m => m.frame))) {
        const x = (frame + 0.5) * one;
        context.beginPath();
        context.moveTo(x, 1); context.lineTo(x + 5, height / 2); context.lineTo(x, height - 1); context.lineTo(x - 5, height / 2);
        context.fill();
      }
      if (this.stretch && this.stretch.object === object.id) {
        context.strokeStyle = context.fillStyle; context.lineWidth = 2;
        context.strokeRect(this.stretch.first * one + 1, 1, (this.stretch.last - this.stretch.first + 1) * one - 2, height - 2);
      }
      canvas.setAttribute("aria-label", `${object.name}, ${arm.title}: present in ${present} of ${count} frames, uncertain in ${unsure}`);
    }

    stateOf(arm, id, i) {
      if (this.deleted(id, i)) return "D";
      const seen = this.seen(arm, id, i);
      if (!seen) return " ";
      const unsure = seen[CONFIDENCE] !== null && seen[CONFIDENCE] < UNSURE && !this.prompted(id, i);
      return seen[AREA] ? (unsure ? "U" : "P") : unsure ? "u" : "A";
    }

    drawState(context, state, x, w, height, colour, line) {
      if (state === " ") return;
      context.fillStyle = state === "P" || state === "U" ? colour : line;
      if (state === "P") context.fillRect(x, 2, w, height - 4);
      else if (state === "A") context.fillRect(x, height / 2 - 1, w, 2);
      else if (state === "D") { context.globalAlpha = 0.55; context.fillRect(x, 4, w, height - 8); context.globalAlpha = 1; }
      else {
        const from = state === "U" ? 2 : height / 2 - 2, tall = state === "U" ? height - 4 : 4;
        for (let at = x; at < x + w; at += 4) context.fillRect(at, from, Math.min(2, x + w - at), tall);
      }
    }

    moveCursor() {
      const first = (this.laneList || [])[0];
      const share = this.data.count ? (this.index + 0.5) / this.data.count : 0;
      if (this.cursor && first) {
        const row = first.canvas.offsetLeft;
        this.cursor.style.left = `${row + share * first.canvas.clientWidth}px`;
      }
      if (this.curveCursor) {
        const x = this.plotLeft + share * this.plotWidth;
        this.curveCursor.setAttribute("x1", x); this.curveCursor.setAttribute("x2", x);
      }
      if (this.sceneView) this.sceneView.show(this.index);
      this.sayValues();
    }

    // --- curve

    values(kind, arm, i) {
      const at = {truth: TRUTH, agreement: AGREEMENT, confidence: CONFIDENCE, score: 2, area: AREA}[kind];
      const seen = this.active === null ? null : this.seen(arm, this.active, i);
      const value = seen ? seen[at] : null;
      return value === undefined ? null : value;
    }

    hasKind(kind) {
      return this.data.arms.some(arm => {
        for (let i = 0; i < this.data.count; i++) if (this.values(kind, arm.key, i) !== null) return true;
        return false;
      });
    }

    drawCurve() {
      const {arms, count} = this.data;
      for (const option of this.curveKind.options) option.disabled = !this.hasKind(option.value);
      const chosen = this.curveKind.selectedOptions[0];
      if (!this.kindChosen || !chosen || chosen.disabled) {
        const good = [...this.curveKind.options].find(option => !option.disabled);
        if (good) this.curveKind.value = good.value;
      }
      const kind = this.curveKind.value;
      this.curveBox.hidden = !count || ![...this.curveKind.options].some(option => !option.disabled);
      if (this.curveBox.hidden) return;
      const width = Math.max(240, this.curveBox.clientWidth || 600), height = 110, left = 44, bottom = 20;
      this.plotLeft = left; this.plotWidth = width - left - 6;
      const lines = (kind === "agreement" ? [arms[arms.length - 1]] : arms).map(arm => ({arm, list: Array.from({length: count}, (_, i) => this.values(kind, arm.key, i))}));
      const numbers = lines.flatMap(line => line.list).filter(value => value !== null);
      const [low, high] = kind === "area" ? [0, Math.max(1, ...numbers)] : kind === "score" ? [Math.min(-1, ...numbers), Math.max(1, ...numbers)] : [0, 1];
      const x = i => left + (i + 0.5) / count * this.plotWidth;
      const y = value => 6 + (1 - (value - low) / (high - low)) * (height - bottom - 6);
      const plot = svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "p-plot", role: "img"});
      for (const value of kind === "score" ? [low, 0, high] : [low, (low + high) / 2, high]) {
        plot.append(svg("line", {x1: left, x2: width - 6, y1: y(value), y2: y(value), class: "p-grid"}));
        const label = svg("text", {x: left - 6, y: y(value) + 4, class: "p-tick", "text-anchor": "end"});
        label.textContent = kind === "area" ? Math.round(value) : +value.toFixed(1);
        plot.append(label);
      }
      for (const i of [0, Math.floor((count - 1) / 2), count - 1]) {
        const label = svg("text", {x: x(i), y: height - 4, class: "p-tick", "text-anchor": i ? (i === count - 1 ? "end" : "middle") : "start"});
        label.textContent = i;
        plot.append(label);
      }
      lines.forEach(({arm, list}) => {
        let d = "";
        list.forEach((value, i) => { if (value !== null) d += `${i && list[i - 1] !== null ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`; });
        const order = arms.indexOf(arm);
        plot.append(svg("path", {d, class: `p-line p-line-${kind === "agreement" ? 2 : order}`}));
      });
      this.curveCursor = svg("line", {x1: 0, x2: 0, y1: 4, y2: height - bottom, class: "p-now"});
      plot.append(this.curveCursor);
      plot.addEventListener("pointerdown", event => {
        const box = plot.getBoundingClientRect();
        const share = ((event.clientX - box.left) / box.width * width - left) / this.plotWidth;
        this.pause(); this.go(Math.floor(share * count));
      });
      const object = this.data.objects.find(item => item.id === this.active);
      const means = lines.map(({arm, list}) => {
        const known = list.filter(value => value !== null);
        return known.length ? `${kind === "agreement" ? "mean" : arm.title} ${(known.reduce((a, b) => a + b, 0) / known.length).toFixed(2)}` : "";
      }).filter(Boolean).join(", ");
      const words = `${chosen ? this.curveKind.selectedOptions[0].textContent : kind}${object ? ` of ${object.name}` : ""}: ${means}`;
      plot.setAttribute("aria-label", words);
      const key = el("p", {class: "p-curve-key"}, ...(kind === "agreement" ? [] : lines.map(({arm}) =>
        el("span", {class: `p-tag p-tag-${arms.indexOf(arm)}`, text: arm.title}))), el("span", {text: words}));
      this.valueText = el("span", {class: "p-values"});
      key.append(this.valueText);
      this.curveBox.replaceChildren(plot, key);
      this.moveCursor();
    }

    sayValues() {
      if (!this.valueText) return;
      const kind = this.curveKind.value;
      const arms = kind === "agreement" ? this.data.arms.slice(-1) : this.data.arms;
      const parts = arms.map(arm => this.values(kind, arm.key, this.index)).map(value => value === null ? "–" : kind === "area" ? value : value.toFixed(2));
      this.valueText.textContent = `frame ${this.index}: ${parts.join(" / ")}`;
    }

    // --- jumping

    /* Show a mask that is not tracked yet in place of an object's mask on a frame. image: decoded. */
    showPreview(frame, object, image) {
      this.preview = {frame, object, mask: idsOf(image, this.scratch)};
      return this.draw();
    }

    /* Frames by how doubtful they are, or by how much the arms differ; apart from each other. */
    ranked(kind) {
      const {arms, count} = this.data;
      const objects = this.shownObjects();
      const scored = [];
      for (let i = 0; i < count; i++) {
        let worst = 0;
        for (const object of objects) {
          if (this.deleted(object.id, i)) continue;
          for (const arm of arms) {
            const seen = this.seen(arm.key, object.id, i);
            if (!seen) continue;
            if (kind === "doubtful") {
              if (!this.prompted(object.id, i) && seen[CONFIDENCE] !== null) worst = Math.max(worst, 1 - seen[CONFIDENCE]);
            } else if (seen[AGREEMENT] !== null && seen[AGREEMENT] !== undefined) {
              worst = Math.max(worst, 1 - seen[AGREEMENT]);
            }
          }
        }
        if (worst > (kind === "doubtful" ? 1 - UNSURE : LEAST_DIFFERENCE)) scored.push([worst, i]);
      }
      scored.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
      const chosen = [], taken = new Uint8Array(count + 2 * APART);
      for (const [, i] of scored) {
        if (taken[i + APART]) continue;
        chosen.push(i);
        taken.fill(1, i + 1, i + 2 * APART);
      }
      return chosen;
    }

    jump(kind) {
      const order = this.ranked(kind);
      if (!order.length) { this.emit("problem", kind === "doubtful" ? "no frame is doubtful" : "the arms agree in all frames"); return; }
      const seen = this.visited[kind];
      if (order.every(i => seen.has(i))) seen.clear();
      const next = order.find(i => !seen.has(i));
      seen.add(next);
      this.pause();
      this.go(next);
      this.emit("jump", kind, next, order.indexOf(next) + 1, order.length);
    }

    updateJumps() {
      this.differButton.hidden = this.data.arms.length < 2;
      this.differButton.disabled = !this.ranked("disagreement").length;
      this.doubtButton.disabled = !this.ranked("doubtful").length;
    }

    fillTable() {
      const [a, b] = this.data.arms;
      const object = this.data.objects.find(item => item.id === this.active);
      const rows = [];
      for (let i = 0; i < this.data.count; i++) {
        const one = this.active === null ? null : this.seen(a.key, this.active, i);
        const two = b && this.active !== null ? this.seen(b.key, this.active, i) : null;
        if (one || two) rows.push([i, one ? one[AREA] : "–", two ? two[AREA] : "–", (two || one)[AGREEMENT]]);
      }
      const value = row => row[3] === null || row[3] === undefined ? 2 : row[3];
      rows.sort((x, y) => value(x) - value(y) || x[0] - y[0]);
      const head = ["frame", `area ${a.title}`, ...(b ? [`area ${b.title}`, "IoU"] : [])];
      const body = rows.slice(0, 100).map(row => el("tr", {},
        el("th", {scope: "row"}, el("button", {type: "button", text: row[0], onclick: () => { this.pause(); this.go(row[0]); }})),
        el("td", {text: row[1]}), ...(b ? [el("td", {text: row[2]}), el("td", {text: value(row) > 1 ? "–" : row[3].toFixed(3)})] : [])));
      const table = el("table", {}, el("caption", {text: object ? `${object.name}: up to 100 frames, those that differ most first` : "no object"}),
        el("thead", {}, el("tr", {}, ...head.map(text => el("th", {scope: "col", text})))), el("tbody", {}, ...body));
      this.table.replaceChildren(this.table.firstChild, el("div", {class: "p-scroll"}, table));
    }

    buildScene() {
      this.sceneBox.hidden = !this.data.scene || !window.SceneView;
      if (this.sceneBox.hidden || !this.sceneBox.open) return;
      if (this.sceneView && this.sceneView.scene === this.data.scene) return;
      const box = el("div", {class: "p-view"});
      this.sceneBox.replaceChildren(this.sceneBox.firstChild, box);
      this.sceneView = new window.SceneView(box, this.data.scene, this.data.objects, this.data.size, i => { this.pause(); this.go(i); });
      this.sceneView.show(this.index);
    }
  }

  window.Player = Player;
})();
