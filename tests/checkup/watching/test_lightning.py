"""The callback, called as Lightning's trainer calls it."""

import sys
import types

import pytest

from checkup.watching.loops import found, setting, step
from convscope.checkup.watching import lightning_callback
from convscope.core.errors import ConvscopeError


class FakeTrainer:
    def __init__(self, optimizers, loggers):
        self.optimizers, self.loggers = optimizers, loggers


class FakeLogger:
    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))


@pytest.fixture
def lightning(monkeypatch):
    package, pytorch = types.ModuleType("lightning"), types.ModuleType("lightning.pytorch")
    pytorch.Callback = type("Callback", (), {})
    package.pytorch = pytorch
    monkeypatch.setitem(sys.modules, "lightning", package)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", pytorch)
    return pytorch


def test_the_lightning_callback(lightning):
    net, optimizer = setting()
    callback, logger = lightning_callback(every=2), FakeLogger()
    assert isinstance(callback, lightning.Callback)
    trainer = FakeTrainer([optimizer], [logger])
    callback.on_fit_start(trainer, net)
    for _ in range(13):
        step(net, optimizer)
    callback.on_fit_end(trainer, net)
    step(net, optimizer)
    assert callback.log.run.num_steps == 13
    assert found(callback.log) == set()
    assert [step for step, _ in logger.rows] == [*range(1, 11), 11, 13]
    callback.on_fit_start(trainer, net)
    callback.on_exception(trainer, net, ValueError())
    assert not optimizer._optimizer_step_post_hooks


def test_without_lightning(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConvscopeError, match="pip install lightning"):
        lightning_callback()
