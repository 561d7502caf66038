// COCO's compressed run lengths → a small picture of the mask in one colour.

const LONGEST = 1024; // the longer side of the small picture

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

// A canvas with the mask in [red, green, blue], reduced by taking every nth pixel.
export function maskPicture({ size: [height, width], counts }, [red, green, blue]) {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const columns = Math.max(1, Math.round(width * scale)), rows = Math.max(1, Math.round(height * scale));
  const picture = new ImageData(columns, rows);
  const lengths = runs(counts);
  let run = 0, end = lengths[0] ?? width * height;
  for (let column = 0; column < columns; column++) {
    const start = Math.floor(((column + 0.5) * width) / columns) * height;
    for (let row = 0; row < rows; row++) {
      const pixel = start + Math.floor(((row + 0.5) * height) / rows);
      while (pixel >= end && run + 1 < lengths.length) end += lengths[++run];
      if (run % 2) picture.data.set([red, green, blue, 255], 4 * (row * columns + column));
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}
