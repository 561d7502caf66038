"""A checkpoint of our model with random weights, to export: `python -m benchmarks.subjects.checkpoint JSON`."""

from __future__ import annotations

import torch

from benchmarks.common.work import read_work, report
from benchmarks.subjects.ours import build


def main() -> None:
    """Write the checkpoint to the path of the work."""
    work = read_work()
    model, _, args = build(work)
    torch.save({"model": model.state_dict(), "args": vars(args)}, work.path)
    report(work, [])


if __name__ == "__main__":
    main()
