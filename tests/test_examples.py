"""Examples run, and what their docstrings say they measured is what they measure."""

import importlib.util
from pathlib import Path

import pytest

import convscope as cs

EXAMPLES = Path(__file__).parents[1] / "examples"


def _module(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_weights_of_efficientnet_lite_are_judged_as_by_hand():
    pytest.importorskip("efficientnet_lite_pytorch")
    example = _module("efficientnet_checkup")
    model, pixels = example.network(), example.crops()
    # Half of what the docstring reports on: what it says of severities holds there, too.
    batches = example.as_trained(pixels[:60]).split(example.BATCH)
    found = cs.checkup(model, batches)
    assert {finding.severity for finding in found.findings} == {"advice"}
    layers = {layer.path: layer for layer in found.layers}
    for path in ("_bn0", "_blocks.1._bn1", "_blocks.6._bn1", "_blocks.14._bn1", "_bn1"):
        mean, variance, dead = example.by_hand(model, path, batches)
        assert layers[path].mean_residual == pytest.approx(mean, rel=1e-3)
        assert layers[path].variance_residual == pytest.approx(variance, rel=1e-3)
        if layers[path].dead_channels is not None:
            assert layers[path].dead_channels == dead

    # The residual of the first layer tells which preprocessing the weights were made for.
    wrong = cs.checkup(model, example.as_usual(pixels[: example.BATCH]))
    first = wrong.findings[0]
    assert (first.fault, first.severity, first.address) == ("stale-statistics", "error", "_bn0#1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_efficientnet_example_runs(capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    example = _module("efficientnet_checkup")
    example.PER_PHOTOGRAPH, example.BATCH = 2, 10
    example.main()
    printed = capsys.readouterr().out
    assert "Without data" in printed
    assert "ImageNet's mean" in printed
