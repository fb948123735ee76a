/* Marking on the player's panes: clicks, boxes, dragging of marks, a cross for the keyboard. */

const DRAG = 5;   // pixels of the screen: a longer way is a box
const REACH = 11; // pixels of the screen: this near, a press takes a mark
const SVG = "http://www.w3.org/2000/svg";

export class PromptCanvas {
  /* actions: mark(kind, values), move(key, values), unmark(key), say(text) */
  constructor(player, actions) {
    this.player = player;
    this.actions = actions;
    this.tool = "point";
    this.cross = null;
    this.corner = null;
    this.band = null;
    player.on("panes", panes => panes.forEach(pane => this.attach(pane)));
    player.on("marks", pane => this.draw(pane));
    (player.panes || []).forEach(pane => this.attach(pane));
  }

  setTool(tool) {
    this.tool = tool;
    for (const pane of this.player.panes || []) pane.frame.style.touchAction = tool === "box" ? "none" : "";
  }

  attach(pane) {
    const frame = pane.frame;
    frame.tabIndex = 0;
    frame.setAttribute("role", "application");
    frame.setAttribute("aria-roledescription", "frame to click on");
    frame.setAttribute("aria-label", "Frame: arrow keys move a cross, Enter clicks on the object, Backspace beside it, B sets two corners of a box");
    frame.style.touchAction = this.tool === "box" ? "none" : "";
    frame.addEventListener("contextmenu", event => event.preventDefault());
    frame.addEventListener("pointerdown", event => this.press(pane, event));
    frame.addEventListener("pointermove", event => this.actions.place(this.player.toPixel(pane, event.clientX, event.clientY)));
    frame.addEventListener("keydown", event => this.key(pane, event));
    frame.addEventListener("blur", () => { this.cross = null; this.corner = null; this.redraw(); });
  }

  markAt(pane, x, y) {
    const reach = REACH / this.player.scale;
    return this.player.data.marks.find(mark => {
      if (mark.frame !== this.player.index) return false;
      const spots = mark.kind === "box" ? [mark.values.slice(0, 2), mark.values.slice(2)] : [mark.values];
      return spots.some(spot => spot.length === 2 && Math.hypot(spot[0] - x, spot[1] - y) <= reach);
    });
  }

  press(pane, event) {
    if (event.button !== 0 && event.button !== 2) return;
    this.player.pause();
    const from = this.player.toPixel(pane, event.clientX, event.clientY);
    const start = [event.clientX, event.clientY];
    const held = event.button === 0 ? this.markAt(pane, ...from) : null;
    const index = this.player.index;
    let dragged = false;
    const frame = pane.frame;
    frame.setPointerCapture(event.pointerId);
    this.player.held = true; // live pictures wait: the click is for the one that is seen
    const move = at => {
      if (!dragged && Math.hypot(at.clientX - start[0], at.clientY - start[1]) <= DRAG) return;
      const to = this.player.toPixel(pane, at.clientX, at.clientY);
      if (held) { dragged = true; this.shift(held, from, to); }
      else if (event.button === 0 && (this.tool === "box" || event.pointerType !== "touch")) {
        dragged = true;
        this.band = this.box(from, to);
      }
      this.redraw();
    };
    const stop = at => {
      frame.removeEventListener("pointermove", move);
      frame.removeEventListener("pointerup", up);
      frame.removeEventListener("pointercancel", stop);
      this.player.held = false;
      const band = this.band;
      this.band = null;
      return band;
    };
    const up = at => {
      const band = stop(at);
      if (this.player.index !== index) return;
      if (held && dragged) this.actions.move(held.key, held.values);
      else if (held && at.altKey) this.actions.unmark(held.key);
      else if (band) this.actions.mark("box", band);
      else if (!held && !dragged) {
        const negative = event.button === 2 || event.shiftKey || this.tool === "negative";
        if (this.tool === "box" && !negative) { this.actions.say("drag to make a box"); return; }
        this.actions.mark(negative ? "negative" : "point", from);
      }
      this.redraw();
    };
    frame.addEventListener("pointermove", move);
    frame.addEventListener("pointerup", up);
    frame.addEventListener("pointercancel", stop);
  }

  /* The outer edges of the pixels that were dragged over: x0, y0, x1, y1. */
  box(a, b) {
    const [width, height] = this.player.data.size;
    const low = [Math.min(a[0], b[0]), Math.min(a[1], b[1])], high = [Math.max(a[0], b[0]), Math.max(a[1], b[1])];
    return [Math.max(0, low[0]), Math.max(0, low[1]), Math.min(width, high[0] + 1), Math.min(height, high[1] + 1)].map(v => Math.round(v * 10) / 10);
  }

  shift(mark, from, to) {
    if (mark.kind !== "box") { mark.values = to; return; }
    const at = mark.grip ??= Math.hypot(mark.values[0] - from[0], mark.values[1] - from[1]) < Math.hypot(mark.values[2] - from[0], mark.values[3] - from[1]) ? 0 : 2;
    mark.values = [...mark.values];
    mark.values[at] = to[0]; mark.values[at + 1] = to[1];
  }

  key(pane, event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== pane.frame) return;
    const [width, height] = this.player.data.size;
    const by = event.shiftKey ? 10 : 1;
    const steps = {ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by]};
    this.cross ||= [Math.round((width - 1) / 2), Math.round((height - 1) / 2)];
    const step = steps[event.key];
    if (step) {
      this.cross = [Math.min(Math.max(this.cross[0] + step[0], 0), width - 1), Math.min(Math.max(this.cross[1] + step[1], 0), height - 1)];
      this.actions.place(this.cross);
      this.actions.say(`cross at ${this.cross[0]}, ${this.cross[1]}`);
    } else if (event.key === "Enter") this.actions.mark("point", this.cross);
    else if (event.key === "Backspace" || event.key === "Delete") this.actions.mark("negative", this.cross);
    else if (event.key.toLowerCase() === "b") {
      if (this.corner) { this.actions.mark("box", this.box(this.corner, this.cross)); this.corner = null; }
      else { this.corner = [...this.cross]; this.actions.say("first corner of a box; move and press B again"); }
    } else if (event.key === "Escape") { this.corner = null; this.cross = null; }
    else return;
    event.preventDefault(); event.stopPropagation();
    this.redraw();
  }

  redraw() { for (const pane of this.player.panes || []) { this.player.drawMarks(pane, this.player.index); } }

  draw(pane) {
    const unit = 1 / this.player.scale;
    const add = (tag, attributes) => {
      const node = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      pane.marks.append(node);
    };
    const band = this.band || (this.corner && this.cross ? this.box(this.corner, this.cross) : null);
    if (band) {
      const [x0, y0, x1, y1] = band;
      add("rect", {x: x0 - 0.5, y: y0 - 0.5, width: x1 - x0, height: y1 - y0, fill: "none", stroke: "#fff", "stroke-width": 2 * unit, "stroke-dasharray": `${6 * unit} ${4 * unit}`});
    }
    if (this.cross) {
      const [x, y] = this.cross, r = 14 * unit;
      const d = `M${x - r} ${y}h${2 * r}M${x} ${y - r}v${2 * r}`;
      add("path", {d, stroke: "#000", "stroke-width": 4 * unit});
      add("path", {d, stroke: "#fff", "stroke-width": 1.6 * unit});
    }
  }
}
