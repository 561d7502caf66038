// What stands beside the picture: classes, objects, times, JSON.

import { say } from "./words.js";

const byId = (id) => document.getElementById(id);

function element(tag, text = "", properties = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  return Object.assign(made, properties);
}

function dot(color) {
  const made = element("span", "", { className: "dot" });
  made.style.background = color;
  return made;
}

const classLabels = new Map(); // category id → its toggle

// A toggle for each class; those found in the picture come first. Toggles and rows stay the same elements, so that focus
// and clicks are not lost while live pictures arrive.
export function showClasses(state, change) {
  const found = new Set(state.objects.map(({ category_id }) => category_id));
  const order = state.categories.filter(({ predicted }) => predicted);
  if (!state.live) order.sort((a, b) => found.has(b.id) - found.has(a.id));
  const labels = order.map((category) => {
    if (!classLabels.has(category.id)) classLabels.set(category.id, classLabel(category, change));
    const label = classLabels.get(category.id);
    label.className = found.has(category.id) || !state.picture ? "" : "empty";
    label.firstChild.checked = !state.hidden.has(category.id);
    return label;
  });
  const { children } = byId("classes");
  if (labels.some((label, place) => children[place] !== label)) keepFocus(() => byId("classes").replaceChildren(...labels));
}

function classLabel({ id, color, label: name }, change) {
  const label = element("label"), box = element("input", "", { type: "checkbox" });
  box.addEventListener("change", () => change(id, box.checked));
  label.append(box, dot(color), element("bdi", name));
  return label;
}

function keepFocus(work) {
  const focused = document.activeElement;
  work();
  focused?.focus();
}

const percent = (share) => (share > 0 && share < 0.005 ? "<1%" : `${Math.round(share * 100)}%`);

// The objects, or the segments of the map, each of which can be switched off.
export function showItems(state, select, change) {
  const list = byId("objects");
  while (list.children.length > state.listed.length) list.lastChild.remove();
  state.listed.forEach((one, place) => {
    if (place === list.children.length) list.append(itemRow());
    const [label, button] = list.children[place].children, { asMap } = state, off = asMap && state.off.has(one.id);
    const [colored, name, score] = button.children, box = label.firstChild;
    label.hidden = !asMap;
    box.checked = !off;
    box.setAttribute("aria-label", say("show", one.label));
    box.onchange = () => change(one.id, box.checked);
    button.disabled = off;
    button.setAttribute("aria-pressed", String(one === state.selected));
    button.onclick = () => select(one);
    colored.style.background = one.color;
    name.firstChild.textContent = one.label;
    name.lastChild.textContent = asMap ? say(one.isthing ? "thing" : "stuff", percent(one.area / (state.width * state.height))) : "";
    score.textContent = one.score === undefined ? "" : percent(one.score);
  });
  const all = state.asMap ? state.segments : state.objects;
  byId("count").textContent = state.picture ? say("shown", state.shown.length, all.length) : "";
  byId("hint").hidden = Boolean(state.picture) && !state.listed.length;
  byId("empty").textContent = state.asMap && state.picture && !all.length ? say("no_segments", percent(state.panoptic)) : "";
}

function itemRow() {
  const row = element("li"), label = element("label", "", { className: "show" });
  label.append(element("input", "", { type: "checkbox" }));
  const button = element("button", "", { type: "button" }), name = element("span", "", { className: "name" });
  name.append(element("bdi"), element("span", "", { className: "quiet" }));
  button.append(dot("#888888"), name, element("span"));
  row.append(label, button);
  return row;
}

export function showTimes(times) {
  const rows = Object.entries(times).flatMap(([name, milliseconds]) => {
    const className = name === "total" ? "total" : "";
    const value = `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
    return [element("dt", say(name), { className }), element("dd", value, { className })];
  });
  byId("times").replaceChildren(...rows);
}

// The shown objects as predict.py writes them to detections.json; with a map also its shown segments, whose pixels stand
// in `segmentation` instead of a PNG file.
export function coco(state) {
  if (!state.picture) return "";
  const image = { id: 1, file_name: state.name, width: state.width, height: state.height };
  const annotations = state.shownObjects.map(({ query, label, color, ...result }, index) =>
    ({ id: index + 1, image_id: 1, iscrowd: 0, ...result }));
  const categories = state.categories.map(({ label, color, predicted, ...category }) => category);
  const info = state.shownSegments.map(({ id, category_id, isthing, area, bbox, iscrowd, segmentation, score }) =>
    ({ id, category_id, isthing, area, bbox, iscrowd, segmentation, score }));
  const segments_info = state.panoptic === null ? undefined : info;
  return JSON.stringify({ images: [image], annotations, segments_info, categories }, null, 1);
}

export async function copyText(field) {
  if (navigator.clipboard?.writeText) {
    try {
      await navigator.clipboard.writeText(field.value);
      return true;
    } catch { /* not allowed: the older way may be */ }
  }
  field.select();
  return document.execCommand("copy");
}
