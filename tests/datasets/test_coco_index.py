"""The index over a data set's annotations: released in training, read again when it is asked for."""

import pytest
import torch

from datasets.coco import CocoDetection
from datasets.loader import fingerprint
from tests.helpers.coco_files import annotation, captured_warnings, write_coco


@pytest.fixture
def logged():
    with captured_warnings() as messages:
        yield messages


def dataset(tmp_path, annotations, return_masks=False):
    return CocoDetection(*write_coco(tmp_path, annotations), None, return_masks)


def test_a_data_set_without_its_index_gives_the_same_samples_and_reads_it_again(tmp_path, logged):
    boxes = [
        annotation(1, 1, [4, 5, 10, 12]),
        annotation(2, 1, [1, 1, 5, 5], iscrowd=1),
        annotation(3, 2, [2, 2, 6, 90]),
    ]
    data = dataset(tmp_path, boxes)
    index, before, samples = data.coco, fingerprint(data), [data[k][1] for k in range(len(data))]
    data.release_index()
    assert fingerprint(data) == before
    for k, target in enumerate(samples):
        assert all(torch.equal(data[k][1][name], value) for name, value in target.items())
    logged.clear()
    assert data.coco is not index and data.coco.anns == index.anns and data.coco.imgs is data.images
    assert data.coco is data.coco and logged == []


def test_the_index_stays_where_masks_are_drawn_from_it(tmp_path):
    square = [[4, 5, 14, 5, 14, 17, 4, 17]]
    data = dataset(tmp_path, [annotation(1, 1, [4, 5, 10, 12], segmentation=square)], return_masks=True)
    index = data.coco
    data.release_index()
    assert data.coco is index
