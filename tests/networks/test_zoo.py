"""timm's, torchvision's and Hugging Face's networks by reference; nothing is downloaded."""

import socket
import sys
from types import SimpleNamespace

import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.networks import load


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_timm_brings_its_size_preprocessing_and_classes():
    pytest.importorskip("timm")
    loaded = load("timm:mobilenetv3_small_050.lamb_in1k", batch=2)
    assert loaded.inputs == (2, 3, 224, 224)
    assert loaded.preprocessing.interpolation == "bicubic"
    assert loaded.preprocessing.source == "timm's configuration"
    assert loaded.class_names[1].startswith("goldfish")


def test_timm_takes_classes_channels_and_sizes():
    pytest.importorskip("timm")
    model, inputs = load("timm:resnet10t", num_classes=7, input_shape=(1, 64, 80))
    assert model.eval()(torch.zeros(inputs)).shape == (1, 7)
    loaded = load("timm:vit_tiny_patch16_224", input_shape=(3, 32, 48))
    assert loaded.model.eval()(torch.zeros(loaded.inputs)).shape == (1, 1000)
    assert load("timm:resnet10t", num_classes=7).class_names == ()


def test_torchvision_brings_the_settings_of_its_published_weights():
    pytest.importorskip("torchvision")
    loaded = load("torchvision:inception_v3")
    assert loaded.inputs == (1, 3, 299, 299)
    assert loaded.preprocessing.size == (299, 299)
    assert loaded.class_names[:2] == ("tench", "goldfish")
    assert load("torchvision:squeezenet1_1", num_classes=3).class_names == ()


def test_torchvision_networks_with_a_backbone_do_not_download_it():
    pytest.importorskip("torchvision")
    loaded = load("torchvision:lraspp_mobilenet_v3_large", input_shape=(3, 64, 64))
    assert loaded.model.eval()(torch.zeros(loaded.inputs))["out"].shape == (1, 21, 64, 64)


def test_video_networks_get_frames():
    pytest.importorskip("torchvision")
    loaded = load("torchvision:mc3_18")
    assert loaded.inputs == (1, 3, 16, 112, 112)
    assert loaded.preprocessing is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "timm:resnet81",
            r"unknown network 'timm:resnet81'; expected one of timm's \d+ names; did you mean 'resnet18'",
        ),
        ("timm:resnet18.no_such_tag", "Invalid pretrained tag"),
        ("timm:hf-hub:somebody/something", "unknown network"),
        ("torchvision:alexnte", "did you mean 'alexnet'"),
        ("torchvision:", "unknown network 'torchvision:'"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(reference, message):
    pytest.importorskip("timm")
    with pytest.raises(ConvscopeError, match=message):
        load(reference)


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "weights_backbone"])
def test_options_that_would_fetch_or_unpickle_are_refused(option):
    pytest.importorskip("timm")
    for reference in ("timm:resnet18", "torchvision:resnet18"):
        with pytest.raises(ConvscopeError, match="no download and no unpickling"):
            load(reference, **{option: True})


def test_options_that_the_network_lacks_are_refused():
    pytest.importorskip("timm")
    for reference in ("timm:resnet18", "torchvision:resnet18"):
        with pytest.raises(ConvscopeError, match="with colour=2 can't be built"):
            load(reference, colour=2)


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_an_absent_library_is_named(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    prefix = "hf" if library == "transformers" else library
    with pytest.raises(ConvscopeError, match=f"pip install {library}"):
        load(f"{prefix}:something")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("operator torchvision::nms does not exist", r"no compiled operators for this PyTorch.*pip install"),
        ("cannot import name 'x'", r"torchvision is installed and can't be imported \(cannot.*release"),
    ],
)
def test_a_library_that_breaks_while_importing_is_explained(monkeypatch, message, words):
    def broken(name):
        raise RuntimeError(message)

    monkeypatch.setattr("convscope.networks.zoo.import_module", broken)
    with pytest.raises(ConvscopeError, match=words):
        load("torchvision:resnet18")


def stand_in(config=None):
    """What of transformers is used, without transformers."""

    def from_pretrained(name, *, local_files_only, trust_remote_code):
        assert local_files_only
        assert not trust_remote_code
        if config is None:
            raise OSError(f"{name} is not a local folder")
        return config

    def from_config(config, **options):
        return torch.nn.Linear(config.num_channels, config.num_labels, **options)

    return SimpleNamespace(
        AutoConfig=SimpleNamespace(from_pretrained=from_pretrained),
        AutoModelForImageClassification=SimpleNamespace(from_config=from_config),
    )


def test_hugging_face_networks_come_from_their_configuration(monkeypatch):
    config = SimpleNamespace(image_size=48, num_channels=3, num_labels=2, id2label={0: "cat", 1: "dog"})
    monkeypatch.setitem(sys.modules, "transformers", stand_in(config))
    loaded = load("hf:folder", batch=2, bias=False)
    assert loaded.inputs == (2, 3, 48, 48)
    assert loaded.class_names == ("cat", "dog")
    assert loaded.model.bias is None
    with pytest.raises(ConvscopeError, match="can't be built"):
        load("hf:folder", colour=2)


def test_hugging_face_networks_are_not_downloaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", stand_in())
    with pytest.raises(
        ConvscopeError, match=r"no configuration found without a download.*folder with a config\.json"
    ):
        load("hf:somebody/something")
