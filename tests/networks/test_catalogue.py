"""What can be loaded by name."""

import pytest

from convscope.networks import catalogue, load, names


def test_ours_come_first_with_their_variants():
    listed = catalogue()
    assert [(n.reference, n.variant, n.groups) for n in listed.own] == [
        ("alexnet", "notes", 1),
        ("alexnet", "published", 2),
        ("alexnet", "torchvision", 1),
        ("zfnet", "", 1),
    ]
    assert names()[:2] == ("alexnet", "zfnet")
    for network in listed.own:
        options = {"variant": network.variant} if network.variant else {}
        assert load(network.reference, width=0.02, **options).inputs == (1, *network.input_shape)


def test_installed_zoos_are_listed_with_prefixes():
    timm = pytest.importorskip("timm")
    assert f"timm:{timm.list_models()[0]}" in names()
    assert "torchvision:alexnet" in names()
    assert catalogue().to_dict()["zoos"][0]["prefix"] == "timm"


def test_a_zoo_that_cannot_be_imported_says_why(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("convscope.networks.zoo.import_module", broken)
    assert all(not zoo.names and "pip install" in zoo.problem for zoo in catalogue().zoos)
    assert names() == ("alexnet", "zfnet")
