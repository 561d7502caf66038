// The picture with its boxes and masks, or its panoptic map, on the canvas, and where the model looked.

import { asCanvas, maskPicture, rgb } from "./masks.js";
import { mapPicture } from "./segments.js";

const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]]; // inferno
const TALL = 20, LETTERS = 28; // of a name on the picture
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
  const objects = view.selected ? [view.selected] : view.shown, upwards = [...objects].reverse();
  if (view.heat) drawHeat(pen, view.heat, wide, high);
  else if (view.map) {
    drawMap(pen, view, objects, wide, high);
    return;
  } else for (const object of upwards) drawMask(pen, object, wide, high);
  for (const object of upwards) drawBox(pen, object, scale);
  writeTags(pen, objects.map((object) => boxTag(pen, object, scale, wide)), wide, high);
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
  const tags = shown.filter(({ spot }) => spot).map((segment) => segmentTag(pen, segment, wide, high));
  writeTags(pen, tags.filter(({ room, segment }) => segment === selected || room <= segment.room * wide), wide, high);
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

// Names are cut, and stay whole words where they are written from right to left.
function tag(pen, { label, score, color }, wide) {
  const letters = [...label], name = letters.length > LETTERS ? `${letters.slice(0, LETTERS - 1).join("")}…` : label;
  const text = `\u2068${name}\u2069${score === undefined ? "" : ` ${Math.round(score * 100)}%`}`;
  pen.font = "600 13px system-ui, sans-serif";
  return { text, color, room: Math.min(pen.measureText(text).width + 10, wide) };
}

// A name above its box, or inside, or below.
function boxTag(pen, object, scale, wide) {
  const [left, top, , tall] = object.bbox.map((value) => value * scale);
  const tops = [...(top < TALL ? [] : [top - TALL]), Math.max(top, 0), top + tall];
  return { ...tag(pen, object, wide), left: left - 1, tops };
}

function segmentTag(pen, segment, wide, high) {
  const made = tag(pen, segment, wide), [x, y] = segment.spot;
  return { ...made, segment, left: x * wide - made.room / 2, tops: [y * high - TALL / 2] };
}

// Write the names, the best first; one that finds no free place is left out, the list holds it.
function writeTags(pen, tags, wide, high) {
  const taken = [];
  pen.textBaseline = "middle";
  pen.direction = "ltr";
  for (const { text, color, room, left, tops } of tags) {
    const x = Math.min(Math.max(left, 0), wide - room);
    const places = tops.map((top) => Math.max(Math.min(top, high - TALL), 0));
    const y = places.find((place) => taken.every((one) => x + room <= one.x || one.x + one.room <= x || Math.abs(place - one.y) >= TALL));
    if (y === undefined) continue;
    taken.push({ x, y, room });
    pen.fillStyle = color;
    pen.fillRect(x, y, room, TALL);
    pen.fillStyle = luminance(rgb(color)) > 0.179 ? "#000" : "#fff"; // whichever is easier to read
    pen.fillText(text, x + 5, y + TALL / 2 + 1, room - 10);
  }
}

// WCAG's relative luminance.
function luminance(color) {
  const [red, green, blue] = color.map((part) => (part <= 10 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
