"""The command line: what is refused before any work, by the name of its flag."""

import argparse

import pytest

from util.arguments import _check_files, check_args, get_args_parser
from util.settings import TRAIN_SIZES


def parse(*words: str) -> argparse.Namespace:
    return get_args_parser().parse_args(list(words))


def check(flags: str, data: str = "--coco_path DATA") -> None:
    check_args(parse(*data.split(), *flags.split()))


AT_LEAST_1 = (
    "batch_size epochs lr_drop dim_feedforward hidden_dim nheads num_queries dec_layers max_size val_size eval_every"
    " num_classes max_steps print_freq checkpoint_every pos_temperature"
).split()
AT_LEAST_0 = (
    "lr lr_backbone weight_decay clip_max_norm enc_layers num_workers warmup_steps start_epoch set_cost_class"
    " set_cost_bbox set_cost_giou bbox_loss_coef giou_loss_coef mask_loss_coef dice_loss_coef"
).split()


def test_the_defaults_and_a_data_folder_will_do():
    check("")


@pytest.mark.parametrize("flag", AT_LEAST_1)
def test_counts_and_sizes_below_1_are_refused(flag):
    for value in ("0", "-1"):
        with pytest.raises(ValueError, match=rf"--{flag} must be .*at least 1, got {value}(\.0)?$"):
            check(f"--{flag} {value}")


@pytest.mark.parametrize("flag", AT_LEAST_0)
def test_rates_and_weights_below_0_are_refused(flag):
    with pytest.raises(ValueError, match=f"--{flag} must be .*at least 0, got -1"):
        check(f"--{flag} -1")


@pytest.mark.parametrize("flag", ["lr", "clip_max_norm", "weight_decay", "eos_coef", "set_cost_giou"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_none_are_refused(flag, value):
    with pytest.raises(ValueError, match=f"--{flag} must be finite .*got {value}"):
        check(f"--{flag} {value}")


REFUSED = {
    "--dropout 1": r"--dropout must be in \[0, 1\), got 1.0",
    "--dropout -0.1": r"--dropout must be in \[0, 1\), got -0.1",
    "--dropout nan": "--dropout must be .* got nan",
    "--train_sizes 480 0": "--train_sizes must be finite and at least 1, got 0",
    "--panoptic_threshold 1": r"--panoptic_threshold must be in \[0, 1\), got 1.0",
    "--set_cost_class 0 --set_cost_bbox 0 --set_cost_giou 0": "--set_cost_class, --set_cost_bbox and --set_cost_giou",
    "--hidden_dim 100 --nheads 8": "--hidden_dim 100 .*--nheads 8",
    "--eos_coef 0": "--eos_coef must be finite and above 0, got 0",
    "--max_steps 10 --warmup_steps 10": "--warmup_steps 10 must be below --max_steps 10",
    "--hidden_dim 34 --nheads 2": "--hidden_dim 34",
    "--hidden_dim 33 --nheads 3 --position_embedding learned": "--hidden_dim 33",
    "--train_sizes 480 1400": "--train_sizes .*1400.* exceeds --max_size 1333",
    "--val_size 1400": "--val_size 1400 exceeds --max_size 1333",
    "--max_size 512 --val_size 400": "--train_sizes .* exceeds --max_size 512",
    "--masks --hidden_dim 64": "--masks .*--hidden_dim 64 .*a multiple of 128 and",
    "--masks --nheads 4": "--masks .*--nheads 4.*a multiple of 8",
    "--frozen_weights boxes.pth": "--frozen_weights .*pass --masks too",
    "--masks --frozen_weights a.pth --init_from b.pth": "--frozen_weights and --init_from .*pass only one",
    "--dataset_file voc": "--dataset_file voc",
    "--eval": "--eval .*--resume",
    "--start_epoch 300": "--start_epoch 300 .*--epochs is 300",
    "--epochs 5 --start_epoch 7": "--start_epoch 7 .*--epochs is 5",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_a_setting_that_cannot_be_right_is_refused_by_name(flags):
    with pytest.raises(ValueError, match=REFUSED[flags]):
        check(flags)


FILES = {f"{split}_{kind}": f"--{split}_{kind} X" for split in ("train", "val") for kind in ("ann", "images")}


@pytest.mark.parametrize("missing", FILES)
def test_without_a_folder_each_missing_file_is_named(missing):
    with pytest.raises(ValueError, match=f"--coco_path FOLDER, or --{missing}"):
        check("", data=" ".join(flag for name, flag in FILES.items() if name != missing))


def panoptic_args(**named: str | None) -> argparse.Namespace:
    return argparse.Namespace(**vars(parse("--dataset_file", "coco_panoptic")) | named)


@pytest.mark.parametrize("missing", ["train_panoptic", "val_ann", "val_images"])
def test_panoptic_data_have_three_parts_and_two_roots(missing):
    named = {f"{split}_{kind}": "X" for split in ("train", "val") for kind in ("ann", "images", "panoptic")}
    _check_files(panoptic_args(**named))
    root = "--coco_path" if missing.endswith("images") else "--coco_panoptic_path"
    with pytest.raises(ValueError, match=f"no data: pass {root} FOLDER, or --{missing} and"):
        _check_files(panoptic_args(**named | {missing: None}))
    _check_files(panoptic_args(coco_path="X"))
    with pytest.raises(ValueError, match="pass --coco_path FOLDER"):
        _check_files(panoptic_args(coco_panoptic_path="X"))


@pytest.mark.parametrize("other", ["coco_path", "coco_panoptic_path", "train_ann", "val_images"])
def test_two_sources_of_data_are_refused(other):
    check("", data="--data X")
    with pytest.raises(ValueError, match=f"--data and --{other} both name the data"):
        check("", data=f"--data X --{other} Y")


def test_panoptic_data_and_a_part_have_their_own_flags():
    with pytest.raises(ValueError, match="pass panoptic data with --coco_panoptic_path"):
        check("--dataset_file coco_panoptic", data="--data X")
    with pytest.raises(ValueError, match="--eval_part names a part of --data"):
        check("--eval_part test", data="--coco_path X")


def test_no_data_at_all_is_refused():
    with pytest.raises(ValueError, match="--coco_path"):
        check("", data="")


@pytest.mark.parametrize("parent", [False, True], ids=["itself", "above it"])
def test_an_output_folder_that_is_a_file_is_refused(tmp_path, parent):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "run" if parent else tmp_path / "file"
    with pytest.raises(ValueError, match=f"--output_dir {folder} cannot be created: {tmp_path / 'file'} is a file"):
        check(f"--output_dir {folder}")


def test_checking_makes_nothing(tmp_path):
    check(f"--output_dir {tmp_path / 'new' / 'run'}")
    assert list(tmp_path.iterdir()) == []


ACCEPTED = [
    "--dropout 0",
    "--lr_backbone 0",
    "--lr 0",
    "--clip_max_norm 0",
    "--enc_layers 0",
    "--num_workers 0",
    "--warmup_steps 0",
    "--num_classes 1",
    "--max_steps 1",
    "--batch_size 1",
    "--set_cost_class 0 --set_cost_bbox 0",
    "--hidden_dim 96 --nheads 8",
    "--hidden_dim 34 --nheads 2 --position_embedding learned",
    "--max_steps 10 --warmup_steps 9",
    "--train_sizes 64 96 --val_size 96 --max_size 96",
    "--epochs 5 --start_epoch 4",
    "--eval --resume checkpoint.pth",
    "--eval --resume checkpoint.pth --start_epoch 300",
]


@pytest.mark.parametrize("flags", ACCEPTED)
def test_what_lies_at_the_edge_is_accepted(flags):
    check(flags)


def test_four_files_take_the_place_of_the_folder():
    check("", data=" ".join(FILES.values()))


def test_evaluation_needs_no_training_data():
    check("--eval --resume checkpoint.pth", data=f"{FILES['val_ann']} {FILES['val_images']}")


def test_the_parser_can_be_a_parent_of_another():
    parser = argparse.ArgumentParser(parents=[get_args_parser()])
    assert parser.parse_args(["--lr", "0.5"]).lr == 0.5


def test_choices_are_the_parsers_own_business(capsys):
    for words in (["--trainable_layers", "6"], ["--lr_schedule", "poly"], ["--backbone_norm", "ln"]):
        with pytest.raises(SystemExit):
            parse(*words)
        assert words[0] in capsys.readouterr().err


def test_training_sizes_are_the_published_ones_and_no_shared_list():
    assert parse().train_sizes == list(TRAIN_SIZES) == list(range(480, 801, 32))
    parse().train_sizes.append(1)
    assert parse().train_sizes == list(TRAIN_SIZES)
