// The panoptic map: to which segment each point belongs, and its picture.

import { asCanvas, rgb, sample } from "./masks.js";

const LONGEST = 1024; // cells along the longer side of the map
const OPACITY = { thing: 0.7, stuff: 0.55 }; // as in predict.py's pictures

// {columns, rows, cells}: a cell holds 1 + the place of its segment in `segments`, 0 in no segment. Each segment gets
// `room`, the length of its longest row, and `spot`, the middle of it and of equal rows below, as fractions of the picture.
export function segmentMap(segments, width, height) {
  const scale = LONGEST / Math.max(width, height);
  const columns = Math.max(1, Math.round(width * scale)), rows = Math.max(1, Math.round(height * scale));
  const cells = new Uint16Array(columns * rows);
  segments.forEach((segment, place) => sample(segment.segmentation, columns, rows, (cell) => { cells[cell] = place + 1; }));
  const longest = segments.map(() => ({ length: 0 }));
  for (let row = 0; row < rows; row++) {
    for (let column = 0, start = 0; column < columns; column++) {
      const owner = cells[row * columns + column], best = longest[owner - 1];
      if (column + 1 < columns && cells[row * columns + column + 1] === owner) continue;
      const length = column + 1 - start;
      if (length > best?.length) Object.assign(best, { length, start, top: row, bottom: row });
      else if (length === best?.length && start === best.start && row === best.bottom + 1) best.bottom = row;
      start = column + 1;
    }
  }
  longest.forEach(({ length, start, top, bottom }, place) => {
    const spot = length ? [(start + length / 2) / columns, (top + bottom + 1) / 2 / rows] : null;
    Object.assign(segments[place], { room: length / columns, spot });
  });
  return { columns, rows, cells };
}

// The segment at a point, given as fractions of the picture.
export function segmentAt({ columns, rows, cells }, segments, x, y) {
  const column = Math.min(Math.max(Math.floor(x * columns), 0), columns - 1);
  const row = Math.min(Math.max(Math.floor(y * rows), 0), rows - 1);
  return segments[cells[row * columns + column] - 1];
}

// A canvas with the shown segments in their colours and white lines between them.
export function mapPicture({ columns, rows, cells }, segments, shown) {
  const picture = new ImageData(columns, rows), { data } = picture;
  const paints = [null, ...segments.map((segment) => shown.includes(segment)
    && [...rgb(segment.color), Math.round(255 * OPACITY[segment.isthing ? "thing" : "stuff"])])];
  for (let cell = 0; cell < cells.length; cell++) {
    const own = paints[cells[cell]];
    const right = (cell + 1) % columns ? cells[cell + 1] : cells[cell], below = cells[cell + columns] ?? cells[cell];
    const edge = (right !== cells[cell] && (own || paints[right])) || (below !== cells[cell] && (own || paints[below]));
    if (edge) data.fill(255, 4 * cell, 4 * cell + 4);
    else if (own) for (let channel = 0; channel < 4; channel++) data[4 * cell + channel] = own[channel];
  }
  return asCanvas(picture);
}
