// The page: asks once a second what the cameras do, and hands on what was chosen.

import { CameraCard, duration } from "./camera.js";

const PERIOD_MS = 1000;
const KEPT = "salstream-options";

const form = document.querySelector("#options");
const main = document.querySelector("#cameras");
const alarm = document.querySelector("#alarm");
const keys = document.querySelector("#keys");
const cards = new Map();
let enlarged = null;
let listing = null;
let answered = Date.now();

function options() {
  return {
    view: form.elements.view.value,
    opacity: form.elements.opacity.value,
    colormap: form.elements.colormap.value,
  };
}

function show() {
  form.elements.percent.value = `${Math.round(form.elements.opacity.value * 100)} %`;
  if (!listing) return;
  for (const camera of listing.cameras) {
    let card = cards.get(camera.name);
    if (!card) cards.set(camera.name, card = new CameraCard(camera.name, toggle));
    card.show(camera, options(), listing.time);
    if (!card.element.isConnected) main.append(card.element);
  }
  const names = new Set(listing.cameras.map((camera) => camera.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    if (card === enlarged) enlarge(null);
    card.remove();
    cards.delete(name);
  }
  const live = listing.cameras.filter((camera) => camera.state === "live").length;
  say(`${live} of ${listing.cameras.length} live`);
  document.querySelector("[value=conspicuity]").disabled =
    !listing.cameras.some((camera) => camera.conspicuity);
}

function say(text) {
  const summary = document.querySelector("#summary");
  if (summary.textContent !== text) summary.textContent = text;
}

async function poll() {
  try {
    const answer = await fetch("/api/cameras", { signal: AbortSignal.timeout(5000) });
    if (answer.status === 401) {
      location.reload(); // the form that asks for the token
      return;
    }
    if (!answer.ok) throw new Error(answer.statusText);
    listing = await answer.json();
    answered = Date.now();
    alarm.hidden = true;
    show();
  } catch {
    const silence = duration((Date.now() - answered) / 1000);
    alarm.textContent = `salstream has not answered for ${silence}. Trying again…`;
    alarm.hidden = false;
    say("Not connected");
    for (const card of cards.values()) card.lose();
  }
  setTimeout(poll, PERIOD_MS);
}

function toggle(card) {
  enlarge(card === enlarged ? null : card);
}

function enlarge(card) {
  if (enlarged) enlarged.large = false;
  enlarged = card ?? null;
  if (enlarged) {
    enlarged.large = true;
    enlarged.picture.focus({ preventScroll: true });
  }
  main.classList.toggle("one", enlarged !== null);
}

function step(by) {
  const all = [...cards.values()];
  if (all.length) enlarge(all[(all.indexOf(enlarged) + by + all.length) % all.length]);
}

function next(controls) {
  const open = [...controls].filter((control) => !control.disabled);
  const chosen = open.findIndex((control) => control.checked ?? control.selected);
  const following = open[(chosen + 1) % open.length];
  if ("checked" in following) following.checked = true;
  else following.selected = true;
  changed();
}

function fade(by) {
  form.elements.opacity.valueAsNumber += by;
  changed();
}

function changed() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(options()));
  } catch { /* a browser that keeps nothing */ }
  show();
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT)) ?? options();
    for (const name of Object.keys(options())) form.elements[name].value = kept[name];
  } catch { /* nothing that can be read: what the page says itself */ }
  if (!form.elements.colormap.value) form.elements.colormap.selectedIndex = 0;
}

const SHORTCUTS = {
  Escape: () => enlarge(null),
  ArrowLeft: () => enlarged && step(-1),
  ArrowRight: () => enlarged && step(1),
  v: () => next(form.elements.view),
  c: () => next(form.elements.colormap.options),
  "+": () => fade(0.05),
  "-": () => fade(-0.05),
  s: () => (enlarged ?? cards.values().next().value)?.element.querySelector(".snapshot").click(),
  "?": () => keys.showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("select, input");
  if (event.ctrlKey || event.altKey || event.metaKey || keys.open) return;
  if (typing && event.key !== "Escape") return;
  const act = SHORTCUTS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const numbered = /^[1-9]$/.test(event.key) && [...cards.values()][event.key - 1];
  if (act) act();
  else if (numbered) enlarge(numbered);
  else return;
  event.preventDefault();
});
form.addEventListener("input", changed);
form.addEventListener("submit", (event) => event.preventDefault());
document.querySelector("#help").addEventListener("click", () => keys.showModal());

recall();
poll();
