"""The `torch.hub` entry points. A small detector replaces the real ones where their size does not matter."""

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import hubconf
from models.backbone import Backbone, Joiner
from models.detr import DETR
from models.position_encoding import PositionEmbeddingSine
from models.postprocess import PostProcess
from models.segmentation import DETRsegm
from models.transformer import Transformer
from util.checkpoint import CheckpointError, save_checkpoint

ENTRIES = {  # name → backbone, stride of its features, published file
    "detr_resnet50": ("resnet50", 32, "detr-r50-e632da11.pth"),
    "detr_resnet50_dc5": ("resnet50", 16, "detr-r50-dc5-f0fb7ef5.pth"),
    "detr_resnet101": ("resnet101", 32, "detr-r101-2c7b67e5.pth"),
    "detr_resnet101_dc5": ("resnet101", 16, "detr-r101-dc5-a2e86def.pth"),
}
PANOPTIC = {
    "detr_resnet50_panoptic": ("resnet50", 32, "detr-r50-panoptic-00ce5173.pth"),
    "detr_resnet50_dc5_panoptic": ("resnet50", 16, "detr-r50-dc5-panoptic-da08f1b1.pth"),
    "detr_resnet101_panoptic": ("resnet101", 32, "detr-r101-panoptic-40021d53.pth"),
}
EACH = pytest.mark.parametrize("name", ENTRIES)


def small_detr(
    backbone_name: str, dilation: bool, num_classes: int, backbone_weights: str | None, all_levels: bool = False
) -> DETR:
    backbone = Backbone("tiny", True, all_levels, dilation, weights=backbone_weights)
    width, heads = (128, 8) if all_levels else (16, 2)  # a mask head supports few widths
    joiner = Joiner(backbone, PositionEmbeddingSine(width // 2, normalize=True))
    return DETR(joiner, Transformer(width, heads, 1, 1, 16, return_intermediate_dec=True), num_classes, 4)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(hubconf, "_make_detr", small_detr)


def test_torch_hub_lists_exactly_the_entry_points():
    listed = [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")]
    assert listed == sorted([*ENTRIES, *PANOPTIC, "detr_tiny_shapes", "detr_tiny_shapes_panoptic", "predictor"])


# --- Without weights --------------------------------------------------------------------------------------------------


@EACH
def test_each_entry_has_its_backbone_and_stride_and_downloads_nothing(name, no_network):
    backbone_name, stride, _ = ENTRIES[name]
    with torch.device("meta"):
        model = getattr(hubconf, name)()
    backbone = model.backbone[0]
    assert backbone.strides[-1] == stride
    assert len(backbone.body["layer3"]) == {"resnet50": 6, "resnet101": 23}[backbone_name]
    assert backbone.body["layer4"][-1].conv2.dilation == ((2, 2) if stride == 16 else (1, 1))


def test_the_model_is_the_published_architecture(no_network):
    with torch.device("meta"):
        model = hubconf.detr_resnet50()
    transformer = model.transformer
    assert (transformer.d_model, transformer.nhead) == (256, 8)
    assert (transformer.encoder.num_layers, transformer.decoder.num_layers) == (6, 6)
    assert transformer.encoder.norm is None, "post-norm"
    assert {layer.self_attn.dropout for layer in transformer.encoder.layers} == {0.1}
    assert {layer.linear1.out_features for layer in transformer.decoder.layers} == {2048}
    assert (model.num_queries, model.class_embed.out_features, model.aux_loss) == (100, 92, False)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trainable == 41_302_368


@EACH
def test_the_number_of_classes_is_an_argument(name, small):
    assert getattr(hubconf, name)(num_classes=5).class_embed.out_features == 6
    assert getattr(hubconf, name)().class_embed.out_features == 92


@EACH
def test_the_postprocessor_is_returned_on_request(name, small):
    model, postprocessor = getattr(hubconf, name)(return_postprocessor=True)
    assert isinstance(model, DETR) and isinstance(postprocessor, PostProcess)
    result = postprocessor(model.eval()([torch.rand(3, 64, 64)]), torch.tensor([[100, 200]]))
    assert result[0]["boxes"].shape == (4, 4)


@EACH
def test_backbone_weights_are_passed_on(name, small, tmp_path):
    weights = {
        name: torch.rand_like(value) for name, value in Backbone("tiny", True, False, False).body.state_dict().items()
    }
    torch.save(weights, tmp_path / "tiny.pth")
    model = getattr(hubconf, name)(backbone_weights=str(tmp_path / "tiny.pth"))
    torch.testing.assert_close(dict(model.backbone[0].body.state_dict()), weights)


def test_torch_hub_loads_from_a_checkout(no_network):
    with torch.device("meta"):
        model = torch.hub.load(str(Path(hubconf.__file__).parent), "detr_resnet50", source="local", num_classes=7)
    assert type(model).__name__ == "DETR" and model.class_embed.out_features == 8


# --- Panoptic ---------------------------------------------------------------------------------------------------------


EACH_PANOPTIC = pytest.mark.parametrize("name", PANOPTIC)


@EACH_PANOPTIC
def test_each_panoptic_entry_has_its_backbone_and_stride_and_downloads_nothing(name, no_network):
    backbone_name, stride, _ = PANOPTIC[name]
    with torch.device("meta"):
        model = getattr(hubconf, name)()
    backbone = model.detr.backbone[0]
    assert len(backbone.strides) == 4 and backbone.strides[-1] == stride
    assert len(backbone.body["layer3"]) == {"resnet50": 6, "resnet101": 23}[backbone_name]
    assert model.detr.class_embed.out_features == 251 and not model.freeze_detr


@EACH_PANOPTIC
def test_the_panoptic_postprocessor_is_returned_on_request_with_the_published_things(name, small):
    model, postprocessor = getattr(hubconf, name)(num_classes=95, threshold=0.2, return_postprocessor=True)
    assert isinstance(model, DETRsegm) and model.detr.class_embed.out_features == 96
    assert postprocessor.threshold == 0.2 and len(postprocessor.is_thing_map) == 95
    assert postprocessor.is_thing_map[90] and not postprocessor.is_thing_map[91]
    with torch.no_grad():
        outputs = model.eval()([torch.rand(3, 64, 64)])
    assert postprocessor(outputs, [(64, 64)])[0].keys() == {"png_string", "segments_info"}


@EACH_PANOPTIC
def test_each_panoptic_entry_loads_its_published_file(name, small, monkeypatch):
    asked = []
    state = DETRsegm(small_detr("", False, 250, None, True)).state_dict()
    monkeypatch.setattr(hubconf.checkpoint, "load_checkpoint", lambda url: asked.append(url) or {"model": state})
    model = getattr(hubconf, name)(pretrained=True)
    assert asked == ["https://dl.fbaipublicfiles.com/detr/" + PANOPTIC[name][2]]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@EACH_PANOPTIC
def test_published_panoptic_weights_with_other_classes_are_refused(name, small, no_network):
    with pytest.raises(ValueError, match="250 classes, not 91"):
        getattr(hubconf, name)(pretrained=True, num_classes=91)


# --- Published weights ------------------------------------------------------------------------------------------------


@EACH
def test_each_entry_loads_its_published_file(name, small, monkeypatch):
    asked = []
    state = small_detr("", False, 91, None).state_dict()
    monkeypatch.setattr(hubconf.checkpoint, "load_checkpoint", lambda url: asked.append(url) or {"model": state})
    model = getattr(hubconf, name)(pretrained=True)
    assert asked == ["https://dl.fbaipublicfiles.com/detr/" + ENTRIES[name][2]]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@EACH
def test_published_weights_with_other_classes_are_refused(name, small, no_network):
    with pytest.raises(ValueError, match="91 classes, not 20"):
        getattr(hubconf, name)(pretrained=True, num_classes=20)


def test_weights_of_another_model_are_refused(small, monkeypatch):
    state = small_detr("", False, 90, None).state_dict()
    monkeypatch.setattr(hubconf.checkpoint, "load_checkpoint", lambda url: {"model": state})
    with pytest.raises(CheckpointError, match="detr-r50-e632da11.pth.*class_embed"):
        hubconf.detr_resnet50(pretrained=True)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[SimpleNamespace]:
    """A local server of weights: its folder, and the requested paths."""
    folder, asked = tmp_path / "site", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(hubconf, "WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}/")
    yield SimpleNamespace(folder=folder, asked=asked, hub=tmp_path / "hub")
    server.shutdown()
    thread.join()
    server.server_close()


def publish(site: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, str]:
    """Put weights on the site, with their hash in their name, and make the R50 entry request them."""
    model = small_detr("", False, 91, None)
    save_checkpoint(site.folder / "weights", {"model": model.state_dict()})
    digest = hashlib.sha256((site.folder / "weights").read_bytes()).hexdigest()
    name = f"detr-r50-{digest[:8]}.pth"
    (site.folder / "weights").rename(site.folder / name)
    finish = hubconf._finish
    monkeypatch.setattr(hubconf, "_finish", lambda model, weights, *rest: finish(model, weights and name, *rest))
    return model, name


def test_weights_are_downloaded_once_and_then_loaded_from_the_cache(small, site, monkeypatch):
    published, name = publish(site, monkeypatch)
    for _ in range(2):
        model = hubconf.detr_resnet50(pretrained=True)
        assert all(torch.equal(value, published.state_dict()[key]) for key, value in model.state_dict().items())
    assert len(site.asked) == 1 and site.asked[0] == f"/{name}"
    assert [path.name for path in (site.hub / "checkpoints").iterdir()] == [name]


def test_weights_with_a_wrong_hash_are_refused(small, site):
    save_checkpoint(site.folder / "detr-r50-e632da11.pth", {"model": small_detr("", False, 91, None).state_dict()})
    with pytest.raises(CheckpointError, match="detr-r50-e632da11.pth does not match the hash in its name"):
        hubconf.detr_resnet50(pretrained=True)
    assert not list((site.hub / "checkpoints").iterdir()), "wrong files do not stay in the cache"


def test_missing_weights_are_an_error_with_their_name(small, site):
    with pytest.raises(CheckpointError, match="detr-r50-e632da11.pth could not be downloaded"):
        hubconf.detr_resnet50(pretrained=True)
