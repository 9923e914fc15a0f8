// One camera: its picture, fetched as fast as it is shown, and its figures.

import { draw } from "./chart.js";

const NOTICES = {
  connecting: "Connecting…",
  warming: "Waiting for the first map…",
  stalled: "No frames come",
  reconnecting: "Reconnecting…",
  failed: "Failed",
  ended: "Ended",
  late: "The picture is old",
};
// The server answers within a second, with or without a picture.
const PATIENCE_MS = 6000;
const MORE_PATIENCE_MS = 12000; // the next time, should a picture need longer on its way

export class CameraCard {
  #socket = null;
  #query = "";
  #asked = false;
  #seen = false;
  #begun = null; // when this socket was opened or asked; null: it owes no answer
  #silent = null; // since when there has been no answer, from this socket or those before it
  #patience = PATIENCE_MS;

  constructor(name, enlarge) {
    this.name = name;
    this.address = `/api/cameras/${encodeURIComponent(name)}`;
    this.element = document.querySelector("#camera").content.firstElementChild.cloneNode(true);
    this.picture = this.#find(".picture");
    this.canvas = this.#find("canvas");
    this.#find("h2").textContent = name;
    this.picture.addEventListener("click", () => enlarge(this));
    this.#find(".snapshot").setAttribute("aria-label", `Snapshot of ${name}`);
    this.large = false;
    // What nobody sees is not asked for.
    this.observer = new IntersectionObserver(([entry]) => {
      this.#seen = entry.isIntersecting;
      this.#ask();
    });
    this.observer.observe(this.picture);
    this.onVisible = () => this.#ask();
    document.addEventListener("visibilitychange", this.onVisible);
  }

  set large(yes) {
    this.element.classList.toggle("large", yes);
    this.picture.setAttribute("aria-pressed", yes);
    this.picture.setAttribute("aria-label", yes ? "Show all cameras" : `Enlarge ${this.name}`);
  }

  // camera: as /api/cameras lists it; options: view, opacity, colormap; now: the server's time.
  show(camera, options, now) {
    this.camera = camera;
    this.#choose(options);
    if (age(this.#begun) > this.#patience) this.#hangUp();
    const late = camera.state === "live" && age(this.#silent) > PATIENCE_MS;
    const state = late ? "late" : camera.state;
    const dead = state !== "live";
    this.element.dataset.state = state;
    this.#find(".state").textContent = state;
    this.#find(".notice").textContent = dead ? NOTICES[state] ?? state : "";
    const since = late
      ? `no answer for ${duration(age(this.#silent) / 1000)}, asking again`
      : `${state} for ${duration(now - camera.since)}`;
    this.#find(".reason").textContent = dead
      ? [since, camera.reason].filter(Boolean).join(": ")
      : camera.reason ?? "";
    this.#find(".source").textContent = camera.source;
    this.#find(".source").title = camera.source;
    this.canvas.setAttribute("aria-label", `${this.name}, ${state}`);
    this.#figure("fps", camera.fps.toFixed(1));
    for (const name of ["frames", "dropped", "reconnects"]) {
      this.#figure(name, camera[name].toLocaleString("en"));
    }
    for (const name of ["p50", "p95", "p99"]) {
      this.#figure(name, camera.latency_ms[name]?.toFixed(camera.latency_ms[name] < 10 ? 1 : 0));
    }
    draw(this.#find(".plot"), camera.history);
    if (!this.#socket) this.#connect();
  }

  // The server is gone: the next listing that it answers connects again.
  lose() {
    this.element.dataset.state = "lost";
    this.#find(".state").textContent = "lost";
    this.#find(".notice").textContent = "No answer";
  }

  remove() {
    this.observer.disconnect();
    document.removeEventListener("visibilitychange", this.onVisible);
    this.element.remove();
    this.#socket?.close();
  }

  #choose({ view, opacity, colormap }) {
    const shown = view === "conspicuity" && !this.camera.conspicuity ? "overlay" : view;
    this.#query = new URLSearchParams({ view: shown, opacity, colormap }).toString();
    this.#find(".snapshot").href = `${this.address}/snapshot.png?${this.#query}`;
  }

  #connect() {
    const origin = location.origin.replace(/^http/, "ws");
    const socket = new WebSocket(`${origin}${this.address}/pictures`);
    socket.binaryType = "blob";
    socket.onopen = () => {
      this.#begun = null;
      this.#ask();
      if (!this.#asked) this.#silent = null; // nobody looks
    };
    socket.onmessage = async ({ data }) => {
      if (age(this.#begun) < PATIENCE_MS) this.#patience = PATIENCE_MS;
      this.#begun = this.#silent = null;
      try {
        if (data.size) await this.#paint(data);
      } finally {
        if (this.#socket === socket) {
          this.#asked = false;
          this.#ask();
        }
      }
    };
    socket.onclose = () => this.#forget();
    this.#socket = socket;
    this.#wait();
  }

  // A path that died without a word: closing it takes as long, so nothing more is heard of it.
  #hangUp() {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.#forget();
    this.#patience = MORE_PATIENCE_MS;
  }

  #forget() {
    this.#socket = this.#begun = null;
    this.#asked = false;
  }

  #wait() {
    this.#begun = performance.now();
    this.#silent ??= this.#begun;
  }

  // One question at a time: the answer is the newest picture, whatever happened meanwhile.
  #ask() {
    const ready = this.#socket?.readyState === WebSocket.OPEN;
    if (!ready || this.#asked || !this.#seen || document.hidden) return;
    this.#asked = true;
    this.#wait();
    this.#socket.send(this.#query);
  }

  async #paint(data) {
    const image = await createImageBitmap(data);
    if (this.canvas.width !== image.width || this.canvas.height !== image.height) {
      this.canvas.width = image.width;
      this.canvas.height = image.height;
    }
    this.canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
  }

  #figure(name, text) {
    this.#find(`[data-of=${name}]`).textContent = text ?? "–";
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }
}

// Milliseconds since a moment; none since null.
function age(moment) {
  return moment === null ? 0 : performance.now() - moment;
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
