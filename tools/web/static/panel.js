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

// A toggle for each class; those found in the picture come first.
export function showClasses(state, change) {
  const found = new Map();
  for (const object of state.objects) found.set(object.category_id, (found.get(object.category_id) ?? 0) + 1);
  const order = state.categories.filter(({ predicted }) => predicted).sort((a, b) => found.has(b.id) - found.has(a.id));
  const labels = order.map((category) => {
    const label = element("label", "", { className: found.has(category.id) || !state.picture ? "" : "empty" });
    const box = element("input", "", { type: "checkbox", checked: !state.hidden.has(category.id) });
    box.addEventListener("change", () => change(category.id, box.checked));
    label.append(box, dot(category.color), element("bdi", category.label));
    return label;
  });
  byId("classes").replaceChildren(...labels);
}

export function showObjects(state, select) {
  const focused = document.activeElement?.dataset?.query;
  const items = state.shown.map((object) => {
    const button = element("button", "", { type: "button" });
    button.dataset.query = object.query;
    button.setAttribute("aria-pressed", String(object === state.selected));
    button.append(dot(object.color), element("bdi", object.label), element("span", `${Math.round(object.score * 100)}%`));
    button.addEventListener("click", () => select(object));
    const item = element("li");
    item.append(button);
    return item;
  });
  byId("objects").replaceChildren(...items);
  if (focused !== undefined) byId("objects").querySelector(`[data-query="${focused}"]`)?.focus();
  byId("count").textContent = state.picture ? say("shown", state.shown.length, state.objects.length) : "";
}

export function showTimes(times) {
  const rows = Object.entries(times).flatMap(([name, milliseconds]) => {
    const className = name === "total" ? "total" : "";
    const value = `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
    return [element("dt", say(name), { className }), element("dd", value, { className })];
  });
  byId("times").replaceChildren(...rows);
}

// The shown objects as predict.py writes them to detections.json.
export function coco(state) {
  if (!state.picture) return "";
  const image = { id: 1, file_name: state.name, width: state.width, height: state.height };
  const annotations = state.shown.map(({ query, label, color, ...result }, index) =>
    ({ id: index + 1, image_id: 1, iscrowd: 0, ...result }));
  const categories = state.categories.map(({ label, color, predicted, ...category }) => category);
  return JSON.stringify({ images: [image], annotations, categories }, null, 1);
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
