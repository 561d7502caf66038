"""Thirty steps of `train_one_epoch` in float64 stay on the golden curve of losses and gradient norms."""

import numpy as np
import torch

from engine import Monitor, train_one_epoch
from tests.helpers.golden_cases import detector, detector_batch
from tests.helpers.golden_rules import ARRAYS, covers
from training.optim import param_groups
from util.nested_tensor import NestedTensor

STEPS = 30


class Trajectory(Monitor):
    """Notes loss and gradient norm of every step."""

    def __init__(self):
        self.rows = []

    def observe(self, step, values, optimizer, meters):
        self.rows.append((values["loss"], values["grad_norm"]))


@covers("trajectory/loss_and_grad_norm")
def test_thirty_steps(key):
    model, criterion = (module.double() for module in detector("det"))
    samples, targets = detector_batch("det")
    samples = NestedTensor(samples.tensors.double(), samples.mask)
    targets = [{**t, "boxes": t["boxes"].double()} for t in targets]
    optimizer = torch.optim.AdamW(param_groups(model, 1e-3, 1e-4), lr=1e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 20)
    monitor, batches = Trajectory(), [(samples, targets)] * STEPS
    train_one_epoch(
        model, criterion, batches, optimizer, torch.device("cpu"), 0, 0.1, lr_scheduler=scheduler, monitor=monitor
    )
    rows = monitor.rows

    golden = ARRAYS[key]
    np.testing.assert_allclose(
        rows[:10], golden[:10], rtol=1e-4, err_msg="(loss, gradient norm) of the first ten steps"
    )
    # Later a last-bit difference in the float32 encoding has grown: the losses alone, and loosely.
    np.testing.assert_allclose(
        [loss for loss, _ in rows[10:]], golden[10:, 0], rtol=0.02, err_msg="losses of the later steps"
    )
