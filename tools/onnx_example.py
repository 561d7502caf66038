"""Draw boxes with an exported detector; needs only NumPy, Pillow and onnxruntime, so this file can be copied anywhere.

python onnx_example.py detr.onnx photo.jpg boxes.png --threshold 0.7
"""

import argparse
import json
import os

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont, ImageOps

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def scaled(width: int, height: int, size: int, max_size: int) -> tuple[int, int]:
    """Width and height with a short side of `size`, or less if the long side would exceed `max_size`."""
    short, long = min(width, height), max(width, height)
    if long / short * size > max_size:
        size = max(1, round(max_size * short / long))
    if width < height:
        return size, int(size * height / width)
    return int(size * width / height), size


def detect(
    session: onnxruntime.InferenceSession, image: Image.Image, threshold: float
) -> list[tuple[str, float, list[float]]]:
    """(class name, score, box xyxy in pixels) of all objects with a score above `threshold`, highest first."""
    about = json.loads(session.get_modelmeta().custom_metadata_map["detr"])
    resized = image.resize(scaled(*image.size, about["size"], about["max_size"]), Image.Resampling.BILINEAR)
    pixels = (np.asarray(resized, dtype=np.float32) / 255 - MEAN) / STD  # [H, W, 3]
    inputs = {"image": pixels.transpose(2, 0, 1)[None], "mask": np.zeros((1, *pixels.shape[:2]), dtype=bool)}
    logits, boxes = (output[0] for output in session.run(["logits", "boxes"], inputs))  # [Q, C+1], [Q, 4]

    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = (exponents / exponents.sum(axis=1, keepdims=True))[:, :-1]  # the last one is "no object"
    labels, best = scores.argmax(axis=1), scores.max(axis=1)
    center, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = np.concatenate([center - half, center + half], axis=1) * (image.size * 2)  # [Q, 4]
    order = [query for query in np.argsort(-best) if best[query] > threshold]
    names = about["classes"]
    return [(names.get(str(labels[q]), str(labels[q])), float(best[q]), corners[q].tolist()) for q in order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="written by `python -m tools.export`")
    parser.add_argument("image", help="the image file to read")
    parser.add_argument("out", help="the picture to write")
    parser.add_argument("--threshold", type=float, default=0.5, help="minimum score of a box")
    parser.add_argument("--font", help="a TrueType font that has the letters of the class names")
    options = parser.parse_args()
    if os.path.exists(options.out) and os.path.samefile(options.image, options.out):
        parser.error(f"{options.out} is the image itself and would be overwritten")
    image = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(options.font, 12) if options.font else None
    for name, score, box in detect(onnxruntime.InferenceSession(options.model), image.copy(), options.threshold):
        shown = "".join(letter if letter.isprintable() else "?" for letter in name)  # a file may hold escape sequences
        print(f"{shown} {score:.3f} {[round(value, 1) for value in box]}")
        draw.rectangle(box, outline="red", width=2)
        draw.text((box[0] + 3, max(box[1], 0) + 2), f"{name} {score:.2f}", fill="red", font=font)
    image.save(options.out)


if __name__ == "__main__":
    main()
