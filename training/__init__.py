"""What a training run needs around its loop: start, state, files, advice. `train` is a run as one call."""

from __future__ import annotations

from typing import Any

from models import build_model
from training.run import Training
from training.start import find_start, read_data
from training.state import TrainingResult
from training.validation import Validation
from util.compute.compilation import compiled
from util.dist import distribute, end_distributed_mode, is_dist_avail_and_initialized
from util.flags.keywords import args_of
from util.output.folder_lock import locks_released

__all__ = ["TrainingResult", "train"]


@locks_released()
def train(**settings: Any) -> TrainingResult:
    """Train as `main.py` does, with the same names, defaults and checks of the settings, and the same files.

    `train(data="photos", output_dir="outputs/mine", recipe="auto", no_flip=True)` is `python main.py --data photos
    --output_dir outputs/mine --recipe auto --no_flip`.

    Returns:
        Where the run's files are and what it has reached.

    Raises:
        TypeError: there is no such setting; the message names the closest one.
        ValueError, OSError, ImportError, CheckpointError: settings, data, weights or a package cannot be used.
        FloatingPointError: training produced a number that is not finite.
        StopRequested: Ctrl-C or SIGTERM; the state is saved, and the same call with `resume="auto"` goes on. It is a
            `BaseException`, as KeyboardInterrupt is.
    """
    args = args_of(settings)
    for name in ("eval", "overfit"):
        if getattr(args, name):
            raise ValueError(f"train() trains: pass --{name} to main.py instead")
    joined = is_dist_avail_and_initialized()
    try:
        start = find_start(args)
        data = read_data(start)
        model, criterion, postprocessors = build_model(data.args)
        start.prepare_model(model, data.categories)
        together = distribute(compiled(model, data.args.compile), data.args)
        validation = Validation(data.args, together, criterion, postprocessors, data.val, start.folder)
        training = Training(start, data, model, validation)
        training.fit()
        return training.result()
    finally:
        if not joined:
            end_distributed_mode()
