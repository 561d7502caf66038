"""Facts of the published code: the command line, signatures, and the parts of each build."""

import ast
import importlib
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

import hubconf
from main import get_args_parser
from models.postprocess import PostProcess
from tests.helpers.golden_cases import BUILDS, build, parse
from tests.helpers.golden_rules import FACTS, covers
from training.optim import param_groups

# --- Command line -----------------------------------------------------------------------------------------------------


@covers("cli/*")
def test_flag(key):
    section, dest = key.split("/")
    golden = FACTS[section][dest]
    action = next(a for a in get_args_parser()._actions if a.dest == dest)
    assert action.option_strings == golden["flags"]
    assert (list(action.choices) if action.choices else None) == golden["choices"]
    assert action.default == ("auto" if dest == "device" else golden["default"])  # the only default that differs


@covers("cli/*")
def test_flag_sets_its_destination(key):
    section, dest = key.split("/")
    golden = FACTS[section][dest]
    default, flag = golden["default"], golden["flags"][0]
    if isinstance(default, bool):
        assert getattr(get_args_parser().parse_args([flag]), dest) is not default
    else:
        given = str(golden["choices"][-1] if golden["choices"] else 3 if default is None else default)
        value = getattr(get_args_parser().parse_args([flag, given]), dest)
        assert value == (given if default is None or golden["choices"] else default)


# --- Signatures -------------------------------------------------------------------------------------------------------


def public(name: str) -> Any:
    """The object that a dotted name of the published code imports."""
    module, attribute = name.rsplit(".", 1)
    return getattr(importlib.import_module(module), attribute)


def parameters(function: Any) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def described(parameter: inspect.Parameter) -> list[Any]:
    """A parameter in the form of the golden file: name, kind, default, whether it has a default."""
    has_default = parameter.default is not parameter.empty
    default = parameter.default if has_default else None
    return [parameter.name, parameter.kind.name, list(default) if isinstance(default, tuple) else default, has_default]


def assert_extends(ours: list[inspect.Parameter], golden: list[list[Any]]) -> None:
    """Ours are the golden parameters in order; added ones have defaults and do not shift positional parameters."""
    names = {parameter[0] for parameter in golden}
    assert [described(p) for p in ours if p.name in names] == golden
    added = [p for p in ours if p.name not in names]
    assert all(p.default is not p.empty for p in added), f"added without a default: {added}"
    positional = [p for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    golden_positional = [name for name, kind, *_ in golden if kind == "POSITIONAL_OR_KEYWORD"]
    assert [p.name for p in positional][: len(golden_positional)] == golden_positional


@covers("signatures/*/call")
def test_call_signature(key):
    name = key.split("/")[1]
    golden, target = FACTS["signatures"][name]["call"], public(name)
    accepts_anything = [kind for _, kind, *_ in golden] == ["VAR_POSITIONAL", "VAR_KEYWORD"]
    if inspect.isclass(target) and accepts_anything:
        # The published class has no constructor or passes all arguments on. Ours must work without arguments.
        required = [p for p in parameters(target) if p.default is p.empty and not p.name.endswith("args")]
        assert not required
        target()
    else:
        assert_extends(parameters(target), golden)


@covers("signatures/*/forward")
def test_forward_signature(key):
    name = key.split("/")[1]
    assert_extends(parameters(public(name).forward), FACTS["signatures"][name]["forward"])


@covers("signatures/*/methods/*")
def test_method_exists(key):
    _, name, _, method = key.split("/")
    assert callable(getattr(public(name), method))


@covers("hub/*")
def test_hub_signature(key):
    section, name = key.split("/")
    published = ast.parse(f"def {name}{FACTS[section][name]}: ...").body[0].args
    defaults = [ast.literal_eval(default) for default in published.defaults]
    golden = [[p.arg, "POSITIONAL_OR_KEYWORD", default, True] for p, default in zip(published.args, defaults)]
    assert len(published.args) == len(defaults)
    assert_extends(parameters(getattr(hubconf, name)), golden)


def test_hub_returns_the_postprocessor_on_request():
    with torch.device("meta"):
        model, postprocessor = hubconf.detr_resnet50(return_postprocessor=True)
    assert isinstance(model, nn.Module) and isinstance(postprocessor, PostProcess)


# --- Parts of a build -------------------------------------------------------------------------------------------------


@dataclass
class BuildFacts:
    """Facts about a build that do not depend on its weights."""

    shapes: dict[str, list[int]]
    n_parameters: dict[str, int]
    groups: list[dict[str, Any]]  # of the optimiser: names (sorted) and lr
    weight_dict: dict[str, float] | None = None
    losses: list[str] | None = None
    postprocessors: list[str] | None = None


def model_facts(model: nn.Module, lr: float, lr_backbone: float) -> BuildFacts:
    sizes = {n: (p.numel(), p.requires_grad) for n, p in model.named_parameters()}
    names = {id(p): n for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(param_groups(model, lr, lr_backbone), lr=lr)
    return BuildFacts(
        shapes={k: list(v.shape) for k, v in model.state_dict().items()},
        n_parameters={
            "all": sum(n for n, _ in sizes.values()),
            "trainable": sum(n for n, trainable in sizes.values() if trainable),
        },
        groups=[
            {"names": sorted(names[id(p)] for p in group["params"]), "lr": group["lr"]}
            for group in optimizer.param_groups
        ],
    )


@cache
def build_facts(name: str) -> BuildFacts:
    """Facts of a hub entry with its defaults, or of `build_model` with the flags of that name."""
    if name not in BUILDS:
        with torch.device("meta"):
            return model_facts(getattr(hubconf, name)(), 1e-4, 1e-5)
    args = parse(BUILDS[name])
    model, criterion, postprocessors = build(args)
    facts = model_facts(model, args.lr, args.lr_backbone)
    facts.weight_dict, facts.losses = criterion.weight_dict, list(criterion.losses)
    facts.postprocessors = sorted(postprocessors)
    return facts


@covers("state_dict/*")
def test_state_dict_keys_and_shapes(key):
    section, name = key.split("/")
    ours, golden = build_facts(name).shapes, FACTS[section][name]
    assert not set(ours) ^ set(golden), "keys on one side only"
    assert not {k: (shape, golden[k]) for k, shape in ours.items() if shape != golden[k]}, "shapes (ours, golden)"


@covers("n_parameters/*")
def test_parameter_count(key):
    section, name = key.split("/")
    assert build_facts(name).n_parameters == FACTS[section][name]


@covers("lr_groups/*")
def test_optimiser_groups(key):
    section, name = key.split("/")
    golden, args = FACTS[section][name], parse(BUILDS[name])
    assert build_facts(name).groups == [
        {"names": golden["transformer"], "lr": args.lr},
        {"names": golden["backbone"], "lr": args.lr_backbone},
    ]


@covers("weight_dict/*")
def test_weight_dict(key):
    section, name = key.split("/")
    assert build_facts(name).weight_dict == FACTS[section][name]


@covers("losses/*")
def test_losses_in_order(key):
    section, name = key.split("/")
    assert build_facts(name).losses == FACTS[section][name]


@covers("postprocessors/*")
def test_postprocessors(key):
    section, name = key.split("/")
    assert build_facts(name).postprocessors == FACTS[section][name]
