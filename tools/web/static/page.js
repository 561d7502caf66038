// The page: a picture goes to the detector once; score, classes and selection only change what is drawn.

import { openCamera } from "./camera.js";
import { draw } from "./draw.js";
import { coco, copyText, showClasses, showObjects, showTimes } from "./panel.js";
import { uprightPicture } from "./upright.js";
import { fill, knows, language, say, setLanguage } from "./words.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");

const state = {
  categories: [], hidden: new Set(), score: 0.5, maxBytes: Infinity, attention: false, device: "",
  file: null, name: "", picture: null, width: 0, height: 0, // picture: what is drawn; null before the first answer
  objects: [], shown: [], selected: null, maps: null, heat: null, times: {},
};
let asking = null; // aborts the request for the picture before
let message = () => ""; // what the status line says; a function, so that it can be said in another language

function tell(words, wrong = false) {
  message = words;
  byId("say").textContent = words();
  byId("say").classList.toggle("wrong", wrong);
}

async function ask(address, file, signal) {
  let response;
  try {
    response = await fetch(address, { method: "POST", body: file, signal, headers: { "Content-Type": "application/octet-stream" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { words: () => say("offline") };
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { error: code, message: sentence } = answer;
  throw { words: () => (knows(code) ? say(code, state.maxBytes / 1e6) : (sentence ?? `HTTP ${response.status}`)) };
}

async function look(file, note = "") {
  asking?.abort();
  const own = (asking = new AbortController());
  Object.assign(state, { file, name: file.name || "picture.png", picture: null, objects: [], selected: null, maps: null, heat: null, times: {} });
  canvas.hidden = true;
  byId("drop").hidden = false;
  update();
  if (file.size > state.maxBytes) {
    tell(() => say("too_large", state.maxBytes / 1e6), true);
    return;
  }
  tell(() => say("working", file.name || say("picture")));
  document.body.classList.add("busy");
  const start = performance.now();
  try {
    const answer = await ask("/api/detect", file, own.signal);
    const total = performance.now() - start;
    const picture = await uprightPicture(file, answer.turn).catch(() => { throw { words: () => say("not_shown") }; });
    if (own.signal.aborted) return;
    const known = new Map(state.categories.map((category) => [category.id, category]));
    for (const object of answer.objects) {
      const { label = `class ${object.category_id}`, color = "#888888" } = known.get(object.category_id) ?? {};
      Object.assign(object, { label, color });
    }
    Object.assign(state, { picture, width: answer.width, height: answer.height, objects: answer.objects });
    state.times = { ...answer.milliseconds, total };
    byId("drop").hidden = true;
    canvas.hidden = false;
    update();
    tell(() => `${note} ${say("found", state.shown.length, state.objects.length - state.shown.length)}`.trim());
  } catch (error) {
    if (!own.signal.aborted) tell(error.words ?? (() => String(error)), true);
  } finally {
    if (asking === own) document.body.classList.remove("busy");
  }
}

// Compute what is shown from score and classes, and draw everything; asks nobody.
function update() {
  state.shown = state.objects.filter((object) => object.score >= state.score && !state.hidden.has(object.category_id));
  if (!state.shown.includes(state.selected)) Object.assign(state, { selected: null, heat: null });
  byId("score-value").textContent = `${Math.round(state.score * 100)}%`;
  showClasses(state, (id, on) => {
    state.hidden[on ? "delete" : "add"](id);
    change();
  });
  refresh();
}

function refresh() {
  showObjects(state, select);
  showTimes(state.times);
  byId("json").value = coco(state);
  canvas.setAttribute("aria-label", say("canvas", state.shown.length, state.shown.map((object) => object.label).join(", ")));
  if (state.picture) draw(canvas, state);
}

function change() {
  const focused = [...byId("classes").querySelectorAll("input")].indexOf(document.activeElement);
  update();
  if (focused >= 0) byId("classes").querySelectorAll("input")[focused].focus();
  if (state.picture) tell(() => say("found", state.shown.length, state.objects.length - state.shown.length));
}

async function select(object) {
  if (!object || object === state.selected) {
    Object.assign(state, { selected: null, heat: null });
    change();
    return;
  }
  Object.assign(state, { selected: object, heat: null });
  refresh();
  if (!state.attention) {
    tell(() => say("alone", object.label));
    return;
  }
  const { file } = state;
  if (!state.maps) {
    tell(() => say("looking"));
    try {
      const maps = await ask("/api/attention", file, asking?.signal);
      if (file === state.file) state.maps = maps;
    } catch (error) {
      if (error.name !== "AbortError") tell(error.words ?? (() => String(error)), true);
      return;
    }
  }
  if (state.selected !== object || file !== state.file) return;
  const { width, height, maps } = state.maps;
  const coded = maps[object.query];
  if (coded) state.heat = { width, height, cells: Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0)) };
  tell(() => say(coded ? "looked" : "alone", object.label));
  refresh();
}

// The smallest shown box around a point of the canvas.
function objectAt(event) {
  const place = canvas.getBoundingClientRect();
  const x = ((event.clientX - place.left) / place.width) * state.width;
  const y = ((event.clientY - place.top) / place.height) * state.height;
  const around = state.shown.filter(({ bbox: [left, top, wide, high] }) => x >= left && x <= left + wide && y >= top && y <= top + high);
  return around.sort((a, b) => a.bbox[2] * a.bbox[3] - b.bbox[2] * b.bbox[3])[0];
}

function take(data) {
  const files = [...(data?.files ?? [])];
  if (!files.length) tell(() => say("text"), true);
  else look(files[0], files.length > 1 ? say("several", files.length) : "");
}

function translate() {
  fill();
  byId("about").textContent = state.device && say("about", state.categories.length, state.device);
  byId("hint").textContent = say(state.attention ? "hint" : "hint_plain");
  byId("say").textContent = message();
  refresh();
}

function listen() {
  for (const id of ["file", "capture"]) {
    byId(id).addEventListener("change", () => {
      if (byId(id).files.length) look(byId(id).files[0]);
      byId(id).value = "";
    });
  }
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("drop").addEventListener("click", () => byId("file").click());
  byId("camera").addEventListener("click", () => openCamera(look, () => tell(() => say("no_camera"), true)));
  byId("score").addEventListener("input", () => {
    state.score = Number(byId("score").value);
    change();
  });
  byId("all").addEventListener("click", () => { state.hidden.clear(); change(); });
  byId("none").addEventListener("click", () => { state.hidden = new Set(state.categories.map(({ id }) => id)); change(); });
  byId("copy").addEventListener("click", async () => {
    const copied = await copyText(byId("json"));
    tell(() => say(copied ? "copied" : "copy_failed"), !copied);
  });
  byId("language").addEventListener("click", () => { setLanguage(language === "zh" ? "en" : "zh"); translate(); });
  canvas.addEventListener("click", (event) => select(objectAt(event)));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !state.shown.length) return;
    event.preventDefault();
    const place = state.shown.indexOf(state.selected);
    const next = place < 0 ? (step > 0 ? 0 : state.shown.length - 1) : (place + step + state.shown.length) % state.shown.length;
    if (state.shown[next] !== state.selected) select(state.shown[next]);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.selected) select(null); });
  document.addEventListener("paste", (event) => { event.preventDefault(); take(event.clipboardData); });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take(event.dataTransfer);
  });
  new ResizeObserver(() => { if (state.picture) draw(canvas, state); }).observe(byId("stage"));
}

async function begin() {
  translate();
  listen();
  try {
    const about = await (await fetch("/api/model")).json();
    Object.assign(state, { categories: about.categories, attention: about.attention, device: about.device });
    Object.assign(state, { maxBytes: about.max_bytes, score: Math.max(about.threshold, about.min_score) });
    Object.assign(byId("score"), { min: about.min_score, max: 1, value: state.score });
  } catch {
    tell(() => say("offline"), true);
    return;
  }
  translate();
  update();
  document.body.dataset.ready = "true";
}

begin();
