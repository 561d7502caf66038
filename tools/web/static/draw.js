// The picture with its boxes and masks, or its panoptic map, on the canvas, and where the model looked.

import { asCanvas, maskPicture, rgb } from "./masks.js";
import { mapPicture } from "./segments.js";

const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]]; // inferno
const TALL = 20; // of a name on the picture
const maskPictures = new WeakMap(); // object → its mask, drawn once
const mapPictures = new WeakMap(); // map → {shown, picture}, the last one drawn

function heatPicture({ width, height, cells }) {
  const picture = new ImageData(width, height);
  cells.forEach((value, cell) => {
    const place = (value / 255) * (HEAT.length - 1), low = Math.min(Math.floor(place), HEAT.length - 2);
    const color = HEAT[low].map((part, channel) => part + (HEAT[low + 1][channel] - part) * (place - low));
    picture.data.set([...color, 255], 4 * cell);
  });
  return asCanvas(picture);
}

// Fit the canvas to the room it has, and draw. view: {picture, width, height, shown, selected, heat}, and for a panoptic
// map {map, segments}; the pixels of boxes are those of width × height. Earlier objects are drawn on top.
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
  const objects = view.selected ? [view.selected] : [...view.shown].reverse();
  if (view.heat) drawHeat(pen, view.heat, wide, high);
  else if (view.map) {
    drawMap(pen, view, objects, wide, high);
    return;
  } else for (const object of objects) drawMask(pen, object, wide, high);
  for (const object of objects) drawBox(pen, object, scale);
  for (const object of objects) drawTag(pen, object, scale, wide, high);
}

function makeGrey(pen, wide, high) {
  pen.fillStyle = "#000";
  pen.globalCompositeOperation = "saturation";
  pen.fillRect(0, 0, wide, high);
  pen.globalCompositeOperation = "source-over";
}

function drawHeat(pen, heat, wide, high) {
  makeGrey(pen, wide, high);
  pen.globalAlpha = 0.55;
  pen.fillRect(0, 0, wide, high);
  pen.globalCompositeOperation = "lighter";
  pen.globalAlpha = 0.8;
  pen.drawImage(heatPicture(heat), 0, 0, wide, high);
  pen.globalCompositeOperation = "source-over";
  pen.globalAlpha = 1;
}

function drawMap(pen, { map, segments, selected }, shown, wide, high) {
  makeGrey(pen, wide, high); // so that the colours match the legend
  const before = mapPictures.get(map);
  const same = before?.shown.length === shown.length && before.shown.every((segment, place) => segment === shown[place]);
  const picture = same ? before.picture : mapPicture(map, segments, shown);
  mapPictures.set(map, { shown, picture });
  pen.drawImage(picture, 0, 0, wide, high);
  for (const segment of shown) {
    if (!segment.spot) continue;
    const text = tagText(segment), room = tagRoom(pen, text, wide);
    if (segment !== selected && room > segment.room * wide) continue; // the legend names it
    const [x, y] = segment.spot;
    writeTag(pen, segment.color, text, room, x * wide - room / 2, y * high - TALL / 2, wide, high);
  }
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
  const text = tagText(object), room = tagRoom(pen, text, wide);
  const above = object.bbox[1] * scale - TALL;
  const y = above < 0 ? Math.max(object.bbox[1] * scale, 0) : above;
  writeTag(pen, object.color, text, room, object.bbox[0] * scale - 1, y, wide, high);
}

const tagText = ({ label, score }) => (score === undefined ? label : `${label} ${Math.round(score * 100)}%`);

function tagRoom(pen, text, wide) {
  pen.font = "600 13px system-ui, sans-serif";
  return Math.min(pen.measureText(text).width + 10, wide);
}

function writeTag(pen, color, text, room, left, top, wide, high) {
  const x = Math.min(Math.max(left, 0), wide - room), y = Math.max(Math.min(top, high - TALL), 0);
  const [red, green, blue] = rgb(color);
  pen.fillStyle = color;
  pen.fillRect(x, y, room, TALL);
  pen.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#191a1e" : "#fff";
  pen.textBaseline = "middle";
  pen.fillText(text, x + 5, y + TALL / 2 + 1, room - 10);
}
