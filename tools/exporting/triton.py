"""Triton's model repository: a folder for the model with its configuration, and a folder for each version of the file.

Field names and numbers are those of `ModelConfig` in Triton's model_config.proto.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from util.errors import CheckpointError
from util.files import write_atomically
from util.text import printable

CONFIG = "config.pbtxt"
MAX_BATCH = 8  # images of one size in one request
_TYPES = {"tensor(float)": "TYPE_FP32", "tensor(bool)": "TYPE_BOOL"}
_RUNS = ((1, 128, 160), (2, 171, 97))  # (B, H, W) with which the configuration is compared


def write_triton(onnx_file: Path, repository: Path, entry: str) -> Path:
    """Put an exported .onnx into a model repository, as the next version of the model of its name.

    Args:
        onnx_file: the file; its stem is the model's name.
        repository: the folder that Triton serves (`--model-repository`).
        entry: what the file says of itself, JSON, which becomes the parameter `detr` of the configuration.

    Returns:
        The file in the repository.

    Raises:
        ValueError: the model's folder holds another configuration.
        CheckpointError: the configuration disagrees with the file; nothing is written.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file.read_bytes(), providers=["CPUExecutionProvider"])
    text = config_of(session, entry)
    check_config(text, session)
    folder = repository / onnx_file.stem
    config = folder / CONFIG
    if os.path.lexists(config) and config.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{config} is the configuration of another model, or was changed: choose another name for the .onnx, which "
            "is the model's, or move that folder away"
        )
    versions = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    version = folder / str(max(versions, default=0) + 1)
    partial = folder / f".{version.name}.{os.getpid()}"  # Triton takes numbers only for versions
    partial.mkdir(parents=True)
    try:
        shutil.copy(onnx_file, partial / "model.onnx")
        write_atomically(config, lambda file: file.write(text.encode()))
        os.replace(partial, version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version / "model.onnx"


def config_of(session: Any, entry: str) -> str:
    """The configuration of an ONNX Runtime session's model: sizes that differ between requests are -1."""
    shapes = [_shapes(session, run) for run in _RUNS]
    types = {node.name: _TYPES.get(node.type, node.type) for node in (*session.get_inputs(), *session.get_outputs())}
    parts: dict[str, list[str]] = {"input": [], "output": []}
    inputs = {node.name for node in session.get_inputs()}
    for name, kind in types.items():
        sides = [one if one == other else -1 for one, other in zip(*(shape[name][1:] for shape in shapes))]
        dims = ", ".join(map(str, sides))
        parts["input" if name in inputs else "output"].append(
            f'  {{ name: "{name}" data_type: {kind} dims: [ {dims} ] }}'
        )
    quoted = entry.replace("\\", "\\\\").replace('"', '\\"')
    blocks = "\n".join(f"{part} [\n" + ",\n".join(lines) + "\n]" for part, lines in parts.items())
    parameters = f'parameters [\n  {{ key: "detr" value: {{ string_value: "{quoted}" }} }}\n]'
    return f'backend: "onnxruntime"\nmax_batch_size: {MAX_BATCH}\n{blocks}\n{parameters}\n'


def check_config(text: str, session: Any) -> None:
    """Compare a configuration with what the model takes and gives, for two batches of different sizes.

    Raises:
        CheckpointError: it cannot be read, or a name, a type or a shape is another one.
    """
    config = parse_config(text)
    declared = {one.name: (one.data_type, list(one.dims)) for one in (*config.input, *config.output)}
    types = {node.name: _TYPES.get(node.type) for node in (*session.get_inputs(), *session.get_outputs())}
    if len(declared) != len(config.input) + len(config.output) or set(declared) != set(types):
        raise CheckpointError(f"{CONFIG} names {printable(sorted(declared))}, and the model has {sorted(types)}")
    for run in _RUNS:
        for name, shape in _shapes(session, run).items():
            kind, dims = declared[name]
            fits = len(dims) == len(shape) - 1 and all(one in (-1, side) for one, side in zip(dims, shape[1:]))
            if _type_name(kind) != types[name] or not fits or shape[0] > config.max_batch_size:
                raise CheckpointError(
                    f"{CONFIG} says that {name} is {_type_name(kind)} {dims} after the batch, and with {run[0]} x "
                    f"{run[1]} x {run[2]} pixels the model has {types[name]} {list(shape[1:])}"
                )


def parse_config(text: str) -> Any:
    """A configuration as a protocol buffer, with the fields that are used here.

    Raises:
        CheckpointError: it has another form.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, _model_config()())
    except text_format.ParseError as error:
        raise CheckpointError(f"{CONFIG} cannot be read: {printable(error, 300)}") from error


def _shapes(session: Any, run: tuple[int, int, int]) -> Mapping[str, Sequence[int]]:
    """Name → shape of all inputs and outputs for a batch (B, H, W)."""
    batch, height, width = run
    random = np.random.default_rng(0)
    image = random.standard_normal((batch, 3, height, width), dtype=np.float32)
    inputs = {"image": image, "mask": np.zeros((batch, height, width), dtype=bool)}
    names = [node.name for node in session.get_outputs()]
    found = dict(zip(names, session.run(names, inputs)))
    return {name: array.shape for name, array in {**inputs, **found}.items()}


def _model_config() -> Any:
    """The class of `ModelConfig`, built from its description, since Triton's own package need not be installed."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="detr_model_config.proto", package="inference", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for number, name in enumerate(("TYPE_INVALID", "TYPE_BOOL")):
        kinds.value.add(name=name, number=number)
    kinds.value.add(name="TYPE_FP32", number=11)

    def message(name: str, fields: Sequence[tuple[str, int, int, str | None, bool]]) -> None:
        made = file.message_type.add(name=name)
        for label, number, kind, type_name, is_list in fields:
            repeated = field.LABEL_REPEATED if is_list else field.LABEL_OPTIONAL
            made.field.add(name=label, number=number, type=kind, type_name=type_name, label=repeated)

    tensor = [
        ("name", 1, field.TYPE_STRING, None, False),
        ("data_type", 2, field.TYPE_ENUM, ".inference.DataType", False),
    ]
    message("ModelInput", [*tensor, ("dims", 4, field.TYPE_INT64, None, True)])
    message("ModelOutput", [*tensor, ("dims", 3, field.TYPE_INT64, None, True)])
    message("ModelParameter", [("string_value", 1, field.TYPE_STRING, None, False)])
    message(
        "ModelConfig",
        [
            ("max_batch_size", 4, field.TYPE_INT32, None, False),
            ("input", 5, field.TYPE_MESSAGE, ".inference.ModelInput", True),
            ("output", 6, field.TYPE_MESSAGE, ".inference.ModelOutput", True),
            ("parameters", 14, field.TYPE_MESSAGE, ".inference.ModelConfig.ParametersEntry", True),
            ("backend", 17, field.TYPE_STRING, None, False),
        ],
    )
    entry = file.message_type[-1].nested_type.add(name="ParametersEntry")
    entry.options.map_entry = True
    for number, (name, kind, type_name) in enumerate(
        (("key", field.TYPE_STRING, None), ("value", field.TYPE_MESSAGE, ".inference.ModelParameter")), start=1
    ):
        entry.field.add(name=name, number=number, type=kind, type_name=type_name, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def _type_name(number: int) -> str:
    return {1: "TYPE_BOOL", 11: "TYPE_FP32"}.get(number, str(number))
