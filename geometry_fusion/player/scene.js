"use strict";
/* The 3D view of the player: points, the camera path with the current frustum, the objects' places.

   scene = {count, points, colours, frames: base64 of float32, uint8, int32 (little-endian),
            cameras: [[frame, 12 numbers of the 3x4 camera-to-world matrix]], focals: [pixels],
            places: {object id: [[frame, x, y, z], ...]}}
   Axes are OpenCV's: x right, y down, z forward. Drawn with WebGL, or from above without it. */
(function () {
  const bytes = text => Uint8Array.from(atob(text), char => char.charCodeAt(0));
  const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = a => { const n = Math.hypot(...a) || 1; return a.map(v => v / n); };
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16) / 255);

  const POINTS = [`attribute vec3 at; attribute vec3 colour; uniform mat4 view; uniform float size; varying vec3 shade;
    void main() { gl_Position = view * vec4(at, 1.0); gl_PointSize = clamp(size / max(gl_Position.w, 0.01), 1.0, 9.0); shade = colour; }`,
    `precision mediump float; varying vec3 shade; void main() { gl_FragColor = vec4(shade, 1.0); }`];

  function matrix(eye, target, up, fov, aspect, near, far) {
    const z = unit(sub(target, eye)), x = unit(cross(z, up)), y = cross(x, z);
    const f = 1 / Math.tan(fov / 2), a = (far + near) / (near - far), b = 2 * far * near / (near - far);
    const view = [[...x, -dot(x, eye)], [...y, -dot(y, eye)], [-z[0], -z[1], -z[2], dot(z, eye)]];
    const rows = [view[0].map(v => v * f / aspect), view[1].map(v => v * f), view[2].map((v, i) => v * a + (i === 3 ? b : 0)), view[2].map(v => -v)];
    const out = new Float32Array(16);
    for (let r = 0; r < 4; r++) for (let c = 0; c < 4; c++) out[4 * c + r] = rows[r][c];
    return out;
  }

  class SceneView {
    constructor(box, scene, objects, size, jump) {
      this.scene = scene; this.objects = objects; this.size = size; this.jump = jump;
      this.points = new Float32Array(bytes(scene.points).buffer);
      this.colours = bytes(scene.colours);
      this.frames = new Int32Array(bytes(scene.frames).buffer);
      this.cameras = new Map(scene.cameras.map(row => [row[0], row.slice(1)]));
      this.focals = new Map(scene.cameras.map((row, i) => [row[0], scene.focals[i]]));
      this.index = scene.cameras.length ? scene.cameras[0][0] : 0;
      this.frameScene();
      this.canvas = document.createElement("canvas");
      this.canvas.className = "p-cloud";
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", "The scene in 3D: arrow keys turn it, plus and minus come closer and go away. " + this.inWords());
      const button = (text, action) => {
        const node = document.createElement("button");
        node.type = "button"; node.textContent = text; node.onclick = action;
        return node;
      };
      this.through = button("Look through the camera", () => { this.follow = !this.follow; this.press(); this.draw(); });
      const tools = document.createElement("div");
      tools.className = "p-jumps";
      tools.append(this.through, button("From above", () => { this.follow = false; this.press(); this.pitch = 1.45; this.yaw = 0; this.draw(); }),
        button("From the side", () => { this.follow = false; this.press(); this.pitch = 0.25; this.yaw = 0.6; this.draw(); }));
      const note = document.createElement("p");
      note.className = "p-key";
      note.textContent = "Drag to turn, wheel or pinch to come closer, click a point to jump to the frame it was seen from.";
      box.append(tools, this.canvas, note);
      this.press();
      this.gl = this.canvas.getContext("webgl", {antialias: true, preserveDrawingBuffer: true});
      if (this.gl) this.prepare();
      else note.textContent = "This browser has no WebGL: the scene is drawn from above.";
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.canvas);
    }

    inWords() {
      const parts = this.objects.map(object => {
        const places = this.scene.places[object.id] || [];
        return `${object.name} found in ${places.length} frames`;
      });
      return `${this.scene.count} points, ${this.scene.cameras.length} cameras, ${parts.join(", ")}.`;
    }

    press() { this.through.setAttribute("aria-pressed", !!this.follow); }

    /* Centre and radius from the middle 90% of the points and all cameras. */
    frameScene() {
      const centre = [], low = [], high = [];
      for (let axis = 0; axis < 3; axis++) {
        const list = [];
        const step = Math.max(1, Math.floor(this.scene.count / 5000));
        for (let i = axis; i < this.points.length; i += 3 * step) list.push(this.points[i]);
        for (const pose of this.cameras.values()) list.push(pose[4 * axis + 3]);
        list.sort((a, b) => a - b);
        low.push(list[Math.floor(list.length * 0.05)] || 0); high.push(list[Math.floor(list.length * 0.95)] || 0);
        centre.push((low[axis] + high[axis]) / 2);
      }
      this.centre = centre;
      this.radius = Math.hypot(...sub(high, low)) / 2 || 1;
      this.yaw = 0.6; this.pitch = 0.5; this.distance = 2.4 * this.radius; this.follow = false;
    }

    prepare() {
      const gl = this.gl;
      const program = gl.createProgram();
      POINTS.forEach((source, i) => {
        const shader = gl.createShader(i ? gl.FRAGMENT_SHADER : gl.VERTEX_SHADER);
        gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
      });
      gl.bindAttribLocation(program, 0, "at"); gl.bindAttribLocation(program, 1, "colour");
      gl.linkProgram(program); gl.useProgram(program);
      this.program = program;
      this.cloud = gl.createBuffer(); gl.bindBuffer(gl.ARRAY_BUFFER, this.cloud); gl.bufferData(gl.ARRAY_BUFFER, this.points, gl.STATIC_DRAW);
      this.paint = gl.createBuffer(); gl.bindBuffer(gl.ARRAY_BUFFER, this.paint); gl.bufferData(gl.ARRAY_BUFFER, this.colours, gl.STATIC_DRAW);
      this.extra = gl.createBuffer();
      gl.enableVertexAttribArray(0); gl.enableVertexAttribArray(1);
      gl.enable(gl.DEPTH_TEST);
    }

    listen() {
      let from = null, moved = 0;
      this.canvas.addEventListener("pointerdown", event => { this.canvas.setPointerCapture(event.pointerId); from = [event.clientX, event.clientY]; moved = 0; });
      this.canvas.addEventListener("pointermove", event => {
        if (!from) return;
        const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
        moved += Math.abs(dx) + Math.abs(dy);
        from = [event.clientX, event.clientY];
        this.turn(dx * 0.008, dy * 0.008);
      });
      this.canvas.addEventListener("pointerup", event => { from = null; if (moved < 4) this.pick(event); });
      this.canvas.addEventListener("wheel", event => { event.preventDefault(); this.nearer(Math.exp(event.deltaY * 0.001)); }, {passive: false});
      this.canvas.addEventListener("keydown", event => {
        const turns = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1]};
        if (turns[event.key]) this.turn(...turns[event.key]);
        else if (event.key === "+") this.nearer(0.9);
        else if (event.key === "-") this.nearer(1.1);
        else return;
        event.preventDefault(); event.stopPropagation();
      });
    }

    turn(yaw, pitch) { this.follow = false; this.press(); this.yaw -= yaw; this.pitch = Math.min(1.5, Math.max(-1.5, this.pitch + pitch)); this.draw(); }
    nearer(factor) { this.follow = false; this.press(); this.distance = Math.min(20 * this.radius, Math.max(0.1 * this.radius, this.distance * factor)); this.draw(); }
    show(index) { this.index = index; this.draw(); }

    view() {
      const aspect = this.canvas.width / this.canvas.height, far = 60 * this.radius, near = 0.01 * this.radius;
      const pose = this.cameras.get(this.index);
      if (this.follow && pose) {
        const eye = [pose[3], pose[7], pose[11]], forward = [pose[2], pose[6], pose[10]], up = [-pose[1], -pose[5], -pose[9]];
        const fov = 2 * Math.atan(this.size[1] / 2 / this.focals.get(this.index));
        return matrix(eye, [eye[0] + forward[0], eye[1] + forward[1], eye[2] + forward[2]], up, fov, aspect, near, far);
      }
      const flat = Math.cos(this.pitch);
      const eye = [this.centre[0] + this.distance * flat * Math.sin(this.yaw), this.centre[1] - this.distance * Math.sin(this.pitch), this.centre[2] - this.distance * flat * Math.cos(this.yaw)];
      return matrix(eye, this.centre, [0, -1, 0], 0.8, aspect, near, far);
    }

    /* Lines and places as [x, y, z, r, g, b]. */
    marks() {
      const lines = [], dots = [];
      const add = (list, at, colour) => list.push(...at, ...colour);
      let before = null;
      for (const pose of this.cameras.values()) {
        const at = [pose[3], pose[7], pose[11]];
        if (before) { add(lines, before, [0.9, 0.45, 0.1]); add(lines, at, [0.9, 0.45, 0.1]); }
        before = at;
      }
      const pose = this.cameras.get(this.index);
      if (pose) {
        const eye = [pose[3], pose[7], pose[11]], d = 0.12 * this.radius, f = this.focals.get(this.index);
        const corner = (sx, sy) => {
          const [x, y] = [sx * this.size[0] / 2 / f * d, sy * this.size[1] / 2 / f * d];
          return [0, 1, 2].map(r => eye[r] + pose[4 * r] * x + pose[4 * r + 1] * y + pose[4 * r + 2] * d);
        };
        const corners = [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)];
        corners.forEach((c, i) => { for (const p of [eye, c, c, corners[(i + 1) % 4]]) add(lines, p, [1, 0.8, 0.2]); });
      }
      for (const object of this.objects) {
        if (object.hidden) continue;
        for (const [frame, ...place] of this.scene.places[object.id] || []) {
          const now = frame === this.index;
          add(dots, place, now ? [1, 1, 1] : rgb(object.colour));
        }
      }
      return {lines: new Float32Array(lines), dots: new Float32Array(dots)};
    }

    draw() {
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      const [w, h] = [Math.round(this.canvas.clientWidth * ratio), Math.round(this.canvas.clientHeight * ratio)];
      if (!w || !h) return;
      if (this.canvas.width !== w || this.canvas.height !== h) { this.canvas.width = w; this.canvas.height = h; }
      if (!this.gl) { this.drawFlat(); return; }
      const gl = this.gl, view = this.view();
      gl.viewport(0, 0, w, h);
      gl.clearColor(0.07, 0.08, 0.1, 1); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.useProgram(this.program);
      gl.uniformMatrix4fv(gl.getUniformLocation(this.program, "view"), false, view);
      const size = gl.getUniformLocation(this.program, "size");
      gl.uniform1f(size, 0.011 * this.radius * h);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.cloud); gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.paint); gl.vertexAttribPointer(1, 3, gl.UNSIGNED_BYTE, true, 0, 0);
      gl.drawArrays(gl.POINTS, 0, this.scene.count);
      const {lines, dots} = this.marks();
      gl.disable(gl.DEPTH_TEST);
      for (const [list, kind, scale] of [[lines, gl.LINES, 1], [dots, gl.POINTS, 0.04]]) {
        gl.bindBuffer(gl.ARRAY_BUFFER, this.extra); gl.bufferData(gl.ARRAY_BUFFER, list, gl.DYNAMIC_DRAW);
        gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 24, 0); gl.vertexAttribPointer(1, 3, gl.FLOAT, false, 24, 12);
        gl.uniform1f(size, scale * this.radius * h);
        gl.drawArrays(kind, 0, list.length / 6);
      }
      gl.enable(gl.DEPTH_TEST);
      this.lastView = view;
    }

    drawFlat() {
      const context = this.canvas.getContext("2d"), {width, height} = this.canvas;
      context.fillStyle = "#12151a"; context.fillRect(0, 0, width, height);
      const scale = 0.42 * Math.min(width, height) / this.radius;
      const on = (x, z) => [width / 2 + (x - this.centre[0]) * scale, height / 2 - (z - this.centre[2]) * scale];
      for (let i = 0; i < this.scene.count; i++) {
        const [x, y] = on(this.points[3 * i], this.points[3 * i + 2]);
        context.fillStyle = `rgb(${this.colours[3 * i]},${this.colours[3 * i + 1]},${this.colours[3 * i + 2]})`;
        context.fillRect(x, y, 2, 2);
      }
      const {lines, dots} = this.marks();
      context.lineWidth = 2;
      for (let i = 0; i + 11 < lines.length; i += 12) {
        context.strokeStyle = `rgb(${[3, 4, 5].map(k => 255 * lines[i + k]).join()})`;
        context.beginPath(); context.moveTo(...on(lines[i], lines[i + 2])); context.lineTo(...on(lines[i + 6], lines[i + 8])); context.stroke();
      }
      for (let i = 0; i < dots.length; i += 6) {
        context.fillStyle = `rgb(${[3, 4, 5].map(k => 255 * dots[i + k]).join()})`;
        const [x, y] = on(dots[i], dots[i + 2]);
        context.beginPath(); context.arc(x, y, 5, 0, 7); context.fill();
      }
    }

    /* The point under the pointer, and the frame it was seen from. */
    pick(event) {
      const view = this.lastView;
      if (!view) return;
      const box = this.canvas.getBoundingClientRect();
      const x = 2 * (event.clientX - box.left) / box.width - 1, y = 1 - 2 * (event.clientY - box.top) / box.height;
      let best = null, nearest = Infinity;
      const reach = 12 / box.height * 2;
      for (let i = 0; i < this.scene.count; i++) {
        const [a, b, c] = [this.points[3 * i], this.points[3 * i + 1], this.points[3 * i + 2]];
        const w = view[3] * a + view[7] * b + view[11] * c + view[15];
        if (w <= 0) continue;
        const px = (view[0] * a + view[4] * b + view[8] * c + view[12]) / w;
        const py = (view[1] * a + view[5] * b + view[9] * c + view[13]) / w;
        if (Math.hypot((px - x) * box.width / box.height, py - y) < reach && w < nearest) { nearest = w; best = i; }
      }
      if (best !== null) this.jump(this.frames[best]);
    }
  }

  window.SceneView = SceneView;
})();
