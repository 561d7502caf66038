// COCO's compressed run lengths → a small picture of the mask in one colour.

const LONGEST = 1024; // the longer side of the small picture

export const rgb = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));

// The lengths of the runs, of 0 and 1 in turn, column by column (pycocotools' rleFrString).
export function runs(counts) {
  const lengths = [];
  let place = 0;
  while (place < counts.length) {
    let value = 0, shift = 0, code;
    do {
      code = counts.charCodeAt(place++) - 48;
      value += (code & 31) * 2 ** shift;
      shift += 5;
    } while (code & 32 && place < counts.length);
    if (code & 16) value -= 2 ** shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  return lengths;
}

// Call paint(cell) for the cells of a grid, numbered row by row, whose middle is in the mask.
export function sample({ size: [height, width], counts }, columns, rows, paint) {
  const lengths = runs(counts);
  let run = 0, end = lengths[0] ?? width * height, before = { start: -1 };
  for (let column = 0; column < columns; column++) {
    const start = Math.floor(((column + 0.5) * width) / columns) * height;
    if (start === before.start) ({ run, end } = before); // the same column of a small mask once more
    else before = { start, run, end };
    for (let row = 0; row < rows; row++) {
      const pixel = start + Math.floor(((row + 0.5) * height) / rows);
      while (pixel >= end && run + 1 < lengths.length) end += lengths[++run];
      if (run % 2) paint(row * columns + column);
    }
  }
}

// An ImageData as a canvas, which can be drawn at any size.
export function asCanvas(picture) {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// A canvas with the mask in [red, green, blue], reduced by taking every nth pixel.
export function maskPicture(mask, [red, green, blue]) {
  const [height, width] = mask.size;
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const columns = Math.max(1, Math.round(width * scale)), rows = Math.max(1, Math.round(height * scale));
  const picture = new ImageData(columns, rows);
  sample(mask, columns, rows, (cell) => picture.data.set([red, green, blue, 255], 4 * cell));
  return asCanvas(picture);
}
