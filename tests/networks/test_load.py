"""From a text to a network and its belongings."""

import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.networks import PREFIXES, Loaded, Resolved, load, zfnet
from convscope.networks.preprocessing import default_class_names

SMALL = {"norm": "none", "width": 0.02, "input_shape": (3, 47, 47)}


def test_unpacks_into_a_network_and_its_inputs():
    loaded = load("zfnet", **SMALL)
    model, inputs = loaded
    assert isinstance(loaded, Loaded)
    assert model is loaded.model is loaded[0]
    assert inputs == loaded.inputs == (1, 3, 47, 47)
    assert loaded.reference == "zfnet"
    assert loaded.weights is None
    assert model(torch.zeros(inputs)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("reference", "advice"),
    [
        ("alexnte", "did you mean 'alexnet'"),
        ("ZFnet", "did you mean 'zfnet'"),
        ("resnet18", "did you mean 'torchvision:resnet18' or 'timm:resnet18'"),
        ("convnext_tny", "timm:convnext_tiny"),
        ("", "`convscope networks` lists them"),
        ("????????", "`convscope networks` lists them"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(reference, advice):
    pytest.importorskip("timm")
    with pytest.raises(ConvscopeError, match=advice) as raised:
        load(reference)
    assert str(raised.value).startswith(f"unknown network {reference!r}; expected alexnet, zfnet, timm:NAME")


def test_weights_and_classes_come_from_files(tmp_path):
    source = zfnet(norm="none", width=0.02, num_classes=3, input_size=47)
    torch.save({"state_dict": {f"module.{n}": t for n, t in source.state_dict().items()}}, tmp_path / "w.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\nemu")
    loaded = load("zfnet", weights=tmp_path / "w.pth", classes=tmp_path / "names.txt", num_classes=3, **SMALL)
    assert loaded.class_names == ("cat", "dog", "emu")
    assert loaded.weights.stripped == ("module.",)
    assert torch.equal(loaded.model.classifier.fc8.weight, source.classifier.fc8.weight)


def test_class_names_must_be_as_many_as_scores(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog")
    with pytest.raises(ConvscopeError, match=r"2 class names in .*names\.txt'; expected 3"):
        load("zfnet", classes=tmp_path / "names.txt", num_classes=3, **SMALL)


def test_another_number_of_classes_in_the_weights_is_explained(tmp_path):
    torch.save(zfnet(norm="none", width=0.02, num_classes=5, input_size=47).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConvscopeError, match=r"classifier\.fc8\.weight is 5x.*pass num_classes=5"):
        load("zfnet", weights=tmp_path / "w.pth", num_classes=3, **SMALL)


def test_an_unreadable_weight_file_is_named_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setitem(PREFIXES, "mine", lambda request: pytest.fail("built"))
    with pytest.raises(ConvscopeError, match=r"absent\.pt"):
        load("mine:x", weights=tmp_path / "absent.pt")


def test_prefixes_can_be_added(monkeypatch):
    def resolve(request):
        return Resolved(
            torch.nn.Linear(4, request.num_classes), (4,), None, default_class_names(request.num_classes)
        )

    monkeypatch.setitem(PREFIXES, "mine", resolve)
    loaded = load("mine:anything", num_classes=2, batch=3)
    assert loaded.inputs == (3, 4)
    assert loaded.class_names == ("class 0", "class 1")


def test_the_recipe_builds_the_network_again():
    loaded = load("zfnet", norm="batch", width=0.1, num_classes=7, input_shape=(3, 64, 80))
    recipe = dict(loaded.recipe)
    assert recipe == {
        "reference": "zfnet", "norm": "batch", "width": 0.1, "num_classes": 7, "input_shape": [3, 64, 80],
    }  # fmt: skip
    reference, shape = recipe.pop("reference"), tuple(recipe.pop("input_shape"))
    again = load(reference, input_shape=shape, **recipe)
    assert str(again.model) == str(loaded.model)
    assert again.inputs == loaded.inputs
