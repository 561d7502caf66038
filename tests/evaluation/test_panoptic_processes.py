"""Panoptic quality computed by two processes equals that of one exactly."""

import json
import os
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.panoptic_eval import PanopticEvaluator
from tests.helpers.panoptic_files import map_of, segment, write_panoptic
from tests.helpers.panoptic_samples import prediction_of
from tests.helpers.processes import start, wait
from util.dist import init_distributed_mode

IMAGES = 7


def ground_truth(folder):
    samples = {}
    for number in range(1, IMAGES + 1):
        ids = map_of(
            (5, slice(None), slice(None)), (60, slice(number, 20), slice(3, 17)), (0, slice(25, 30), slice(0, 9))
        )
        areas = {key: int((ids == key).sum()) for key in (5, 60)}
        samples[number] = ids, [segment(5, category_id=2, area=areas[5]), segment(60, area=areas[60])]
    return write_panoptic(folder, samples)


def predicted(number, shift=2):
    ids = np.roll(map_of((1, slice(number, 20), slice(3, 17))), shift, axis=1)
    return prediction_of(number, ids, {0: 2, 1: 7})


def one_of_two(rank, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    init_distributed_mode(Namespace(device="cpu", dist_url=f"file://{folder}/meeting"))
    data = Path(folder, "data")
    evaluator = PanopticEvaluator(data / "panoptic.json", data / "maps", Path(folder, f"out{rank}"))
    for number in range(1 + rank, IMAGES + 1, 2):
        evaluator.update([predicted(number)])
    if rank == 1:
        evaluator.update([predicted(1, shift=9)])  # as a sampler repeats an image; that of the lower rank is kept
    evaluator.synchronize_between_processes()
    results = evaluator.summarize()
    facts = {"results": results, "per_class": evaluator.per_class(), "kept": len(evaluator._predictions)}
    incomplete = PanopticEvaluator(data / "panoptic.json", data / "maps", None)
    incomplete.update([predicted(1 + rank)])
    incomplete.synchronize_between_processes()
    try:
        incomplete.summarize()
    except ValueError as error:
        facts["error"] = str(error)
    Path(folder, f"facts{rank}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    ground_truth(folder / "data")
    assert wait(start(one_of_two, [(0, str(folder)), (1, str(folder))])) == [0, 0]
    return [json.loads((folder / f"facts{rank}.json").read_text()) for rank in (0, 1)], folder


def test_two_processes_get_the_numbers_of_one(pair):
    facts, folder = pair
    data = folder / "data"
    alone = PanopticEvaluator(data / "panoptic.json", data / "maps", folder / "alone")
    alone.update([predicted(number) for number in range(1, IMAGES + 1)])
    results = json.loads(json.dumps(alone.summarize()))
    assert 0.2 < results["All"]["pq"] < 1
    assert facts[0]["results"] == facts[1]["results"] == results
    assert facts[0]["per_class"] == facts[1]["per_class"] == alone.per_class()


def test_only_the_main_process_keeps_and_writes_the_predictions(pair):
    facts, folder = pair
    assert [each["kept"] for each in facts] == [IMAGES, 0]
    assert len(list((folder / "out0").glob("*.png"))) == IMAGES
    assert not (folder / "out1").exists()


def test_missing_predictions_are_an_error_on_all_processes(pair):
    assert ["predictions are missing for 5 of 7 images" in each["error"] for each in pair[0]] == [True, True]
