import os
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.running.engine import lent, running_engine
from train.toy import toy_model


def _accelerates_state():
    return [dict(kind._shared_state) for kind in (PartialState, AcceleratorState, GradientState)]


@pytest.fixture
def fresh_accelerate():
    def clear():
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    clear()
    yield
    clear()


@pytest.mark.usefixtures("fresh_accelerate")
def test_nothing_of_accelerate_stays_behind():
    environment, threads = dict(os.environ), torch.get_num_threads()
    with running_engine(TrainConfig()) as accelerator:
        assert accelerator.num_processes == 1
        assert _accelerates_state()[0]
    assert _accelerates_state() == [{}, {}, {}]
    with pytest.raises(ZeroDivisionError), running_engine(TrainConfig(device="cpu")) as accelerator:
        assert accelerator.device.type == "cpu"
        raise ZeroDivisionError
    assert _accelerates_state() == [{}, {}, {}]
    assert (dict(os.environ), torch.get_num_threads()) == (environment, threads)


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_users_own_accelerator_goes_on():
    own = Accelerator(cpu=True)
    before = _accelerates_state()
    with running_engine(TrainConfig()):
        pass
    assert _accelerates_state() == before
    assert own.num_processes == 1


@pytest.mark.usefixtures("fresh_accelerate")
def test_an_accelerator_with_mixed_precision_is_in_the_way():
    Accelerator(cpu=True, mixed_precision="bf16")
    with pytest.raises(ConvscopeError, match="another device or mixed precision is in use"):  # noqa: SIM117
        with running_engine(TrainConfig()):
            pass


def test_a_users_value_error_passes_through():
    with pytest.raises(ValueError, match="mine"), running_engine(TrainConfig()):
        raise ValueError("mine")


def test_a_lent_model_comes_back_with_its_modes_hooks_and_attributes():
    model = toy_model()
    model[1].eval()
    attributes = [set(vars(module)) for module in model.modules()]
    parameters = [id(parameter) for parameter in model.parameters()]

    def use(fails):
        with running_engine(TrainConfig()) as accelerator, lent(model, accelerator) as prepared:
            prepared.train()
            prepared(torch.randn(4, 2, 6, 5)).sum().backward()
            if fails:
                raise ZeroDivisionError

    use(fails=False)
    with pytest.raises(ZeroDivisionError):
        use(fails=True)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True, True]
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_hooks


def test_without_accelerate_the_extra_is_named(monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "accelerate":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConvscopeError, match=r"pip install 'convscope\[train\]'"):  # noqa: SIM117
        with running_engine(TrainConfig()):
            pass


@pytest.mark.slow
def test_importing_the_room_doesnt_import_accelerate():
    code = "import sys, convscope.train; sys.exit('accelerate' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
