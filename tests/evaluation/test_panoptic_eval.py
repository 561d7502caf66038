"""Panoptic quality: the library's numbers compared with a plain version, and what the evaluator accepts and writes."""

import copy
import json
import sys

import numpy as np
import pytest
import torch

from datasets.annotations.panoptic import read_panoptic
from evaluation.panoptic_eval import PanopticEvaluator, format_panoptic
from models.panoptic import PostProcessPanoptic
from tests.helpers.coco_files import captured_warnings
from tests.helpers.panoptic_files import CATEGORIES, HEIGHT, SHARED, WIDTH, map_of, segment, write_panoptic
from tests.helpers.panoptic_samples import perturbed, plain_panoptic_quality, prediction_of

TOP, MIDDLE, LEFT, RIGHT, WHOLE = slice(0, 15), slice(10, 20), slice(0, 20), slice(20, WIDTH), slice(None)
SCENE = map_of((5, WHOLE, WHOLE), (70000, TOP, LEFT), (0, MIDDLE, RIGHT))
SEGMENTS = [segment(5, category_id=2, area=int((SCENE == 5).sum())), segment(70000, area=300)]


@pytest.fixture
def made(tmp_path):
    """Two images of the same scene: background, an object, and void."""
    return write_panoptic(tmp_path, {3: (SCENE, SEGMENTS), 8: (SCENE, SEGMENTS)})


def scene_of(image_id, thing=7, ground=2):
    """The scene as from the postprocessor, with ids from 0."""
    return prediction_of(image_id, (SCENE == 70000).astype(np.int32), {0: ground, 1: thing})


def evaluated(paths, predictions, output_dir=None, **options):
    evaluator = PanopticEvaluator(paths[2], paths[1], output_dir, **options)
    for prediction in predictions:
        evaluator.update([prediction])
    evaluator.synchronize_between_processes()
    return evaluator.summarize(), evaluator


def assert_equals_plain(results, ann_file, folder, predictions):
    plain = plain_panoptic_quality(read_panoptic(ann_file), folder, predictions)
    for group, numbers in plain.items():
        assert results[group] == pytest.approx(numbers, abs=1e-9, rel=0), group


# --- Numbers ----------------------------------------------------------------------------------------------------------

ANN_FILE, MAPS = SHARED / "annotations" / "panoptic_val2017.json", SHARED / "panoptic_val2017"
needs_real = pytest.mark.skipif(not ANN_FILE.exists(), reason="coco_panoptic100 is not available")


@needs_real
def test_real_ground_truth_against_itself_scores_one():
    truth = read_panoptic(ANN_FILE)
    predictions = [
        {
            "image_id": image_id,
            "file_name": annotation["file_name"],
            "png_string": (MAPS / annotation["file_name"]).read_bytes(),
            "segments_info": [
                {key: part[key] for key in ("id", "category_id")} for part in annotation["segments_info"]
            ],
        }
        for image_id, annotation in truth.annotations.items()
    ]
    results, _ = evaluated((None, MAPS, ANN_FILE), predictions)
    assert [results[group]["pq"] for group in ("All", "Things", "Stuff")] == [1.0, 1.0, 1.0]
    assert [results[group]["n"] for group in ("All", "Things", "Stuff")] == [124, 72, 52]


@needs_real
def test_perturbed_real_images_get_the_numbers_of_the_plain_version():
    truth = read_panoptic(ANN_FILE)
    truth.annotations = dict(list(truth.annotations.items())[:25])
    predictions = perturbed(truth, MAPS)
    evaluator = PanopticEvaluator(ANN_FILE, MAPS, None, allow_missing=True)
    evaluator.update(predictions)
    with captured_warnings():
        results = evaluator.summarize()
    plain = plain_panoptic_quality(truth, MAPS, predictions)
    assert 0.2 < results["All"]["pq"] < 0.8
    for group, numbers in plain.items():
        assert results[group] == pytest.approx(numbers, abs=1e-9, rel=0), group


def random_sample(random):
    """A tiny image with void, segments and crowds, and a prediction that overlaps all of them."""
    height, width = random.integers(1, 9, 2).tolist()
    coarse = random.integers(0, 4, (height // 2 + 1, width // 2 + 1))
    wanted = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width].astype(np.int32) * 70000
    segments = [
        segment(
            number,
            category_id=int(random.choice([2, 7])),
            area=int((wanted == number).sum()),
            iscrowd=int(random.random() < 0.3),
        )
        for number in np.unique(wanted).tolist()
        if number
    ]
    first = int(random.integers(0, 2))  # 1: ids of the prediction start at 0
    kept = random.random((height, width)) < 0.8
    found = np.where(kept, wanted // 70000, random.integers(0, 4, (height, width)))
    found = np.maximum(found - first, 0).astype(np.int32)
    like = {part["id"] // 70000 - first: part["category_id"] for part in segments}
    numbers = np.unique(found).tolist()
    if numbers[0] == 0 and random.random() < 0.5:
        numbers = numbers[1:]  # 0 is void here
    categories = {n: like[n] if n in like and random.random() < 0.8 else int(random.choice([2, 7])) for n in numbers}
    return (wanted, segments), found, categories


@pytest.mark.parametrize("seed", range(40))
def test_void_crowds_and_an_id_of_0_count_as_in_the_plain_version(tmp_path, seed):
    random = np.random.default_rng(seed)
    samples = {image_id: random_sample(random) for image_id in range(1, 5)}
    paths = write_panoptic(tmp_path, {image_id: sample for image_id, (sample, _, _) in samples.items()})
    predictions = [prediction_of(i, found, categories) for i, (_, found, categories) in samples.items()]
    results, _ = evaluated(paths, predictions)
    assert_equals_plain(results, paths[2], paths[1], predictions)


def test_output_of_the_postprocessor_gets_the_numbers_of_the_plain_version(tmp_path):
    kinds = {2: False, 4: False, 7: True, 9: True}
    categories = [{"id": key, "name": str(key), "isthing": int(kind)} for key, kind in kinds.items()]
    generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)
    count, queries = 12, 6
    masks = 4 * torch.randn(count, queries, HEIGHT // 10, WIDTH // 10, generator=generator)
    masks = torch.nn.functional.interpolate(masks, (HEIGHT, WIDTH), mode="bilinear")
    logits = torch.full((count, queries, 11), -4.0)
    labels = torch.from_numpy(random.choice(list(kinds), (count, queries)))
    logits.scatter_(2, labels[:, :, None], 4.0)
    logits[3] = logits[3].roll(1, dims=1) * 0.1  # no confident class: all void
    postprocessor = PostProcessPanoptic({label: kinds.get(label, False) for label in range(11)})
    found = postprocessor({"pred_logits": logits, "pred_masks": masks}, [(HEIGHT, WIDTH)] * count)
    predictions = [
        {"image_id": number, "file_name": f"{number}.png", **each} for number, each in enumerate(found, start=1)
    ]
    assert predictions[3]["segments_info"] == [] and len(predictions[0]["segments_info"]) > 2
    assert all(each["segments_info"][0]["id"] == 0 for k, each in enumerate(predictions) if k != 3)

    samples = {}
    for number in range(1, count + 1):  # the masks themselves, shifted; part of it void, every third thing a crowd
        ids = np.roll(masks[number - 1].argmax(0).numpy().astype(np.int32) + 1, 2, axis=1)
        ids[:6, :20] = 0
        samples[number] = (
            ids,
            [
                segment(key, category_id=int(labels[number - 1, key - 1]), area=int((ids == key).sum()))
                for key in np.unique(ids).tolist()
                if key
            ],
        )
        for part in samples[number][1]:
            part["iscrowd"] = int(kinds[part["category_id"]] and part["id"] % 3 == 0)
    paths = write_panoptic(tmp_path, samples, categories=categories)
    results, _ = evaluated(paths, predictions)
    assert 0.2 < results["All"]["pq"] < 0.9
    assert_equals_plain(results, paths[2], paths[1], predictions)


def test_the_first_segment_has_id_0_and_counts(made):
    results, evaluator = evaluated(made, [scene_of(3), scene_of(8)])
    assert results["All"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 2}
    assert results["per_class"][2]["tp"] == results["per_class"][7]["tp"] == 2
    rows = [{"id": 2, "name": "sky", "isthing": 0}, {"id": 7, "name": "dog", "isthing": 1}]
    assert evaluator.per_class() == [row | {"PQ": 1.0, "SQ": 1.0, "RQ": 1.0} for row in rows]


def test_an_all_void_prediction_misses_everything(made):
    void = prediction_of(8, np.zeros_like(SCENE), {})
    results, _ = evaluated(made, [scene_of(3), void])
    assert results["All"]["pq"] == pytest.approx(2 / 3)  # one hit and one miss each
    assert [results["per_class"][key]["fn"] for key in (2, 7)] == [1, 1]


def test_categories_that_do_not_occur_have_minus_one_and_a_dash(tmp_path):
    only_things = [{"id": 7, "name": "dog", "isthing": 1}, {"id": 9, "name": "cow", "isthing": 1}]
    paths = write_panoptic(tmp_path, {1: (map_of((4, TOP, LEFT)), [segment(4, area=300)])}, categories=only_things)
    results, evaluator = evaluated(paths, [prediction_of(1, map_of((1, TOP, LEFT)), {1: 7})])
    assert results["Stuff"] == {"pq": -1.0, "sq": -1.0, "rq": -1.0, "n": 0}
    assert evaluator.per_class()[1]["PQ"] == -1
    table = format_panoptic(results).splitlines()
    assert [line.split() for line in table[1:]] == [
        ["All", "100.0", "100.0", "100.0", "1"],
        ["Things", "100.0", "100.0", "100.0", "1"],
        ["Stuff", "-", "-", "-", "0"],
    ]


def test_areas_missing_in_the_file_are_counted(tmp_path):
    bare = [segment(5, category_id=2, area=None), segment(70000, area=None)]
    with captured_warnings():
        paths = write_panoptic(tmp_path, {3: (SCENE, bare), 8: (SCENE, SEGMENTS)})
        results, _ = evaluated(paths, [scene_of(3), scene_of(8)])
    assert results["All"]["pq"] == 1.0


def test_areas_of_the_ground_truth_are_those_of_its_file(tmp_path):
    ids = map_of((1, TOP, LEFT))  # 300 pixels
    paths = write_panoptic(tmp_path, {1: (ids, [segment(1, area=500)])})
    results, _ = evaluated(paths, [prediction_of(1, ids, {1: 7})])
    assert results["All"]["pq"] == pytest.approx(300 / 500)


# --- Input and files --------------------------------------------------------------------------------------------------


def test_predictions_are_written_in_the_official_format(made, tmp_path):
    given = [scene_of(8), scene_of(3)]
    before = copy.deepcopy(given)
    evaluated(made, given, tmp_path / "out")
    assert given == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "000000000003.png",
        "000000000008.png",
        "predictions.json",
        "quality.json",
    }
    assert (tmp_path / "out" / "000000000003.png").read_bytes() == given[1]["png_string"]
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    by_image = {entry["image_id"]: entry for entry in content["annotations"]}
    assert by_image[3] == {key: given[1][key] for key in ("image_id", "file_name", "segments_info")}


def test_without_a_folder_nothing_is_written(made, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    evaluated(made, [scene_of(3), scene_of(8)], "")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_repeated_image_is_ignored(made):
    results, _ = evaluated(made, [scene_of(3), scene_of(8), scene_of(3, thing=2, ground=7)])
    assert results["All"]["pq"] == 1.0
    assert results["per_class"][7]["tp"] == 2


def test_a_missing_prediction_is_refused_unless_it_may_be_missing(made):
    with pytest.raises(ValueError, match=r"predictions are missing for 1 of 2 images \(image 8\): call update\(\)"):
        evaluated(made, [scene_of(3)])
    with captured_warnings() as logged:
        results, _ = evaluated(made, [scene_of(3)], allow_missing=True)
    assert results["per_class"][7]["tp"] == 1 and results["All"]["pq"] == 1.0
    assert logged == ["images without a prediction are not evaluated: 1 (8)"]
    with pytest.raises(ValueError, match="predictions are missing for 2 of 2 images"):
        evaluated(made, [], allow_missing=True)


def test_segments_of_unknown_categories_are_ignored_with_one_warning(made):
    with captured_warnings() as logged:
        results, _ = evaluated(made, [scene_of(3, ground=99), scene_of(8, thing=250)])
    assert len(logged) == 1 and "image 3 has predicted segments of categories" in logged[0]
    counts = {key: [results["per_class"][key][name] for name in ("tp", "fp", "fn")] for key in (2, 7)}
    assert counts == {2: [1, 0, 1], 7: [1, 0, 1]}


def test_after_a_reset_an_evaluator_is_like_a_new_one(made):
    results, evaluator = evaluated(made, [scene_of(3, ground=99), scene_of(8)])
    evaluator.reset()
    with pytest.raises(ValueError, match="predictions are missing for 2 of 2 images"):
        evaluator.summarize()
    with captured_warnings() as logged:
        evaluator.update([scene_of(8, thing=2), scene_of(3, thing=99)])
    assert len(logged) == 1 and "image 3 has predicted segments" in logged[0]
    assert evaluator.summarize() == evaluated(made, [scene_of(8, thing=2), scene_of(3, thing=99)])[0] != results


def test_predictions_that_do_not_fit_their_image_are_refused(made):
    evaluator = PanopticEvaluator(made[2], made[1], None)
    narrow = prediction_of(3, np.zeros((HEIGHT, WIDTH - 1), dtype=np.int32), {})
    for wrong, sentence in (
        (scene_of(4), "a prediction for image 4, but the ground truth has no such image"),
        (narrow, "the prediction for image 3 is 39x30 pixels, but the image is 40x30"),
        (scene_of(3) | {"png_string": b"no picture"}, "image 3 has a png_string that is not the bytes of an RGB PNG"),
        (scene_of(3) | {"png_string": "text"}, "image 3 has a png_string that is not"),
        (
            scene_of(3) | {"file_name": "../3.png"},
            "image 3 has file_name '../3.png': it must be a name without a folder",
        ),
        (scene_of(3) | {"segments_info": [{"id": -1, "category_id": 7}]}, "image 3 has a segment of id -1"),
        (scene_of(3) | {"segments_info": [{"id": 0, "category_id": 7}] * 2}, "image 3 has a segment of id 0: ids must"),
        ({"image_id": 3, "file_name": "3.png"}, "image 3 lacks png_string, segments_info"),
    ):
        with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
            evaluator.update([wrong])
    for listed, sentence in (
        ({0: 2}, "image 3: .* segment 1 .*not in segments_info"),
        ({0: 2, 1: 7, 9: 7}, "image 3.*9"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluated(made, [prediction_of(3, (SCENE == 70000).astype(np.int32), listed), scene_of(8)])


def test_two_predictions_with_the_same_file_name_are_refused(made):
    with pytest.raises(ValueError, match="several predictions have the file_name 000000000003.png"):
        evaluated(made, [scene_of(3), scene_of(8) | {"file_name": "000000000003.png"}])


def test_per_class_results_need_summarize(made):
    with pytest.raises(ValueError, match="call summarize"):
        PanopticEvaluator(made[2], made[1], None).per_class()


def test_without_hotcoco_the_error_says_what_to_install(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(ImportError, match=r'it is needed for panoptic quality, run pip install "hotcoco'):
        PanopticEvaluator(made[2], made[1], None)


def test_missing_maps_are_an_error_at_the_start(made):
    (made[1] / "map8.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 panoptic maps is missing \(.*map8.png\)"):
        PanopticEvaluator(made[2], made[1], None)


def test_categories_are_those_of_the_file(made):
    kept = PanopticEvaluator(made[2], made[1], None).ground_truth.categories
    assert kept == sorted(CATEGORIES, key=lambda category: category["id"])


def test_results_are_written_next_to_the_predictions(made, tmp_path):
    results, evaluator = evaluated(made, [scene_of(3), scene_of(8)], tmp_path / "out")
    written = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert written["All"] == results["All"] and written["per_class"] == evaluator.per_class()


def test_if_the_folder_cannot_be_written_to_there_are_still_numbers(made, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    results, _ = evaluated(made, [scene_of(3), scene_of(8)], tmp_path / "file" / "out")
    assert results["All"]["pq"] == 1.0
    assert "panoptic maps are not saved" in caplog.text and str(tmp_path / "file" / "out") in caplog.text


def test_each_category_has_a_line_in_the_table(made):
    results, evaluator = evaluated(made, [scene_of(3), scene_of(8)])
    lines = format_panoptic(results, evaluator.per_class()).splitlines()
    assert len(lines) == 4 + len(CATEGORIES)
    assert lines[4].split()[-3:] == ["100.0", "100.0", "100.0"] or lines[4].split()[-1] == "-"


def test_a_name_forges_no_row_of_the_table():
    measured = {"pq": 0.5, "sq": 0.5, "rq": 0.5, "n": 1}
    row = {"name": "\x1b[2J\nerror:", "PQ": 0.5, "SQ": 0.5, "RQ": 0.5}
    table = format_panoptic(dict.fromkeys(("All", "Things", "Stuff"), measured), [row]).split("\n")
    assert len(table) == 5 and all(line.isprintable() for line in table)
