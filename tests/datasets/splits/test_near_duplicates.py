"""Which pictures belong together: copies, frames of a video, exports of one picture; and which do not."""

import json

import pytest

from datasets.splits.near_duplicates import (
    groups_of_near_duplicates,
    hash_files,
    likeness_limits,
    perceptual_hash,
    sequence_key,
    sequence_number,
)
from datasets.splits.perceptual_hash import distance
from tests.datasets.splits.scenes import scene
from tests.helpers.paths import SHARED_DATA

FAR = [perceptual_hash(scene(seed)) for seed in range(12)]


def video(seed: int, frames: int, step: int = 4) -> list[int]:
    """Hashes of frames of a camera that moves `step` pixels of 160 between them."""
    return [perceptual_hash(scene(seed, shift=step * frame)) for frame in range(frames)]


@pytest.mark.parametrize(
    ("name", "key", "number"),
    [
        ("clip_001.jpg", "./clip_#", 1),
        ("a/clip_001.jpg", "a/clip_#", 1),
        ("b\\clip_12.jpg", "b/clip_#", 12),
        ("cam2_frame17_left.png", "./cam2_frame#_left", 17),
        ("000000000009.jpg", "./#", 9),
        ("portrait.jpg", "./portrait", None),
        ("clip_0001_jpg.rf.3a1b9c8d7e6f5a4b3c2d1e0f9a8b7c6d.jpg", "./clip_#_jpg", 1),
        ("видео кадр 7.jpg", "./видео кадр #", 7),
        ("x" + "9" * 40 + ".jpg", "./x#", None),
        ("٣.jpg", "./٣", None),
    ],
)
def test_a_name_without_its_running_number(name, key, number):
    assert (sequence_key(name), sequence_number(name)) == (key, number)


def test_copies_belong_together_whatever_their_names():
    hashes = [FAR[0], FAR[1], FAR[0] ^ 0b1011, FAR[2]]
    assert groups_of_near_duplicates(["dog.jpg", "cat.jpg", "final (2).jpg", "x.png"], hashes) == [[0, 2]]


def test_frames_of_one_video_belong_together_also_its_first_and_its_last():
    hashes = video(20, 8) + FAR[:4] + video(21, 8)
    names = (
        [f"a_{n:03}.jpg" for n in range(8)] + [f"other_{n}.jpg" for n in range(4)] + [f"b_{n}.jpg" for n in range(8)]
    )
    assert distance(hashes[0], hashes[7]) > 48  # by themselves, they are not alike
    assert groups_of_near_duplicates(names, hashes) == [list(range(8)), list(range(12, 20))]


def test_frames_are_recognised_in_any_order_and_with_gaps():
    hashes = video(20, 6) + FAR[:6]
    names = [f"v_{30 * n}.jpg" for n in range(6)] + [f"p{n}.jpg" for n in range(6)]
    order = [5, 0, 7, 3, 1, 9, 4, 2, 11, 10, 6, 8]
    groups = groups_of_near_duplicates([names[i] for i in order], [hashes[i] for i in order])
    assert [{names[order[i]] for i in group} for group in groups] == [set(names[:6])]


def test_a_video_that_moves_fast_for_a_while_is_one_and_a_cut_ends_it():
    shifts = [0, 4, 8, 12, 20, 24, 28]
    frames = [perceptual_hash(scene(20, shift=shift)) for shift in shifts]
    assert 15 < distance(frames[3], frames[4], 64) <= 22
    names = [f"v{n}.jpg" for n in range(12)]
    groups = groups_of_near_duplicates(names, [*frames, *video(21, 5)])
    assert groups == [list(range(7)), list(range(7, 12))]
    photographs = [*video(21, 3), FAR[0], frames[3], frames[4], *FAR[1:7]]  # three of one burst, and two by chance
    assert groups_of_near_duplicates(names, photographs) == [[0, 1, 2]]


def test_the_same_numbers_in_two_folders_are_two_sequences():
    hashes = video(20, 3) + video(21, 3) + FAR[:4]
    names = [f"{folder}/{n}.jpg" for folder in "ab" for n in range(3)] + list("wxyz")
    assert groups_of_near_duplicates(names, hashes) == [[0, 1, 2], [3, 4, 5]]


def test_numbered_photographs_do_not_belong_together():
    assert groups_of_near_duplicates([f"IMG_{n:04}.jpg" for n in range(12)], FAR) == []


def test_exports_of_one_picture_belong_together_even_unread():
    names = [f"{stem}_jpg.rf.{digit * 32}.jpg" for stem in ("one", "two") for digit in "ab"] + ["three_jpg.jpg"]
    assert groups_of_near_duplicates(names, [None] * 5) == [[0, 1], [2, 3]]


def test_where_all_pictures_show_one_scene_only_equal_ones_belong_together():
    parts = [FAR[0] ^ (0b1111 << 8 * part) for part in range(10)]  # 8 bits from each other
    names = [f"part_{n}.png" for n in range(12)]
    assert likeness_limits(names[:10], parts) == (2, -1)
    assert groups_of_near_duplicates(names, [*parts, parts[3], parts[4] ^ 1]) == [[3, 10], [4, 11]]
    assert likeness_limits(names, FAR) == (48, 15)


def test_no_pictures_have_no_groups():
    assert groups_of_near_duplicates([], []) == []


@pytest.mark.parametrize(("data", "expected"), [("bccd", [{37, 38}]), ("coco_panoptic100", [])])
def test_real_numbered_photographs(data, expected):
    """Of BCCD's 364 pictures, two show the same cells; see `SHARED_DATA`."""
    folder = SHARED_DATA / data
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    files = []
    for annotations in sorted((folder / "annotations").glob("instances_*.json")):
        part = annotations.stem.removeprefix("instances_")
        files += [folder / part / image["file_name"] for image in json.loads(annotations.read_text())["images"]]
    groups = groups_of_near_duplicates([file.name for file in files], hash_files(files))
    assert [{sequence_number(files[i].name) for i in group} for group in groups] == expected
