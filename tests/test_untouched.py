"""The promise of the house: every tool leaves a network in training mode as it was, bit for bit."""

import random

import numpy as np
import pytest
import torch
from torch.nn.modules import module as nn_module

import convscope as cs
from cases import ResidualNet, state_of
from convscope.core.errors import ConvscopeError

IMAGES = torch.randn(6, 3, 33, 29)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def _fold(model, out):
    # Batch norms in training mode stay, with that reason; the frozen one, behind a hook, hands on its scale.
    ledger = cs.fold(model, (2, 3, 33, 29)).ledger
    assert (ledger.kept, ledger.partial) == (2, 1)


TOOLS = {
    "record": lambda model, out: cs.record(model, (2, 3, 33, 29), cs.TrainingPlan("adamw")),
    "record inference": lambda model, out: cs.record(model, IMAGES),
    "cost": lambda model, out: cs.cost(model, (2, 3, 33, 29)),
    "checkup without data": lambda model, out: cs.checkup(model, None),
    "checkup": lambda model, out: cs.checkup(model, [(IMAGES, LABELS), (IMAGES.flip(0), LABELS)]),
    "fold": _fold,
    "project": lambda model, out: cs.project(model, IMAGES[0], "conv2", 1),
    "gallery": lambda model, out: cs.gallery(model, IMAGES, top=3, out=out),
    "stem": lambda model, out: cs.stem(model, IMAGES),
}
FAILURES = {
    "record": lambda model: cs.record(model, (2, 4, 33, 29), cs.TrainingPlan()),
    "cost": lambda model: cs.cost(model, (2, 3, 3, 3)),
    "checkup": lambda model: cs.checkup(model, _breaking_loader()),
    "fold": lambda model: cs.fold(model, (2, 4, 33, 29)),
    "project": lambda model: cs.project(model, IMAGES[0], "conv3", 1),
    "gallery": lambda model: cs.gallery(model, IMAGES[:, :2], out="nowhere"),
    "stem": lambda model: cs.stem(model, IMAGES[:, :2]),
}


def _breaking_loader():
    yield IMAGES, LABELS
    raise ConvscopeError("a loader that breaks", "one that doesn't", "mend it")


@pytest.fixture
def network():
    """A network in training mode with one frozen batch norm, a hook, gradients and a frozen parameter."""
    model = ResidualNet().train()
    model(IMAGES).square().sum().backward()
    model.bn1.eval()
    model.shortcut.weight.requires_grad_(False)
    model.conv1.register_forward_hook(lambda module, args, result: result * 1)
    return model


def _everything(model):
    state = state_of(model)
    for key in [key for key in state if key.endswith("!kind")]:
        # Putting running statistics back counts as a write: versions may have grown, and nothing else.
        state[key] = state[key][:2]
    state["numpy"] = np.random.get_state()[1].tolist()
    state["python"] = random.getstate()
    state["global hooks"] = [len(hooks) for name, hooks in vars(nn_module).items() if name.endswith("_hooks")]
    return state


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_leaves_the_network_as_it_was(tool, network, tmp_path):
    before = _everything(network)
    TOOLS[tool](network, tmp_path / "out")
    assert _everything(network) == before


@pytest.mark.parametrize("tool", FAILURES)
def test_a_tool_that_fails_leaves_the_network_as_it_was(tool, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = _everything(network)
    with pytest.raises(ConvscopeError):
        FAILURES[tool](network)
    assert _everything(network) == before
    assert list(tmp_path.iterdir()) == []
