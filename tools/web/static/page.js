// The page: a picture goes to the detector once; score, classes and selection only change what is drawn.

import { openCamera, stopLive } from "./camera.js";
import { draw } from "./draw.js";
import { coco, copyText, showClasses, showItems, showTimes } from "./panel.js";
import { segmentAt, segmentMap } from "./segments.js";
import { uprightPicture } from "./upright.js";
import { fill, knows, language, say, setLanguage } from "./words.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");

const state = {
  categories: [], hidden: new Set(), score: 0.5, maxBytes: Infinity, attention: false, device: "",
  file: null, name: "", picture: null, live: false, width: 0, height: 0, // picture: what is drawn; null before the first answer
  panoptic: null, asMap: false, // panoptic: the map's threshold, of a panoptic model
  objects: [], segments: [], map: null, off: new Set(), // what was found; off: segments that are switched off
  listed: [], shown: [], shownObjects: [], shownSegments: [], // what of it is in the list, in the picture, in the JSON
  selected: null, maps: null, heat: null, times: {},
};
const NOTHING = { picture: null, objects: [], segments: [], map: null, off: new Set(), selected: null, maps: null, heat: null, times: {} };
let asking = null; // aborts the request for the picture before
const LIVE = () => say("live");
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
  throw { code, words: () => (knows(code) ? say(code, state.maxBytes / 1e6) : (sentence ?? `HTTP ${response.status}`)) };
}

async function look(file, note = "") {
  stopLive();
  asking?.abort();
  const own = (asking = new AbortController());
  state.picture?.close?.();
  Object.assign(state, NOTHING, { file, name: file.name || "picture.png", off: new Set() });
  canvas.hidden = true;
  byId("drop").hidden = false;
  update();
  if (file.size > state.maxBytes) {
    tell(() => say("too_large", state.maxBytes / 1e6), true);
    return;
  }
  tell(() => say("working", file.name || say("picture")));
  document.body.classList.add("busy");
  try {
    await detect(file, own);
    if (!own.signal.aborted) tell(() => `${note} ${found()}`.trim());
  } catch (error) {
    if (!own.signal.aborted) tell(error.words ?? (() => String(error)), true);
  } finally {
    if (asking === own) document.body.classList.remove("busy");
  }
}

// One of the camera's live pictures; returns whether to go on. The one before it stays until this one is answered.
async function watch(file) {
  asking?.abort();
  const own = (asking = new AbortController());
  state.live = true;
  if (message !== LIVE) tell(LIVE);
  try {
    await detect(file, own);
  } catch (error) {
    if (own.signal.aborted) return false;
    tell(error.words ?? (() => String(error)), true);
    if (error.code !== "busy") return false;
    await new Promise((done) => setTimeout(done, 1000));
  }
  return !own.signal.aborted;
}

function ended() {
  asking?.abort();
  asking = null;
  state.live = false;
  if (message === LIVE) tell(state.picture ? found : () => "");
}

async function detect(file, own) {
  const start = performance.now();
  const answer = await ask("/api/detect", file, own.signal);
  const total = performance.now() - start;
  const picture = await uprightPicture(file, answer.turn).catch(() => { throw { words: () => say("not_shown") }; });
  if (own.signal.aborted) return;
  const known = new Map(state.categories.map((category) => [category.id, category]));
  const { width, height, objects, segments = [] } = answer;
  for (const one of [...objects, ...segments]) {
    const { label = `class ${one.category_id}`, color = "#888888" } = known.get(one.category_id) ?? {};
    Object.assign(one, { label, color: one.color ?? color });
  }
  segments.sort((a, b) => b.isthing - a.isthing || (b.score ?? 0) - (a.score ?? 0) || b.area - a.area);
  const map = state.panoptic === null ? null : segmentMap(segments, width, height);
  state.picture?.close?.();
  Object.assign(state, NOTHING, { off: new Set(), file, name: file.name || "picture.png", picture, width, height, objects, segments, map });
  state.times = { ...answer.milliseconds, total };
  byId("drop").hidden = true;
  canvas.hidden = false;
  update();
}

function found() {
  const all = state.asMap ? state.segments : state.objects;
  return say(state.asMap ? "found_segments" : "found", state.shown.length, all.length - state.shown.length);
}

// Compute what is shown from score, classes and switches, and draw everything; asks nobody.
function update() {
  const passes = ({ score = 1, category_id }) => score >= state.score && !state.hidden.has(category_id);
  const segments = state.segments.filter(passes);
  state.shownObjects = state.objects.filter(passes);
  state.shownSegments = segments.filter(({ id }) => !state.off.has(id));
  state.listed = state.asMap ? segments : state.shownObjects;
  state.shown = state.asMap ? state.shownSegments : state.shownObjects;
  if (!state.shown.includes(state.selected)) Object.assign(state, { selected: null, heat: null });
  byId("score-value").textContent = `${Math.round(state.score * 100)}%`;
  showClasses(state, (id, on) => {
    state.hidden[on ? "delete" : "add"](id);
    change();
  });
  refresh();
}

function refresh() {
  showItems(state, select, (id, on) => {
    state.off[on ? "delete" : "add"](id);
    change();
  });
  showTimes(state.times);
  byId("json").value = coco(state);
  canvas.setAttribute("aria-label", say(state.asMap ? "canvas_map" : "canvas", state.shown.length, state.shown.map((object) => object.label).join(", ")));
  redraw();
}

function redraw() {
  if (state.picture) draw(canvas, { ...state, map: state.asMap ? state.map : null });
}

function change() {
  update();
  if (state.picture && message !== LIVE) tell(found);
}

async function select(object) {
  stopLive();
  if (!object || object === state.selected) {
    Object.assign(state, { selected: null, heat: null });
    change();
    return;
  }
  Object.assign(state, { selected: object, heat: null });
  refresh();
  if (!state.attention || typeof object.query !== "number") { // stuff may come from several queries
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

// The smallest shown box around a point of the canvas, or the segment there.
function itemAt(event) {
  const place = canvas.getBoundingClientRect();
  if (state.asMap) {
    const segment = segmentAt(state.map, state.segments, (event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height);
    return state.shown.includes(segment) ? segment : undefined;
  }
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
  byId("items-title").textContent = say(state.asMap ? "segments" : "objects");
  byId("hint").textContent = say(`${state.asMap ? "hint_map" : "hint"}${state.attention ? "" : "_plain"}`);
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
  byId("camera").addEventListener("click", () => openCamera({ use: look, watch, ended, fail: () => tell(() => say("no_camera"), true) }));
  byId("stop").addEventListener("click", stopLive);
  for (const id of ["as-map", "as-objects"]) {
    byId(id).addEventListener("change", () => {
      Object.assign(state, { asMap: byId("as-map").checked, selected: null, heat: null });
      translate();
      change();
    });
  }
  byId("score").addEventListener("input", () => {
    state.score = Number(byId("score").value);
    change();
  });
  byId("all").addEventListener("click", () => { state.hidden.clear(); change(); });
  byId("none").addEventListener("click", () => { state.hidden = new Set(state.categories.filter(({ predicted }) => predicted).map(({ id }) => id)); change(); });
  byId("copy").addEventListener("click", async () => {
    const copied = await copyText(byId("json"));
    tell(() => say(copied ? "copied" : "copy_failed"), !copied);
  });
  byId("language").addEventListener("click", () => { setLanguage(language === "zh" ? "en" : "zh"); translate(); });
  canvas.addEventListener("click", (event) => select(itemAt(event)));
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
  new ResizeObserver(redraw).observe(byId("stage"));
}

async function begin() {
  translate();
  listen();
  try {
    const about = await (await fetch("/api/model")).json();
    Object.assign(state, { categories: about.categories, attention: about.attention, device: about.device });
    Object.assign(state, { maxBytes: about.max_bytes, score: Math.max(about.threshold, about.min_score) });
    state.panoptic = about.panoptic ?? null;
    state.asMap = state.panoptic !== null;
    byId("view").hidden = !state.asMap;
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
