"""Measuring speed: times are taken from the clock after the device has finished its work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prediction.speed import MAX_PASSES, MIN_PASSES, PARTS, WARM_UP, Speed, measure, report

CPU = torch.device("cpu")


class Device:
    """A fake device: its own clock, and queued work that is done only on `wait`."""

    def __init__(self) -> None:
        self.now = self.queued = 0.0

    def clock(self) -> float:
        return self.now

    def wait(self) -> None:
        self.now, self.queued = self.now + self.queued, 0.0


class Part(nn.Module):
    def __init__(self, device: Device, seconds: float):
        super().__init__()
        self.device, self.seconds = device, seconds

    def forward(self) -> None:
        self.device.queued += self.seconds


class Fake(nn.Module):
    """A model whose first passes are slow and which takes 1 second besides its parts."""

    def __init__(self, device: Device, slow: int = WARM_UP):
        super().__init__()
        self.device, self.slow = device, slow
        self.backbone, self.transformer = Part(device, 4.0), Part(device, 2.0)
        self.seen: list[tuple[tuple[int, ...], bool]] = []

    def forward(self, samples) -> None:
        self.seen.append((tuple(samples.tensors.shape), bool(samples.mask.any())))
        self.device.queued += 1.0 + 100.0 * (len(self.seen) <= self.slow)
        self.backbone()
        self.transformer()


@pytest.fixture
def device() -> Device:
    return Device()


def time_it(model: Fake, **how) -> Speed:
    return measure(model, (6, 8), CPU, clock=model.device.clock, wait=model.device.wait, **how)


def test_times_of_the_model_and_its_parts_exclude_the_warm_up(device: Device):
    speed = time_it(Fake(device), budget=10_000)
    assert speed.whole == [7.0] * MAX_PASSES
    assert (
        speed.parts == {"backbone": [4.0] * MAX_PASSES, "transformer": [2.0] * MAX_PASSES}
        and tuple(speed.parts) == PARTS
    )


def test_a_part_does_not_count_work_queued_before_it(device: Device):
    model = Fake(device, slow=0)
    model.register_forward_pre_hook(lambda *_: setattr(device, "queued", 50.0))
    assert set(time_it(model).parts["backbone"]) == {4.0}


def test_a_slow_model_gets_fewer_passes(device: Device):
    assert len(time_it(Fake(device), budget=7.0 * 20).whole) == 20
    assert len(time_it(Fake(device), budget=0).whole) == MIN_PASSES


def test_batches_have_the_requested_size_and_no_padding(device: Device):
    model = Fake(device)
    assert time_it(model, batch_size=3, budget=0).batch_size == 3
    assert set(model.seen) == {((3, 3, 6, 8), False)}
    for size, batch_size in (((0, 8), 1), ((6, 8), 0)):
        with pytest.raises(ValueError, match="batch size, height and width must be at least 1, got "):
            measure(model, size, CPU, batch_size=batch_size)


def test_no_hooks_remain_in_the_model(device: Device):
    model = Fake(device)
    time_it(model, budget=0)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_the_table_gives_median_p90_and_images_per_second():
    ten = [float(seconds) for seconds in (1, 1, 1, 1, 1, 3, 3, 3, 3, 33)]
    speed = Speed(ten, {"backbone": [0.5], "transformer": [0.25]}, batch_size=4)
    rows = [line.split() for line in str(speed).splitlines()]
    assert rows[1] == ["whole", "2000.00", "ms", "6000.00", "ms"]  # halfway of 1 and 3; at 8.1 of 0...9: 3 + 0.1 * 30
    assert rows[2:4] == [[n, x, "ms", x, "ms"] for n, x in (("backbone", "500.00"), ("transformer", "250.00"))]
    assert rows[4] == ["throughput", "0.8", "images/s"]  # 40 images in 50 seconds


def test_the_report_says_what_was_measured_on_what():
    model = nn.Linear(9, 111)
    text = report(model, Speed([1.0], {}, batch_size=2), (64, 96), CPU)
    for part in ("1,110 parameters on cpu", f"threads {torch.get_num_threads()},", f"torch {torch.__version__}"):
        assert part in text
    assert "2 x 64 x 96 pixels" in text and "1 passes after 5 to warm up" in text
