"""Parameters, FLOPs and shapes of a detector, counted without running it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import build_model
from tests.helpers.predict_parts import write_detector
from tests.helpers.runs import TINY, parse
from tools.summary import PARTS, Row, run, summarize, table


@pytest.fixture(scope="module")
def model():
    return build_model(parse("nowhere", "--num_classes", "8"))[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / "checkpoint.pth", "--dilation")


def rows_of(text: str) -> dict[str, list[str]]:
    """Title → the cells of a printed table's row."""
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) == 5}


def test_the_published_detector_has_its_published_number_of_parameters(no_network, capsys):
    assert run([]) == 0
    out = capsys.readouterr().out
    total, backbone = rows_of(out)["total"], rows_of(out)["backbone"]
    assert total[:2] == ["41,524,768", "41,302,368"] and total[3] == "[1, 100, 92], [1, 100, 4]"
    assert int(backbone[0].replace(",", "")) - int(backbone[1].replace(",", "")) == 222_400  # the frozen stages
    assert "800 x 1066 pixels" in out
    assert 81 < float(total[2]) / 2 < 86  # the paper's 86 are multiply-adds of COCO's images, some larger than this


def test_dilation_costs_flops_and_no_parameters(no_network, capsys):
    rows = []
    for more in ("", "--dilation"):
        assert run(f"--enc_layers 1 --dec_layers 1 --size 96 128 {more}".split()) == 0
        rows.append(rows_of(capsys.readouterr().out))
    plain, dilated = rows
    assert plain["total"][:2] == dilated["total"][:2] and float(dilated["total"][2]) > 1.3 * float(plain["total"][2])
    assert plain["backbone"][3] == "[1, 2048, 3, 4]" and dilated["backbone"][3] == "[1, 2048, 6, 8]"


def test_parts_add_up_to_the_whole(model):
    *parts, total = summarize(model, (64, 96))
    assert [row.title for row in parts] == list(PARTS) and total.title == "total"
    for what in ("parameters", "trainable", "flops"):
        assert sum(getattr(row, what) for row in parts) == getattr(total, what) > 0, what


def test_flops_match_the_arithmetic(model):
    rows = {row.title: row for row in summarize(model, (64, 96))}
    (_, channels, h, w) = rows["backbone"].shapes[0]
    s, d, f, layers, queries = h * w, 16, 32, 2, 6
    assert rows["input projection"].flops == 2 * channels * d * s
    assert rows["encoder"].flops == 2 * (4 * s * d * d + 2 * s * s * d + 2 * s * d * f)  # one layer
    assert rows["class head"].flops == layers * queries * 2 * d * 9
    assert rows["box head"].flops == layers * queries * 2 * (2 * d * d + 4 * d)


def test_shapes_match_a_forward_pass(model):
    seen: dict[str, list[int]] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, title=title: seen.update({title: out}))
        for title, name in PARTS.items()
    ]
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 96))
    for handle in handles:
        handle.remove()
    rows = {row.title: row.shapes for row in summarize(model, (64, 96))}
    assert rows.pop("total") == [list(outputs[name].shape) for name in ("pred_logits", "pred_boxes")]
    assert rows.pop("query embeddings") == [[6, 16]]
    assert rows.pop("backbone") == [list(seen.pop("backbone")["0"].tensors.shape)]
    assert rows == {title: [list(out.shape)] for title, out in seen.items()}


def test_the_model_is_not_changed(model):
    model.train()
    before = {name: (tensor.device, tensor.clone()) for name, tensor in model.state_dict().items()}
    summarize(model, (64, 64))
    assert model.training and model.aux_loss and not any(part._forward_hooks for part in model.modules())
    for name, tensor in model.state_dict().items():
        assert tensor.device == before[name][0] and torch.equal(tensor, before[name][1])


def test_a_checkpoint_is_counted_with_its_own_settings(checkpoint: Path, capsys):
    assert run([str(checkpoint)]) == 0
    own = capsys.readouterr().out
    assert "48 x 64 pixels" in own
    assert run([*TINY, "--num_classes", "8", "--dilation"]) == 0
    assert capsys.readouterr().out == own
    assert run(["--size", "80", "64", str(checkpoint)]) == 0
    assert "80 x 64 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["--size", "0", "9"], "--size must be at least 1 x 1, got 0 x 9"),
        (["--hidden_dim", "20", "--nheads", "8"], "--hidden_dim 20"),
        (["none.pth"], "there is no checkpoint none.pth"),
        (["none.pth", "--dilation"], "omit --dilation"),
        (["--position_embedding", "learned", "--dilation"], "learned positions end at 50 x 50"),
    ],
)
def test_what_cannot_be_counted_is_one_sentence(capsys, argv: list[str], fault: str):
    assert run(argv) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and fault in said and said.count("\n") == 1


def test_the_table_is_aligned():
    lines = table([Row("a", 1234567, 0, 5 * 10**8, [[1, 2]]), Row("total", 1, 1, 0, [[3], [4, 5]])]).splitlines()
    assert lines[1].split("  ")[-1] == "[1, 2]" and "1,234,567" in lines[1] and " 0.500 " in lines[1]
    assert lines[3].endswith("[3], [4, 5]") and len({line.index("[") for line in (lines[1], lines[3])}) == 1
    assert set(lines[2]) == {"-"}


def test_a_mask_head_has_its_own_rows():
    flags = ["--masks", "--hidden_dim", "128", "--nheads", "8", "--num_queries", "5", "--num_classes", "4"]
    model = build_model(parse("nowhere", *flags))[0]
    rows = {row.title: row for row in summarize(model, (64, 96))}
    assert rows["mask attention"].shapes == [[1, 5, 8, 2, 3]] and rows["mask head"].shapes == [[5, 1, 16, 24]]
    assert rows["mask head"].parameters == sum(p.numel() for p in model.mask_head.parameters())
    assert sum(row.parameters for title, row in rows.items() if title != "total") == rows["total"].parameters
    assert [1, 5, 16, 24] in rows["total"].shapes and rows["mask head"].flops > rows["mask attention"].flops > 0
