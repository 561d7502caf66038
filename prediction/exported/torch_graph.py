"""The graph of a .pt2 file: JSON, of which PyTorch evaluates some texts as Python, so they are checked before."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

_WORD = re.compile(r"\w*", re.ASCII)
_PLAIN = re.compile(r"(?!__|.*\.__)[\w.+:-]*", re.ASCII)  # names of parameters, devices, versions
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b|save\b)\w+\.\w+|torch\.sym_\w+|math\.(ceil|floor|sqrt|trunc)|"
    r"_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|sub|truediv)",
    re.ASCII,
)
_REFUSED = {"as_custom_obj", "as_graph", "as_operator"}  # keys whose values name code
_WORDS = {"name", "as_name", "as_string", "graph_name"}  # become names in the code that PyTorch makes of the graph
_FORMULAS = {"expr_str", "guards_code"}
_TREES = {"in_spec", "out_spec"}
_TREE_TYPES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}

# What sizes and the conditions on them are made of.
_SYNTAX = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.keyword, ast.Attribute, ast.Subscript),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.cmpop, ast.boolop, ast.USub, ast.UAdd, ast.Not),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow),
)
_NAMES = set(
    """
    Symbol Integer Rational Float Add Mul Pow Max Min Mod PythonMod FloorDiv ModularIndexing CleanDiv CeilDiv CeilToInt
    FloorToInt TruncToInt IntTrueDiv FloatTrueDiv ToFloat Identity Eq Ne Ge Gt Le Lt And Or Not Equality Unequality
    GreaterThan LessThan StrictGreaterThan StrictLessThan true false oo int_oo L torch
    """.split()
)
_ATTRIBUTES = {"size", "stride", "storage_offset", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_float", "sym_int"}
_LARGEST_POWER = 4
_SYMBOL = re.compile(r"[a-z]+\d+", re.ASCII)  # s31, u0


def unsafe_text(graph: bytes) -> str | None:
    """The first text of a graph (`models/model.json`) that is more than names, kernels and arithmetic; None if all are.

    Raises:
        ValueError, RecursionError: it is no JSON.
    """
    return next(_unsafe("", json.loads(graph)), None)


def _unsafe(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _REFUSED or not _PLAIN.fullmatch(name):
                yield name
            if not (name == "metadata" and _is_shown_only(inner)):
                yield from _unsafe(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _unsafe(key, inner)
    elif isinstance(value, str) and not _is_safe(key, value):
        yield value


def _is_shown_only(metadata: Any) -> bool:
    """Whether this is where a node comes from, which PyTorch keeps as it is; a tensor can have the name `metadata`."""
    evaluated = _FORMULAS | _TREES | _WORDS | {"target"}
    return isinstance(metadata, dict) and all(
        isinstance(text, str) and name not in evaluated for name, text in metadata.items()
    )


def _is_safe(key: str, text: str) -> bool:
    if key == "target":
        return bool(_OPERATORS.fullmatch(text))
    if key in _FORMULAS:
        return _is_arithmetic(text)
    if key in _TREES:
        return _is_tree(text)
    return bool((_WORD if key in _WORDS else _PLAIN).fullmatch(text))


def _is_arithmetic(text: str) -> bool:
    """Whether a text consists of sizes, numbers, arithmetic and comparisons."""
    if len(text) > 100_000:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in nodes:
        if not isinstance(node, _SYNTAX):
            return False
        if isinstance(node, ast.Name) and node.id not in _NAMES and not _SYMBOL.fullmatch(node.id):
            return False
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name | ast.Attribute):
            return False
        if isinstance(node, ast.Attribute) and node.attr not in _ATTRIBUTES:
            return False
        if isinstance(node, ast.Constant) and not isinstance(node.value, int | float):
            if not isinstance(node.value, str) or not _WORD.fullmatch(node.value):
                return False
    powers = [node for node in nodes if _is_power(node)]
    return all(map(_is_small, powers))


def _is_power(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "Pow"
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)


def _is_small(power: ast.AST) -> bool:
    """Whether it is a small power of something that holds none: short towers of powers have more digits than memory."""
    parts = power.args if isinstance(power, ast.Call) else [power.left, power.right]
    if len(parts) != 2:
        return False
    base, exponent = parts
    number = exponent.args[0] if isinstance(exponent, ast.Call) and exponent.args else exponent
    is_small = (
        isinstance(number, ast.Constant) and isinstance(number.value, int) and 0 <= number.value <= _LARGEST_POWER
    )
    return is_small and not any(map(_is_power, ast.walk(base)))


def _is_tree(text: str) -> bool:
    """Whether the structure of inputs or outputs has only tuples, lists and dictionaries, whose keys are words."""

    def is_plain(tree: Any) -> bool:
        if not isinstance(tree, dict) or set(tree) != {"type", "context", "children_spec"}:
            return False
        context = tree["context"]
        keys = json.loads(context) if isinstance(context, str) else context
        of_words = isinstance(keys, list) and all(isinstance(one, str) and _WORD.fullmatch(one) for one in keys)
        is_known = tree["type"] in _TREE_TYPES and (keys is None or of_words)
        return is_known and all(map(is_plain, tree["children_spec"]))

    try:
        version, tree = json.loads(text)
        return isinstance(version, int) and is_plain(tree)
    except (ValueError, TypeError, RecursionError):
        return False
