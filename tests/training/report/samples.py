"""The folder of a small run with an evaluation, for tests of its report."""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.report import write_evaluation
from main import get_args_parser
from tests.helpers.coco_samples import evaluated, made_ground_truth, perturbed
from training.report.facts import command_of, settings_of
from util.files import append_json_line, write_json


def write_run(folder: Path, *, epochs: int = 3, masks: bool = False, names: dict[int, str] | None = None) -> Path:
    """Write `folder/run` with a log, an evaluation and its settings, and `folder/images`; returns the run's folder."""
    images, run = folder / "images", folder / "run"
    images.mkdir(parents=True)
    coco = made_ground_truth(images=9)
    random = np.random.default_rng(0)
    for image_id, image in coco.imgs.items():
        image["file_name"] = f"{image_id}.jpg"
        pixels = random.integers(0, 255, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / image["file_name"])
    for category_id, name in (names or {}).items():
        coco.cats[category_id]["name"] = name
    predictions = perturbed(coco, most=12, masks=masks)
    evaluator = evaluated(coco, predictions, "auto", ("bbox", "segm") if masks else ("bbox",))
    write_evaluation(run, evaluator, epoch=epochs - 1, batch_size=2)
    figure = io.BytesIO()
    Image.new("RGB", (60, 40), "white").save(figure, format="PNG")
    for name in ("pr_curves", "f1", "confusion"):
        (run / "eval" / f"{name}.png").write_bytes(figure.getvalue())
    for epoch in range(epochs):
        stats = evaluator.coco_eval["bbox"].stats.tolist()
        append_json_line(
            run / "log.txt",
            {
                "epoch": epoch,
                "train_loss": 9.0 - epoch,
                "test_loss": 10.0 - epoch,
                "train_lr": 1e-4,
                "test_coco_eval_bbox": stats,
            },
        )
    write_facts(run, images)
    return run


def write_facts(run: Path, images: Path, **more: object) -> None:
    """Write `eval/run.json` of a run with two settings other than the defaults."""
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args(["--lr", "0.5", "--coco_path", "my data"])
    settings = settings_of(args)
    data = {"images": 12, "objects": 40, "classes": 5, "folder": str(images), "annotations": "a.json"}
    write_json(
        run / "eval" / "run.json",
        {
            "command": "python main.py --lr 0.5",
            "equal_command": command_of(settings),
            "settings": settings,
            "evaluates": ["bbox"],
            "data": {"val": data | {"fingerprint": "2:0123abcd"}},
            "versions": {"python": "3.11"},
            **more,
        },
    )
