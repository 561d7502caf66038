// The picture of a file, upright as the detector saw it.

// Orientation in EXIF → the matrix that turns a picture of w × h pixels.
const MATRICES = {
  2: (w, h) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w, h) => [0, -1, 1, 0, 0, w],
};

// The WebP file with its chunk EXIF renamed, so that no browser turns the picture.
async function withoutExif(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  for (let place = 12; place + 8 <= bytes.length; ) {
    if (String.fromCharCode(...bytes.subarray(place, place + 4)) === "EXIF") bytes[place] = 0x58; // X
    const size = view.getUint32(place + 4, true);
    place += 8 + size + (size % 2);
  }
  return new Blob([bytes], { type: file.type });
}

// Browsers turn JPEG and PNG by their EXIF orientation, but not all do so with WebP. turn: its orientation, or 1.
export async function uprightPicture(file, turn) {
  if (!(turn in MATRICES)) return createImageBitmap(file);
  const stored = await createImageBitmap(await withoutExif(file));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = turn < 5 ? [stored.width, stored.height] : [stored.height, stored.width];
  const pen = canvas.getContext("2d");
  pen.setTransform(...MATRICES[turn](stored.width, stored.height));
  pen.drawImage(stored, 0, 0);
  return canvas;
}
