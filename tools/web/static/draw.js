// The picture with its boxes and masks on the canvas, and where the model looked.

import { maskPicture } from "./masks.js";

const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]]; // inferno
const maskPictures = new WeakMap(); // object → its mask, drawn once

export const rgb = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));

function heatPicture({ width, height, cells }) {
  const picture = new ImageData(width, height);
  cells.forEach((value, cell) => {
    const place = (value / 255) * (HEAT.length - 1), low = Math.min(Math.floor(place), HEAT.length - 2);
    const color = HEAT[low].map((part, channel) => part + (HEAT[low + 1][channel] - part) * (place - low));
    picture.data.set([...color, 255], 4 * cell);
  });
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// Fit the canvas to the room it has, and draw. view: {picture, width, height, shown, selected, heat}; the pixels of boxes
// are those of width × height. Earlier objects are drawn on top.
export function draw(canvas, view) {
  const room = canvas.parentElement.clientWidth - 30;
  const scale = Math.min(room / view.width, (window.innerHeight * 0.72) / view.height);
  const wide = Math.max(1, Math.round(view.width * scale)), high = Math.max(1, Math.round(view.height * scale));
  const density = Math.min(window.devicePixelRatio || 1, 3);
  canvas.style.width = `${wide}px`;
  canvas.style.height = `${high}px`;
  canvas.width = Math.round(wide * density);
  canvas.height = Math.round(high * density);
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  pen.imageSmoothingQuality = "high";
  if (view.picture) pen.drawImage(view.picture, 0, 0, wide, high);
  if (view.heat) {
    pen.fillStyle = "#000";
    pen.globalCompositeOperation = "saturation"; // grey
    pen.fillRect(0, 0, wide, high);
    pen.globalCompositeOperation = "source-over";
    pen.globalAlpha = 0.55;
    pen.fillRect(0, 0, wide, high);
    pen.globalCompositeOperation = "lighter";
    pen.globalAlpha = 0.8;
    pen.drawImage(heatPicture(view.heat), 0, 0, wide, high);
    pen.globalCompositeOperation = "source-over";
    pen.globalAlpha = 1;
  }
  const objects = view.selected ? [view.selected] : [...view.shown].reverse();
  if (!view.heat) for (const object of objects) drawMask(pen, object, wide, high);
  for (const object of objects) drawBox(pen, object, scale);
  for (const object of objects) drawTag(pen, object, scale, wide, high);
}

function drawMask(pen, object, wide, high) {
  if (!object.segmentation) return;
  if (!maskPictures.has(object)) maskPictures.set(object, maskPicture(object.segmentation, rgb(object.color)));
  pen.globalAlpha = 0.45;
  pen.drawImage(maskPictures.get(object), 0, 0, wide, high);
  pen.globalAlpha = 1;
}

function drawBox(pen, object, scale) {
  const box = object.bbox.map((value) => value * scale);
  pen.lineJoin = "round";
  for (const [color, line] of [["rgb(0 0 0 / .65)", 4.5], [object.color, 2.5]]) {
    pen.strokeStyle = color;
    pen.lineWidth = line;
    pen.strokeRect(...box);
  }
}

function drawTag(pen, object, scale, wide, high) {
  const text = `${object.label} ${Math.round(object.score * 100)}%`;
  pen.font = "600 13px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const room = Math.min(pen.measureText(text).width + 10, wide), tall = 20;
  const x = Math.min(Math.max(object.bbox[0] * scale - 1, 0), wide - room);
  const above = object.bbox[1] * scale - tall;
  const y = Math.min(above < 0 ? Math.max(object.bbox[1] * scale, 0) : above, high - tall);
  const [red, green, blue] = rgb(object.color);
  pen.fillStyle = object.color;
  pen.fillRect(x, y, room, tall);
  pen.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#191a1e" : "#fff";
  pen.fillText(text, x + 5, y + tall / 2 + 1, room - 10);
}
