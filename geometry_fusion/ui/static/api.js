/* Requests to the studio's server. Every answer with an error becomes an Error with its one line. */

const OWN = {"x-studio": "1"};

export class Api {
  constructor() { this.key = null; }

  get base() { return `/api/s/${this.key}`; }

  async request(address, options = {}) {
    let answer;
    try {
      answer = await fetch(address, {...options, headers: {...OWN, ...options.headers}});
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw Object.assign(new Error("the studio's server does not answer; is it running?"), {offline: true});
    }
    if (!answer.ok) {
      let text = `${answer.status} ${answer.statusText}`;
      try { text = (await answer.json()).error || text; } catch { /* no JSON */ }
      throw Object.assign(new Error(text), {status: answer.status});
    }
    return answer;
  }

  async json(address, body, method = body === undefined ? "GET" : "POST") {
    const options = body === undefined ? {} : {body: JSON.stringify(body), headers: {"content-type": "application/json"}};
    return (await this.request(address, {method, ...options})).json();
  }

  info() { return this.json("/api/info"); }
  async create() { this.key = (await this.json("/api/sessions", {})).key; return this.key; }
  state(after) { return this.json(`${this.base}/state?after=${after}`); }
  act(action) { return this.json(`${this.base}/do`, action); }
  sample(name) { return this.json(`${this.base}/sample`, {name}); }
  run(arms, after) { return this.json(`${this.base}/run`, {arms, after}); }
  cancel() { return this.json(`${this.base}/cancel`, {}); }
  scene() { return this.json(`${this.base}/scene`); }
  open(files, cut) { return this.json(`${this.base}/open`, {files, ...cut}); }
  truth(files, after) { return this.json(`${this.base}/truth`, {files, after}); }
  path(path, cut) { return this.json(`${this.base}/path`, {path, ...cut}); }

  liveStart(from_page, arm) { return this.json(`${this.base}/live/start`, {from_page, arm}); }
  liveControl(what) { return this.json(`${this.base}/live/control`, {do: what}); }
  livePicture(blob) { return this.request(`${this.base}/live/picture`, {method: "PUT", body: blob}); }

  /* The next live frame: {head, image, mask}, as Blobs; null where none came. */
  async live(after) {
    const answer = await this.request(`${this.base}/live?after=${after}`);
    if (answer.status === 204) return null;
    const all = await answer.arrayBuffer();
    const length = new DataView(all).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(all.slice(4, 4 + length)));
    const from = 4 + length, to = from + head.image;
    return {head, image: new Blob([all.slice(from, to)], {type: "image/jpeg"}), mask: new Blob([all.slice(to)], {type: "image/png"})};
  }

  frameAddress(epoch, i) { return `${this.base}/frame/${i}.jpg?e=${epoch}`; }
  maskAddress(arm, i, number) { return `${this.base}/mask/${arm}/${i}.png?n=${number}`; }

  /* The preview mask as a Blob; null where a later request replaced it. */
  async preview(frame, object, signal) {
    const answer = await this.request(`${this.base}/preview`, {method: "POST", body: JSON.stringify({frame, object}), signal});
    return answer.status === 204 ? null : answer.blob();
  }

  /* Upload with progress: XMLHttpRequest, because fetch reports none. */
  upload(address, file, progress) {
    return new Promise((good, bad) => {
      const request = new XMLHttpRequest();
      request.open("PUT", address);
      request.setRequestHeader("x-studio", "1");
      request.upload.onprogress = event => progress && progress(event.loaded / Math.max(1, event.total));
      request.onload = () => {
        let answer = {};
        try { answer = JSON.parse(request.responseText); } catch { /* no JSON */ }
        request.status === 200 ? good(answer) : bad(new Error(answer.error || `${request.status} ${request.statusText}`));
      };
      request.onerror = () => bad(new Error("the upload was refused or ended; is the file too large?"));
      request.send(file);
    });
  }
  uploadFile(file, progress) { return this.upload(`${this.base}/upload?name=${encodeURIComponent(file.name)}`, file, progress); }
  uploadMask(file, frame, object) {
    return this.upload(`${this.base}/prompt-mask?frame=${frame}&object=${object}&name=${encodeURIComponent(file.name)}`, file);
  }

  async download(kind) {
    const answer = await this.request(`${this.base}/export/${kind}`);
    const name = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") || "");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = name ? name[1] : kind;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
}
