"""Our own files: everything that was saved comes back."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks import Extras, Preprocessing, load, save_weights, zfnet
from convscope.networks.checkpoint import read_checkpoint
from convscope.networks.saved import read_extras

EXTRAS = Extras(
    Preprocessing((64, 48), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), source="training images"),
    ("cat", "dögg", "emu"),
    {"reference": "zfnet", "norm": "batch", "width": 0.1, "num_classes": 3, "input_shape": (3, 64, 48)},
)


def test_a_saved_network_is_rebuilt_from_its_file_alone(tmp_path):
    model = zfnet("batch", width=0.1, num_classes=3, input_size=(64, 48))
    model(torch.randn(4, 3, 64, 48))
    save_weights(model, tmp_path / "w.safetensors", EXTRAS)
    loaded = load("zfnet", weights=tmp_path / "w.safetensors", batch=2)
    assert loaded.inputs == (2, 3, 64, 48)
    assert loaded.preprocessing == EXTRAS.preprocessing
    assert loaded.class_names == EXTRAS.class_names
    assert loaded.weights.complete
    x = torch.randn(2, 3, 64, 48)
    assert torch.equal(loaded.model.eval()(x), model.eval()(x))


def test_options_given_now_go_before_saved_ones(tmp_path):
    model = zfnet("batch", width=0.1, num_classes=3, input_size=(64, 48))
    save_weights(model, tmp_path / "w.safetensors", EXTRAS)
    with pytest.raises(ConvscopeError, match="expected"):
        load("zfnet", weights=tmp_path / "w.safetensors", width=0.2)


def test_another_reference_does_not_take_the_saved_options(tmp_path):
    save_weights(zfnet("batch", width=0.1, num_classes=3, input_size=(64, 48)), tmp_path / "w", EXTRAS)
    with pytest.raises(ConvscopeError):
        load("alexnet", weights=tmp_path / "w", width=0.1)


def test_shared_tensors_are_saved(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    save_weights(model, tmp_path / "w.safetensors")
    read = read_checkpoint(tmp_path / "w.safetensors")
    assert torch.equal(read.sets[0].tensors["b.weight"], model["a"].weight)
    assert read_extras(tmp_path, read.metadata) == Extras()


def test_a_file_is_whole_or_absent(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ConvscopeError, match="can't be written"):
        save_weights(nn.Linear(1, 1), blocked / "w.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("header", ["{", "[1]", '{"preprocessing": {"colour": 1}}', '{"preprocessing": 3}'])
def test_a_broken_header_is_named(tmp_path, header):
    save_file({"weight": torch.ones(1, 1)}, tmp_path / "w.safetensors", {"convscope": header})
    with pytest.raises(ConvscopeError, match="header is broken"):
        read_extras(tmp_path / "w.safetensors", read_checkpoint(tmp_path / "w.safetensors").metadata)
