"""Loading: training's pipeline in its fast and its plain form, and a large annotation file beside pycocotools.

    python -m benchmarks.loading [--images 64] [--annotations 1000000] [--repeat 3]

The pictures are drawn: JPEG files of 640×480 whose spectrum falls as in photographs. One process reads them, applies
the published augmentation and pads batches of 2, on one thread. The annotation file has 120 images for every 1,000
annotations; each variant reads it in a process of its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO

import datasets.transforms as T
from benchmarks.common.machine import describe_machine
from benchmarks.common.results import Measurement, Row, write_rows
from datasets.coco import CocoDetection, make_coco_transforms
from datasets.loader import build_data_loader, set_epoch

BATCH = 2  # images, the published default
WIDTH, HEIGHT = 640, 480


def photograph(seed: int) -> Image.Image:
    """Random colours, 1 / f in the spatial frequency f."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    amplitude = 1 / np.maximum(frequency, 1 / WIDTH) ** 1.2
    phases = np.exp(2j * np.pi * rng.random((3, *amplitude.shape)))
    planes = np.fft.irfft2(amplitude * phases, s=(HEIGHT, WIDTH))
    planes = 128 + 45 * (planes - planes.mean()) / planes.std()
    return Image.fromarray(planes.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


def write_file(folder: Path, images: int, annotations: int) -> tuple[Path, Path]:
    """(folder of empty image files, annotation file), with boxes and polygons at random."""
    rng, pictures, ann_file = np.random.default_rng(0), folder / "images", folder / "annotations.json"
    pictures.mkdir()
    owners, classes = rng.integers(1, images + 1, annotations), rng.integers(1, 91, annotations)
    boxes = np.concatenate([rng.random((annotations, 2)) * [500, 350], 1 + rng.random((annotations, 2)) * 120], axis=1)
    entries = [{"id": n, "file_name": f"{n:012d}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, images + 1)]
    with ann_file.open("w") as file:
        file.write(f'{{"info": {{}}, "images": {json.dumps(entries)}, "annotations": [')
        for n, (x, y, w, h) in enumerate(boxes.round(2).tolist()):
            entry = {"id": n + 1, "image_id": int(owners[n]), "category_id": int(classes[n]), "bbox": [x, y, w, h]}
            outline = [[x, y, round(x + w, 2), y, round(x + w, 2), round(y + h, 2), x, round(y + h, 2)]]
            entry |= {"area": round(w * h, 2), "iscrowd": int(n % 100 == 0), "segmentation": outline}
            file.write(", " * (n > 0) + json.dumps(entry))
        categories = [{"id": n, "name": f"class {n}"} for n in range(1, 91)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    for entry in entries:
        (pictures / entry["file_name"]).touch()
    return pictures, ann_file


def pipelines(images: int, repeat: int) -> dict[str, list[float]]:
    """Processor seconds of each repetition; the two forms take turns."""
    fast = make_coco_transforms("train")
    forms = {"plain": T.Compose(fast.transforms), "fast": fast}
    with tempfile.TemporaryDirectory() as folder:
        pictures, ann_file = write_file(Path(folder), images, 7 * images)
        for n in range(1, images + 1):
            photograph(n).save(pictures / f"{n:012d}.jpg", quality=90)
        seconds = {name: [] for name in forms}
        for epoch in range(repeat + 1):
            for name, transforms in forms.items():
                data = CocoDetection(pictures, ann_file, transforms, False)
                loader = build_data_loader(data, BATCH, train=True)
                set_epoch(loader, epoch)
                start = time.process_time()
                for _ in loader:
                    pass
                seconds[name].append(time.process_time() - start)
    return {name: found[1:] for name, found in seconds.items()}  # the first is the warm-up


def read_annotations(variant: str, pictures: Path, ann_file: Path) -> dict[str, float]:
    """Processor seconds to read the file and to release the index, and bytes of this process, at most and then."""
    start = time.process_time()
    if variant == "pycocotools":
        kept = COCO(ann_file)
    else:
        kept = CocoDetection(pictures, ann_file, None, False)
    seconds = time.process_time() - start
    start = time.process_time()
    if variant != "pycocotools":
        kept.release_index()
    release = time.process_time() - start
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del kept
    return {"seconds": seconds, "release": release, "peak": peak, "after": pages * resource.getpagesize()}


def in_fresh_processes(annotations: int, repeat: int) -> dict[str, list[dict[str, float]]]:
    """`read_annotations` of both variants, which take turns, each time in a process of its own."""
    found = {"pycocotools": [], "as built": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_file(Path(folder), max(1, annotations * 12 // 100), annotations)
        for _ in range(repeat):
            for variant, runs in found.items():
                command = [sys.executable, "-m", "benchmarks.loading", "--read", variant, *map(str, paths)]
                runs.append(json.loads(subprocess.check_output(command, text=True).splitlines()[-1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--annotations", type=int, default=1_000_000, help="0 leaves this part out")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved repetitions; the medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there")
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)  # one variant, in a process of its own
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.read:
        print(json.dumps(read_annotations(args.read[0], *map(Path, args.read[1:]))))
        return
    row = Row("loading", "Loading: training's pipeline and annotation files, processor time, one thread")
    seconds = pipelines(args.images, args.repeat)
    slow, fast = (statistics.median(seconds[name]) for name in ("plain", "fast"))
    print(f"{args.images} pictures of {WIDTH}x{HEIGHT}: plain {slow:.3f} s, fast {fast:.3f} s, {slow / fast:.2f} times")
    for name, runs in seconds.items():
        row.measurements.append(Measurement(f"{name} pipeline, {args.images} pictures", [[run] for run in runs]))
    row.headline = f"plain transforms {slow / fast:.2f}×"
    if args.annotations:
        found = in_fresh_processes(args.annotations, args.repeat)
        for name, runs in found.items():
            peaks = [int(run["peak"]) for run in runs]
            after = statistics.median(run["after"] for run in runs) / 1e6
            took, release = (statistics.median(run[key] for run in runs) for key in ("seconds", "release"))
            work = f"{name}, {args.annotations:,} annotations"
            print(
                f"{work}: {took:.2f} s, {release:.2f} s to release it, peak {max(peaks) / 1e6:.0f} MB, then {after:.0f}"
            )
            values = {"MB afterwards": round(after), "seconds to release the index": round(release, 2)}
            row.measurements.append(Measurement(work, [[run["seconds"]] for run in runs], peaks, values))
    if args.json:
        row.machine = describe_machine()
        write_rows(args.json, [row])


if __name__ == "__main__":
    main()
