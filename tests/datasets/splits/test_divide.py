"""The rule of the split: the same whatever is added, near-duplicates together, as before where it is known."""

import random
from collections.abc import Sequence

import pytest

from datasets.splits.divide import Pictures, divide
from datasets.splits.draws import natural_order, units_of
from datasets.splits.record import Split
from datasets.splits.stable_numbers import stable_number

SHARE = 0.15


def pictures(names: Sequence[str], seed: int = 0, rates: Sequence[float] = (0.5, 0.8)) -> Pictures:
    """Pictures that show each class with the given chance; what a picture shows depends on its name alone."""

    def shown(name: str) -> dict[int, int]:
        draw = random.Random(f"{seed} {name}")
        return {index: draw.randint(1, 3) for index, rate in enumerate(rates) if draw.random() < rate}

    return Pictures(list(names), [shown(name) for name in names], [f"class {n}" for n in range(len(rates))])


def numbered(count: int, first: int = 0, name: str = "img") -> list[str]:
    return [f"{name}_{n:04}.jpg" for n in range(first, first + count)]


def sides(names: Sequence[str], groups: Sequence[Sequence[int]] = (), **more) -> dict[str, str]:
    return divide(pictures(names), groups, SHARE, **more).split.sides


@pytest.mark.parametrize("added", ["img", "a_new", "zoo/new"])
def test_adding_pictures_changes_no_side(added):
    before = numbered(300)
    one = sides(before)
    two = sides([*numbered(200, 300, added), *before])
    assert {name: two[name] for name in before} == one


def test_the_order_of_the_pictures_does_not_matter():
    names = numbered(120)
    shuffled = random.Random(1).sample(names, len(names))
    assert (
        divide(pictures(shuffled, rates=(0.5, 0.05)), [], SHARE).split
        == divide(pictures(names, rates=(0.5, 0.05)), [], SHARE).split
    )


@pytest.mark.parametrize("seed", range(10))
def test_groups_stay_on_one_side_and_frames_added_to_a_video_change_nothing(seed):
    draw = random.Random(seed)
    videos = [numbered(draw.randint(2, 12), 1, f"video{n}") for n in range(20)]
    photos = numbered(200, name="photo")

    def split(length: int | None) -> dict[str, str]:
        clips = [video[:length] for video in videos]
        names = [name for clip in clips for name in clip] + photos
        groups = [[names.index(name) for name in clip] for clip in clips if len(clip) > 1]
        return sides(draw.sample(names, len(names)) if length is None and not groups else names, groups)

    whole = split(None)
    assert all(len({whole[name] for name in video}) == 1 for video in videos)
    for name, side in split(2).items():
        assert whole[name] == side


def test_the_share_is_met_within_chance():
    split = divide(pictures(numbered(2000)), [], SHARE).split
    assert 250 < len(split.val) < 350  # 300 expected, 16 the standard deviation
    for counts in split.classes.values():
        assert 0.12 < counts["val"][0] / (counts["val"][0] + counts["train"][0]) < 0.18


@pytest.mark.parametrize("seed", range(10))
def test_rare_classes_are_in_both_parts(seed):
    split = divide(pictures(numbered(80), seed, rates=(0.9, 0.1, 0.06, 0.05)), [], SHARE).split
    for counts in split.classes.values():
        shown = counts["train"][0] + counts["val"][0]
        assert shown < 2 or (counts["train"][0] and counts["val"][0])


def test_pictures_without_objects_are_split_too():
    split = divide(pictures(numbered(60), rates=(0.0,)), [], SHARE).split
    assert 0 < len(split.val) < 20 and len(split.train) + len(split.val) == 60


def test_an_earlier_split_holds_whatever_it_says():
    names = numbered(40)
    earlier = Split(0.3, "near", train=names[:3], val=names[3:40])
    found = divide(pictures([*names, *numbered(200, name="new")]), [], SHARE, earlier=earlier)
    assert all(found.split.sides[name] == earlier.sides[name] for name in names)
    assert found.added == 200
    new = [name for name in found.split.val if name.startswith("new")]
    assert 0 < len(new) < 60


def test_a_new_picture_joins_its_near_duplicates_and_is_left_out_between_two_sides():
    names = ["a.jpg", "b.jpg", "a1.jpg", "b1.jpg", "between.jpg", *numbered(20)]
    earlier = Split(SHARE, "near", train=["a.jpg", *numbered(20)], val=["b.jpg"])
    found = sides(names, [[0, 2], [1, 3]], earlier=earlier)
    assert (found["a1.jpg"], found["b1.jpg"]) == ("train", "val")
    found = sides(names, [[0, 1, 4]], earlier=earlier)
    assert (found["a.jpg"], found["b.jpg"], found["between.jpg"]) == ("train", "val", "left_out")


def test_a_run_that_resumes_keeps_its_validation_pictures():
    names = [*numbered(60), *numbered(60, 60)]
    earlier = divide(pictures(names[:60]), [], SHARE).split
    repeated = names.index(earlier.val[0])
    found = divide(pictures(names), [[repeated, 119]], SHARE, earlier=earlier, added_train=True).split
    assert found.val == earlier.val
    assert set(found.train) == set(earlier.train) | set(names[60:119])
    assert found.left_out == [names[119]]


def test_pictures_that_are_gone_do_not_count():
    names = numbered(60)
    earlier = divide(pictures(names), [], SHARE).split
    found = divide(pictures(names[10:]), [], SHARE, earlier=earlier).split
    assert set(found.train) | set(found.val) == set(names[10:])
    assert all(found.sides[name] == earlier.sides[name] for name in names[10:])


def test_what_cannot_be_split_is_refused_with_the_way_out():
    names = numbered(9)
    with pytest.raises(ValueError, match="all are near-duplicates of one another.*--val_groups none"):
        sides(names, [list(range(9))])
    with pytest.raises(ValueError, match="there is 1 image: add images, or name some as validation part"):
        sides(names[:1])
    with pytest.raises(ValueError, match="no validation image.*--val_split"):
        sides(names, earlier=Split(SHARE, "near", train=names, val=["gone.jpg"]), added_train=True)
    assert len(set(sides(names).values())) == 2


def test_natural_order_and_units():
    names = ["clip_10.jpg", "clip_2.jpg", "b/1.jpg", "clip_02.jpg", "Clip.jpg"]
    assert sorted(names, key=natural_order) == ["Clip.jpg", "b/1.jpg", "clip_02.jpg", "clip_2.jpg", "clip_10.jpg"]
    units, draws = units_of(names, [[0, 1]])
    assert units[0] == units[1] and len(draws) == 4
    assert draws[units[0]] == stable_number("clip_2.jpg")
    assert len(set(units.tolist())) == 4


def test_a_new_export_of_the_same_pictures_is_split_alike():
    def exported(version: str) -> list[str]:
        return [f"photo{n}_jpg.rf.{version * 32}.jpg" for n in range(100)]

    one, two = sides(exported("a")), sides(exported("b"))
    assert list(one.values()) == list(two.values())


def test_the_draw_of_a_name_never_changes():
    """A changed value would change the split of every data set."""
    assert stable_number("BloodImage_00001.jpg") == pytest.approx(0.6561149623320226)
