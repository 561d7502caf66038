"""Two processes compared with one: what is equal, and what differs as in the published code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import engine
import main
from datasets import build_dataset
from datasets.shapes import THINGS, Segment, draw_scene
from datasets.transforms import ToTensor
from engine import weighted_sum
from models import build_model
from tests.helpers.paths import REPOSITORY
from tests.helpers.processes import run_together, start, wait
from tests.helpers.runs import flags, parse
from training.optim import build_optimizer
from util.checkpoint import load_checkpoint
from util.nested_tensor import collate_fn
from util.rng import seed_everything

QUERIES = 6
SHIPPED = REPOSITORY / "weights" / "detr_tiny_shapes.pth"
WIDTHS = (64, 80, 100, 64, 72)  # of the validation pictures, 64 pixels high: an odd number of them
BOXES = {"equal": (2, 2), "unequal": (1, 4), "one_empty": (0, 3)}  # objects of the two training pictures


def draw(rng: np.random.Generator, count: int | None) -> tuple[Image.Image, list[Segment]]:
    """A picture with `count` objects (None: any number). If `count` is 0, there are objects without annotations."""
    while True:
        picture, segments = draw_scene(rng, 64)
        things = [segment for segment in segments if segment.category_id <= len(THINGS)]
        if count in (None, 0, len(things)):
            return picture, [] if count == 0 else things


def write_split(
    folder: Path, split: str, widths: tuple[int, ...], counts: tuple[int | None, ...] | None = None
) -> None:
    """Pictures widths[i] pixels wide with counts[i] objects on the left."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / f"{split}2017").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (width, count) in enumerate(zip(widths, counts or [None] * len(widths))):
        scene, things = draw(rng, count)
        picture = Image.new("RGB", (width, 64), (90, 90, 90))
        picture.paste(scene)
        picture.save(folder / f"{split}2017" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": 64})
        for thing in things:
            y, x = (np.flatnonzero(thing.mask.any(axis=axis)) for axis in (1, 0))
            box = [int(x[0]), int(y[0]), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
            facts = {"category_id": thing.category_id, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, **facts})
    categories = [{"id": thing["id"], "name": thing["name"]} for thing in THINGS]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def compute_in_float64() -> Callable[..., Any]:
    """Models and images in float64 from now on; returns what `ToTensor` did before.

    These models are new, and their gradients steep: in float32, rounding moves activations across the kink of a ReLU,
    and the gradient by up to 4%.
    """
    torch.set_default_dtype(torch.float64)
    to_tensor = ToTensor.__call__

    def to_float64(self: ToTensor, *sample: Any) -> Any:
        image, target = to_tensor(self, *sample)
        return image.double(), target

    ToTensor.__call__ = to_float64
    return to_tensor


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    """All of this module, in every process."""
    to_tensor = compute_in_float64()
    yield
    ToTensor.__call__ = to_tensor
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`known`: pictures to evaluate, of the kind that the shipped weights know; others: two training pictures of equal
    size.
    """
    folder = tmp_path_factory.mktemp("data")
    write_split(folder / "known", "val", WIDTHS)
    for name, counts in BOXES.items():
        write_split(folder / name, "train", (64, 64), counts)
        write_split(folder / name, "val", (64,))
    return {path.name: path for path in folder.iterdir()}


@dataclass
class Results:
    """The folder of all runs, and the exit code and output of both ranks of each run of two processes."""

    folder: Path
    output: dict[str, list[tuple[int, str]]]

    def record(self, name: str) -> dict[str, Any]:
        """The last line of the log."""
        return json.loads((self.folder / name / "log.txt").read_text().splitlines()[-1])

    def stats(self, name: str) -> list[float]:
        """The 12 numbers of the last evaluation."""
        return json.loads((self.folder / name / "eval" / "per_class.json").read_text())["stats"]

    def gradient(self, name: str) -> Tensor:
        """The gradient of the first step, of all parameters in a row, from Adam's first average."""
        states = load_checkpoint(self.folder / name / "checkpoint.pth")["optimizer"]["state"]
        return torch.cat([states[index]["exp_avg"].flatten() for index in sorted(states)]) / (1 - 0.9)


@pytest.fixture(scope="module")
def results(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """All runs that the tests compare, by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    evaluate = ["--coco_path", str(data["known"]), "--eval", "--resume", str(SHIPPED), "--batch_size", "1"]
    evaluate += ["--device", "cpu", "--num_workers", "0"]
    alone, pair = {"eval_1x1": evaluate}, {"eval_2x1": evaluate}
    first_step = ["--max_steps", "1", "--clip_max_norm", "0", "--num_queries", str(QUERIES), "--batch_size"]
    for name in ("equal", "unequal"):
        alone[f"{name}_1x2"] = flags(data[name], *first_step, "2")
        pair[f"{name}_2x1"] = flags(data[name], *first_step, "1")
    pair["one_empty_2x1"] = flags(data["one_empty"], *first_step, "1", "--no_aux_loss")
    pair["bn_2x1"] = flags(data["unequal"], *first_step, "1", "--backbone_norm", "bn")
    for name, command in alone.items():
        assert main.run([*command, "--output_dir", str(folder / name)]) == 0
    commands = [[*command, "--output_dir", str(folder / name)] for name, command in pair.items()]
    output = dict(zip(pair, run_together(2, commands, folder / "pair", compute_in_float64)))
    assert {code for outcomes in output.values() for code, _ in outcomes} == {0}, output
    return Results(folder, output)


def test_two_processes_get_exactly_the_ap_of_one_for_an_odd_number_of_images(results: Results):
    assert results.stats("eval_1x1")[0] > 0.3  # the model detects objects
    assert results.stats("eval_2x1") == results.stats("eval_1x1")


@pytest.mark.parametrize("name", ["equal", "unequal"])
def test_box_losses_of_the_first_step_do_not_depend_on_the_number_of_processes(name: str, results: Results):
    two, one = results.record(f"{name}_2x1"), results.record(f"{name}_1x2")
    compared = [key for key in one if key.startswith(("train_loss_bbox", "train_loss_giou"))]
    assert len(compared) == 8  # of two layers, weighted and unweighted
    assert {key: two[key] for key in compared} == pytest.approx({key: one[key] for key in compared}, rel=1e-5)


def test_equal_numbers_of_boxes_on_both_ranks_give_the_loss_and_gradient_of_one_process(results: Results):
    two, one = results.record("equal_2x1"), results.record("equal_1x2")
    for key in ("train_loss", "train_loss_ce", "train_loss_ce_0"):
        assert two[key] == pytest.approx(one[key], rel=1e-5), key
    _assert_same_gradient(results.gradient("equal_2x1"), results.gradient("equal_1x2"))


def by_hand(
    data: Path, *more: str, checkpoint: Path | None = None, split: str = "train"
) -> tuple[list[nn.Parameter], dict[str, float], list[dict[str, Tensor]], list[int]]:
    """Parameters in the optimizer's order, weights of the losses, and each picture's losses and number of boxes."""
    args = parse(data, "--num_queries", str(QUERIES), "--num_classes", "4", *more)
    dataset = build_dataset(split, args)
    seed_everything(args.seed)
    model, criterion, _ = build_model(args)
    model.to(memory_format=torch.channels_last).train(split == "train")
    if checkpoint is not None:
        model.load_state_dict(load_checkpoint(checkpoint)["model"])
    parameters = [p for group in build_optimizer(model, args).param_groups for p in group["params"]]
    batches = [collate_fn([sample]) for sample in (dataset[index] for index in range(len(dataset)))]
    losses = [criterion(model(samples), targets) for samples, targets in batches]
    return parameters, criterion.weight_dict, losses, [len(targets[0]["labels"]) for _, targets in batches]


def test_unequal_numbers_of_boxes_change_the_classification_loss_as_in_the_published_code(
    results: Results, data: dict[str, Path]
):
    """Each rank computes a mean in which an object weighs 1 and "no object" 0.1; the ranks' means weigh the same.

    One process computes a single such mean over both pictures, so that the picture with more objects weighs more. In
    both cases box losses are sums divided by the total number of boxes.
    """
    parameters, weight_dict, losses, boxes = by_hand(data["unequal"])
    assert boxes == list(BOXES["unequal"])
    shares = {
        "unequal_2x1": [0.5, 0.5],
        "unequal_1x2": [(n + 0.1 * (QUERIES - n)) / (sum(boxes) + 0.1 * (2 * QUERIES - sum(boxes))) for n in boxes],
    }
    means = {}
    for name, share in shares.items():
        mean = {key: sum(part * loss[key] for part, loss in zip(share, losses)) for key in losses[0]}
        for key in losses[0]:
            if key.startswith(("loss_bbox", "loss_giou")):  # means over a picture's own boxes
                mean[key] = sum(n * loss[key] for n, loss in zip(boxes, losses)) / sum(boxes)
        record, means[name] = results.record(name), mean["loss_ce"].item()
        for key in weight_dict:
            assert record[f"train_{key}_unscaled"] == pytest.approx(mean[key].item(), rel=1e-5), (name, key)
        total = weighted_sum(mean, weight_dict)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters, retain_graph=True)])
        _assert_same_gradient(results.gradient(name), gradient)
    assert abs(means["unequal_2x1"] - means["unequal_1x2"]) > 0.01
    two, one = results.gradient("unequal_2x1"), results.gradient("unequal_1x2")
    assert (two - one).norm() > 0.01 * one.norm()


def test_a_rank_without_objects_can_train(results: Results):
    record = results.record("one_empty_2x1")
    assert record["train_loss_bbox_unscaled"] > 0
    assert "train_loss_bbox_0" not in record  # without auxiliary losses every parameter still has a gradient
    assert torch.isfinite(results.gradient("one_empty_2x1")).all()


def test_batch_norm_is_evaluated_on_all_ranks_with_the_statistics_that_are_saved(
    results: Results, data: dict[str, Path]
):
    """Each rank normalises by its own batch; all ranks use the running statistics of rank 0.

    Both ranks evaluate the only picture, so that other statistics on rank 1 would change the mean.
    """
    saved = results.folder / "bn_2x1" / "checkpoint.pth"
    with torch.no_grad():
        _, _, losses, _ = by_hand(data["unequal"], "--backbone_norm", "bn", checkpoint=saved, split="val")
    assert results.record("bn_2x1")["test_loss_ce_unscaled"] == pytest.approx(losses[0]["loss_ce"].item(), rel=1e-5)


def test_only_the_first_process_reports(results: Results):
    for name, ((_, first), (_, second)) in results.output.items():
        assert "Averaged stats" in first, name
        assert second == "", name


def lose_the_second(rank: int, folder: str, command: list[str]) -> None:
    """Two processes train; the second one exits in the middle of its second step."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    seen: list[None] = []
    check = engine.check_targets

    def count(*args: Any) -> Any:
        seen.append(None)
        if rank == 1 and len(seen) == 2:
            os._exit(9)
        return check(*args)

    engine.check_targets = count
    with Path(folder, f"error{rank}.txt").open("w") as file, redirect_stderr(file):
        code = main.run([*command, "--dist_url", f"file://{folder}/meeting"])
    os._exit(code)


def test_a_lost_process_ends_the_others_with_one_sentence(data: dict[str, Path], tmp_path: Path):
    command = flags(data["equal"], "--batch_size", "1", "--epochs", "3")
    codes = wait(start(lose_the_second, [(rank, str(tmp_path), command) for rank in range(2)]))
    assert codes == [1, 9]
    lines = (tmp_path / "error0.txt").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error (process 0): communication with the other processes failed (")
    assert lines[0].endswith("run the same command with --resume auto to continue")


def _assert_same_gradient(one: Tensor, other: Tensor) -> None:
    assert one.norm() > 1 and one.dtype == torch.float64
    assert (one - other).norm() < 1e-9 * other.norm()
