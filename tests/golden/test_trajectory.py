"""Thirty optimiser steps in float64: the sum of all parts, and the optimiser's groups, stay on the golden curve."""

import numpy as np
import torch

from tests.helpers.golden_cases import detector, detector_batch, weighted_sum
from tests.helpers.golden_rules import ARRAYS, covers
from training.optim import param_groups
from util.nested_tensor import NestedTensor

STEPS = 30


@covers("trajectory/loss_and_grad_norm")
def test_thirty_steps(key):
    model, criterion = (module.double() for module in detector("det"))
    samples, targets = detector_batch("det")
    samples = NestedTensor(samples.tensors.double(), samples.mask)
    targets = [{**t, "boxes": t["boxes"].double()} for t in targets]
    optimizer = torch.optim.AdamW(param_groups(model, 1e-3, 1e-4), lr=1e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 20)

    rows = []
    for _ in range(STEPS):
        total = weighted_sum(criterion(model(samples), targets), criterion.weight_dict)
        optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        rows.append((total.item(), norm.item()))
        optimizer.step()
        scheduler.step()

    golden = ARRAYS[key]
    np.testing.assert_allclose(
        rows[:10], golden[:10], rtol=1e-4, err_msg="(loss, gradient norm) of the first ten steps"
    )
    # Later a last-bit difference in the float32 encoding has grown: the losses alone, and loosely.
    np.testing.assert_allclose(
        [loss for loss, _ in rows[10:]], golden[10:, 0], rtol=0.02, err_msg="losses of the later steps"
    )
