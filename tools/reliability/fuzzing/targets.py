"""The kinds of files that are damaged, with the code that reads them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.reliability.fuzzing.annotations import make_annotations, read_annotations
from tools.reliability.fuzzing.checkpoints import make_archive, make_checkpoint, read_archive, read_checkpoint
from tools.reliability.fuzzing.downloads import make_answer, read_answer
from tools.reliability.fuzzing.formats import (
    make_config,
    make_export,
    make_labels,
    make_xml,
    read_config,
    read_export,
    read_labels,
    read_xml,
)
from tools.reliability.fuzzing.images import make_image, read_images
from tools.reliability.fuzzing.predictions import make_folder, make_model, read_folder, read_model
from util.errors import CheckpointError


@dataclass(frozen=True)
class Target:
    """A kind of file: how to make a damaged one, which code reads it, and which errors are expected.

    Attributes:
        name: of the kind of file.
        suffix: of its files.
        make: random generator → file content.
        read: reads a file, and raises the readers' errors; an AssertionError for an answer that is wrong.
        expected_errors: types of errors that this repository's readers may raise.
    """

    name: str
    suffix: str
    make: Callable[[random.Random], bytes]
    read: Callable[[Path], None]
    expected_errors: tuple[type[BaseException], ...]


_PREDICTION = (CheckpointError, ValueError, OSError, FloatingPointError)

TARGETS = (
    Target("annotations", ".json", make_annotations, read_annotations, (ValueError, OSError)),
    Target("images", ".img", make_image, read_images, (OSError,)),
    Target("checkpoints", ".pth", make_checkpoint, read_checkpoint, (CheckpointError, ValueError)),
    Target("archives", ".pth", make_archive, read_archive, (CheckpointError,)),
    Target("models", ".pth", make_model, read_model, _PREDICTION),
    Target("folders", ".json", make_folder, read_folder, _PREDICTION),
    Target("voc", ".xml", make_xml, read_xml, (ValueError, OSError)),
    Target("yolo", ".txt", make_labels, read_labels, (ValueError, OSError)),
    Target("data_files", ".yaml", make_config, read_config, (ValueError, OSError)),
    Target("exports", ".json", make_export, read_export, (ValueError, OSError)),
)
DOWNLOADS = Target("downloads", ".json", make_answer, read_answer, (CheckpointError,))
