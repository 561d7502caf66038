"""Images by address, in OpenCV's order of colours, and from generators of any length."""

import numpy as np
import pytest
import torch
from PIL import Image

from prediction.inputs import to_upright_rgb
from prediction.predictor import Predictor
from prediction.sources.address import picture_at
from tests.helpers.file_server import server  # noqa: F401
from tests.helpers.paths import REPOSITORY


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(REPOSITORY / "weights" / "detr_tiny_shapes.pth", "cpu", threshold=0.5)


@pytest.fixture(scope="module")
def shapes() -> list[np.ndarray]:
    """Red and blue discs of different sizes on grey."""
    rows, columns = np.mgrid[:96, :96]
    pictures = []
    for radius, color in ((12, (210, 30, 30)), (18, (30, 30, 210)), (25, (30, 160, 30))):
        picture = np.full((96, 96, 3), 200, np.uint8)
        picture[(rows - 45) ** 2 + (columns - 50) ** 2 < radius**2] = color
        pictures.append(picture)
    return pictures


def boxes(predictions):
    return [prediction.boxes for prediction in predictions]


def test_an_address_gives_the_picture_of_its_file(server, shapes):  # noqa: F811
    address, folder, _ = server
    Image.fromarray(shapes[0]).save(folder / "a.png")
    assert to_upright_rgb(f"{address}/a.png").tobytes() == to_upright_rgb(folder / "a.png").tobytes()


def test_what_is_wrong_at_an_address_is_said_with_the_address(server, shapes):  # noqa: F811
    address, folder, _ = server
    (folder / "page.png").write_text("<html></html>")
    Image.fromarray(shapes[0]).save(folder / "big.bmp")
    with pytest.raises(OSError, match=f"the image {address}/none.png cannot be loaded .*404.*: check the address"):
        to_upright_rgb(f"{address}/none.png")
    with pytest.raises(OSError, match=rf"the image {address}/page.png cannot be read \(it is a web page"):
        to_upright_rgb(f"{address}/page.png")
    with pytest.raises(OSError, match="big.bmp .* has 9,216 pixels|big.bmp has 9,216 pixels"):
        to_upright_rgb(f"{address}/big.bmp", max_pixels=1000)
    with pytest.raises(OSError, match="more than .* MB"), picture_at(f"{address}/big.bmp", max_bytes=1000):
        pass


def test_bgr_arrays_and_tensors_are_turned_and_files_are_not(predictor, shapes, tmp_path):
    expected = predictor(shapes[0])
    turned = np.ascontiguousarray(shapes[0][..., ::-1])
    for image in (turned, torch.from_numpy(turned).permute(2, 0, 1)):
        found = predictor(image, channels="BGR")
        assert found.image.tobytes() == expected.image.tobytes() and torch.equal(found.boxes, expected.boxes)
    Image.fromarray(shapes[0]).save(tmp_path / "a.png")
    assert predictor(tmp_path / "a.png", channels="BGR").image.tobytes() == expected.image.tobytes()
    with pytest.raises(ValueError, match='channels must be "RGB" or "BGR", got \'GBR\''):
        predictor(turned, channels="GBR")


def test_a_generator_gives_the_results_of_a_list_and_is_read_only_as_far_as_needed(predictor, shapes):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield shapes[taken[-1] % 3]

    stream = predictor(endless(), batch_size=2)
    assert taken == []
    found = [next(stream) for _ in range(5)]
    assert len(taken) == 6
    expected = predictor([shapes[index % 3] for index in range(5)])
    assert all(map(torch.allclose, boxes(found), boxes(expected)))
    assert [prediction.image.tobytes() for prediction in found] == [one.image.tobytes() for one in expected]
    stream = predictor(endless(), batch_size=1)
    taken.clear()
    next(stream)
    assert len(taken) == 1


@pytest.mark.parametrize("kind", [list, iter])
def test_with_skip_the_others_go_on(predictor, shapes, kind):
    images = [shapes[0], "none\x1b.png", shapes[1][:, :, 0], shapes[2]]
    with pytest.warns(UserWarning, match="is skipped") as warned:
        found = list(predictor(kind(images), on_error="skip"))
    assert [one is None for one in found] == [False, True, True, False]
    assert [str(one.message).split(":")[0] for one in warned] == ["image 1 is skipped", "image 2 is skipped"]
    assert "\x1b" not in str(warned[0].message)
    torch.testing.assert_close(found[3].boxes, predictor(shapes[2]).boxes, rtol=0, atol=0.01)  # pixels; another batch
    with pytest.raises(OSError, match="does not exist"):
        list(predictor(kind(images)))


def test_an_image_that_the_model_refuses_does_not_take_its_batch_with_it(predictor, shapes, monkeypatch):
    whole = predictor._predict

    def predict(images, *settings):
        if any(image.height == 30 for image in images):
            raise ValueError("too flat")
        return whole(images, *settings)

    monkeypatch.setattr(predictor, "_predict", predict)
    with pytest.warns(UserWarning, match="image 1 is skipped: too flat"):
        found = predictor([shapes[0], shapes[0][:30], shapes[1]], on_error="skip")
    assert [one is None for one in found] == [False, True, False]
