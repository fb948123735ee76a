/* The lists beside the frame: objects, marks, settings, exports. They show the state and send commands. */

const $ = id => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

export const EXPORTS = [
  ["masks", "Masks (PNG, zip)"],
  ["overlay_baseline", "Video with masks, SAM2 (mp4)"],
  ["overlay_geom", "Video with masks, 3AM (mp4)"],
  ["side_by_side", "Both side by side (mp4)"],
  ["prompts", "Prompts (prompts.json)"],
  ["report", "Report (zip)"],
  ["ply", "Points (PLY)"],
  ["frames", "Frames (zip)"],
];
/* Masks in the formats of other tools: name for the server, text. */
export const FORMATS = [
  ["coco", "COCO"],
  ["ytvis", "YouTube-VIS"],
  ["davis", "DAVIS"],
  ["yolo", "YOLO segmentation"],
  ["cvat", "CVAT for video"],
  ["labelme", "labelme"],
  ["png_alpha", "PNG with alpha"],
  ["prores", "ProRes 4444 with alpha"],
  ["vp9", "VP9 with alpha"],
  ["gif", "GIF of the cut-out"],
];

export class Panels {
  /* studio: state, info, active, act(action), select(id), ... of studio.js */
  constructor(studio) {
    this.studio = studio;
    this.shown = {};
    $("add-object").onclick = () => studio.addObject();
    $("delete-stretch").onclick = () => this.stretch("delete_stretch");
    $("restore-stretch").onclick = () => this.stretch("restore_stretch");
    $("copy").onclick = () => this.copy();
    $("command").addEventListener("toggle", () => this.command());
    for (const key of ["mode", "fallback", "memory", "pictures"]) $(key).onchange = event => studio.act({do: "settings", [key]: event.target.value});
    this.exports = new Map(EXPORTS.map(([kind, text]) => [kind, el("button", {type: "button", text, onclick: event => studio.export(kind, event.target)})]));
    $("export-list").replaceChildren(...this.exports.values());
    $("format").replaceChildren(...FORMATS.map(([value, text]) => el("option", {value, text})));
    $("export-format").onclick = event => studio.export(`format_${$("format").value}_${$("format-arm").value}`, event.target);
  }

  /* Rebuild a list only when what it shows has changed, so that focus and typing stay. */
  changed(name, ...values) {
    const text = JSON.stringify(values);
    if (this.shown[name] === text) return false;
    this.shown[name] = text;
    return true;
  }

  update() {
    const {state, studio} = {state: this.studio.state, studio: this.studio};
    if (!state) return;
    this.objects(state.board.objects, studio.active);
    this.marks(state.board, studio.active, studio.frame);
    this.settings(state, studio.info);
    const done = !state.live && Object.values(studio.seen).some(arm => Object.keys(arm).length);
    $("exports").hidden = !!state.live;
    const arms = ["geom", "baseline"].filter(arm => studio.has(arm));
    if (this.changed("format-arms", arms)) $("format-arm").replaceChildren(...arms.map(arm => el("option", {value: arm, text: studio.title(arm)})));
    $("export-format").disabled = $("export-format").dataset.busy === "1" || !arms.length;
    for (const [kind, button] of this.exports) {
      const needs = {prompts: studio.hasPrompts, frames: state.source, ply: state.has_scene, overlay_baseline: studio.has("baseline"), overlay_geom: studio.has("geom"), side_by_side: studio.has("baseline") && studio.has("geom")};
      button.disabled = button.dataset.busy === "1" || !(kind in needs ? needs[kind] : done);
    }
    for (const kind of ["overlay_baseline", "overlay_geom"]) {
      const arm = kind.slice(8);
      if (this.exports.get(kind).dataset.busy !== "1") this.exports.get(kind).textContent = `Video with masks, ${studio.title(arm)} (mp4)`;
    }
    $("command").hidden = !studio.hasPrompts;
    if (this.changed("command", state.board, state.settings) && $("command").open) this.command();
  }

  objects(list, active) {
    if (!this.changed("objects", list, active)) return;
    const focused = document.activeElement && document.activeElement.dataset.focus;
    const {studio} = this;
    $("object-list").replaceChildren(...list.map(object => {
      const swatch = el("span", {class: "swatch"});
      swatch.style.background = studio.colour(object);
      const pick = el("button", {type: "button", "data-focus": `pick${object.id}`, "aria-pressed": object.id === active, "aria-label": `work on ${object.name}`, title: "work on this object", onclick: () => studio.select(object.id)}, swatch);
      const name = el("input", {type: "text", "data-focus": `name${object.id}`, value: object.name, maxlength: 80, "aria-label": `name of object ${object.id}`, onchange: event => studio.act({do: "change_object", object: object.id, name: event.target.value})});
      const hide = el("button", {type: "button", "data-focus": `hide${object.id}`, "aria-pressed": object.hidden, text: object.hidden ? "show" : "hide", "aria-label": `${object.hidden ? "show" : "hide"} ${object.name}`, onclick: () => studio.act({do: "change_object", object: object.id, hidden: !object.hidden})});
      const remove = el("button", {type: "button", "data-focus": `remove${object.id}`, text: "✕", title: "delete this object and its prompts (undo brings it back)", "aria-label": `delete ${object.name}`, onclick: () => studio.act({do: "remove_object", object: object.id})});
      swatch.addEventListener("dblclick", () => studio.act({do: "change_object", object: object.id, colour: (object.colour + 1) % studio.info.colours.length}));
      return el("li", {class: object.id === active ? "active" : null}, pick, name, hide, remove);
    }));
    if (focused) { const again = document.querySelector(`[data-focus="${focused}"]`); if (again) again.focus(); }
  }

  marks(board, active, frame) {
    const here = board.marks.filter(mark => mark.frame === frame && mark.object_id === active);
    if (!this.changed("marks", here, frame)) return;
    $("marks").hidden = !here.length;
    const words = {point: "on it", negative: "not it", box: "box", mask: "mask picture"};
    $("mark-list").replaceChildren(...here.map(mark => el("li", {},
      el("span", {text: `${words[mark.kind]} ${mark.values.join(", ")}${mark.automatic ? " (set by the studio)" : ""}`}),
      el("button", {type: "button", text: "✕", "aria-label": `delete the prompt ${words[mark.kind]} ${mark.values.join(", ")}`, onclick: () => this.studio.act({do: "unmark", key: mark.key})}))));
  }

  settings(state, info) {
    const {studio} = this;
    const both = Object.keys(info.arms).length > 1;
    if (this.changed("arms", info.arms, info.missing)) {
      const kept = $("arms").value;
      const options = [...(both ? [["both", "both"]] : []), ...Object.entries(info.arms).map(([key, title]) => [key, `${title} only`])];
      $("arms").replaceChildren(...options.map(([value, text]) => el("option", {value, text})));
      if (options.some(([value]) => value === kept)) $("arms").value = kept;
      $("arms").onchange = () => studio.update();
      const missing = [...Object.entries(info.missing).map(([key, why]) => `${key === "geom" ? "3AM" : "SAM2"} cannot run: ${why}`), ...info.notes];
      $("missing").hidden = !missing.length;
      $("missing").textContent = missing.join(" ");
    }
    if (this.changed("modes", info.modes, info.fallbacks)) {
      $("memory").replaceChildren(...info.memories.map(text => el("option", {value: text, text})));
      $("mode").replaceChildren(...info.modes.map(text => el("option", {value: text, text})));
      $("fallback").replaceChildren(...info.fallbacks.map(text => el("option", {value: text, text})));
    }
    $("mode").value = state.settings.mode;
    $("fallback").value = state.settings.fallback;
    $("memory").value = state.settings.memory;
    $("pictures").value = state.settings.pictures;
    const unordered = !!(state.source && state.source.unordered);
    $("pictures-row").hidden = !(state.source && state.source.is_photos);
    $("fallback-row").hidden = $("memory-row").hidden = $("moving-note").hidden = unordered;
    $("stretch").hidden = $("settings").hidden = !!state.live;
  }

  /* null: all arms that can run. */
  get arms() { return $("arms").value === "both" || !$("arms").value ? null : [$("arms").value]; }

  setStretch({first, last}) {
    $("stretch").open = true;
    $("stretch-first").value = first;
    $("stretch-last").value = last;
  }

  stretch(action) {
    const {active} = this.studio;
    if (active === null) return;
    this.studio.act({do: action, object: active, first: +$("stretch-first").value, last: +$("stretch-last").value});
  }

  async command() {
    if (!$("command").open) return;
    const shown = $("command").querySelector("pre");
    try { shown.textContent = await (await this.studio.api.request(`${this.studio.api.base}/export/command`)).text(); }
    catch (error) { shown.textContent = error.message; }
  }

  async copy() {
    const text = $("command").querySelector("pre").textContent;
    try { await navigator.clipboard.writeText(text); this.studio.say("copied"); }
    catch {
      const range = document.createRange();
      range.selectNodeContents($("command").querySelector("pre"));
      getSelection().removeAllRanges(); getSelection().addRange(range);
      this.studio.say("selected: press Ctrl-C");
    }
  }
}
