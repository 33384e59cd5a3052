import pytest
import torch

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.networks import Extras, Preprocessing, load, save_weights
from convscope.train import with_new_head

TINY = {"width": 0.05, "norm": "batch", "input_shape": (1, 67, 67)}


@pytest.fixture
def trained(tmp_path):
    """A saved network of seven classes whose weights nobody could draw at random."""
    network = load("zfnet", num_classes=7, **TINY)
    for tensor in network.model.state_dict().values():
        tensor.copy_(torch.full_like(tensor, 3))
    known = Preprocessing((67, 67), (0.1,), (0.3,), source="seven things")
    extras = Extras(known, tuple("abcdefg"), network.recipe)
    save_weights(network.model, tmp_path / "seven.safetensors", extras)
    return tmp_path / "seven.safetensors"


@pytest.mark.parametrize("num_classes", [4, 7])
def test_all_but_the_classifier_comes_from_the_file(trained, num_classes):
    loaded = with_new_head("zfnet", trained, num_classes=num_classes)
    head = loaded.weights.missing
    assert [name.rpartition(".")[2] for name in head] == ["weight", "bias"]
    for name, tensor in loaded.model.state_dict().items():
        if name in head:
            assert len(tensor) == num_classes
            assert not torch.any(tensor == 3)
        else:
            assert torch.all(tensor == 3)
    assert loaded.inputs == (1, 1, 67, 67)
    assert loaded.class_names == ()
    assert (loaded.preprocessing.mean, loaded.preprocessing.source) == ((0.1,), "seven things")
    assert loaded.recipe["num_classes"] == num_classes
    assert loaded.recipe["norm"] == "batch"


def test_a_foreign_networks_file_fits_but_for_its_classifier(tmp_path):
    source = load("timm:resnet18", num_classes=11).model
    torch.save({"state_dict": {f"module.{n}": t for n, t in source.state_dict().items()}}, tmp_path / "r.pth")
    loaded = with_new_head("timm:resnet18", tmp_path / "r.pth", num_classes=3)
    assert loaded.weights.missing == ("fc.weight", "fc.bias")
    assert torch.equal(loaded.model.layer3[1].conv2.weight, source.layer3[1].conv2.weight)
    assert loaded.model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_network_with_a_new_head_trains(trained, tmp_path):
    loaded = with_new_head("zfnet", trained, num_classes=10)
    images = cs.data.load_data("digits", size=67, channels=1, per_class=4)
    run = cs.train(loaded, images, out=tmp_path / "run", epochs=1, batch_size=20)
    assert len(run.epochs) == 1
    assert len(load("zfnet", weights=run.weights).class_names) == 10


def test_what_doesnt_fit_is_one_line(trained, tmp_path):
    match = r"features\.conv1\.weight is \(4, 1, 7, 7\); expected \(10, 1, 7, 7\)"
    with pytest.raises(ConvscopeError, match=match):
        with_new_head("zfnet", trained, num_classes=4, width=0.1)
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ConvscopeError, match=r"features\.conv1\.weight is absent"):
        with_new_head("zfnet", tmp_path / "other.pth", num_classes=4, **TINY)
    code = "import torch\ndef build(num_classes=2):\n    return torch.nn.Identity(), (1, 8)\n"
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(ConvscopeError, match="Identity without a layer of 2 outputs"):
        with_new_head(f"{tmp_path}/net.py:build", tmp_path / "other.pth", num_classes=2)
