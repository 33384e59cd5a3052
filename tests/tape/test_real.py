"""A step that runs for real writes the same tape; networks that need data run only for real."""

import pytest
import torch
from torch import nn

from cases import CASES, state_of
from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, record


@pytest.mark.parametrize(
    "plan", [None, TrainingPlan("adamw"), TrainingPlan("sgd-momentum", clip_grad_norm=1.0)]
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_simulated_and_real_steps_agree(case, plan):
    """Operators, values and the births and deaths of every block of memory of a run with real tensors."""
    model = case.make()
    before = state_of(model)
    simulated, real = record(model, case.shape, plan), record(model, case.shape, plan, real=True)
    assert [str(call.address) for call in real.calls] == [str(call.address) for call in simulated.calls]
    assert real.values == simulated.values
    assert real.storages == simulated.storages
    assert state_of(model) == before


class DecidesByData(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y[y.mean((1, 2, 3)) > -9].mean((2, 3))


class ReadsNumpy(nn.Module):
    def forward(self, x):
        return x * float(x.detach().numpy().mean())


def test_shapes_that_depend_on_data_name_the_operator_and_offer_a_real_run():
    with pytest.raises(ConvscopeError, match=r"self#1:index\.1 .* depends on what .*--real"):
        record(DecidesByData(), (2, 3, 9, 9), TrainingPlan())
    model = DecidesByData()
    before = state_of(model)
    tape = record(model, (2, 3, 9, 9), TrainingPlan(), real=True)
    assert "convolution_backward" in [call.op for call in tape.calls]
    assert state_of(model) == before


def test_python_code_that_needs_data_names_the_module():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), ReadsNumpy())
    with pytest.raises(ConvscopeError, match=r"fails in 1#1 .*--real"):
        record(net, (2, 3, 5, 5))
    assert record(net, (2, 3, 5, 5), real=True).assumptions == ()


def test_an_operator_without_a_simulated_kernel_is_named():
    with torch.library._scoped_library("convscope_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CPU")

        class Twice(nn.Module):
            def forward(self, x):
                return torch.ops.convscope_test.twice(x)

        with pytest.raises(ConvscopeError, match=r"convscope_test_twice\.1 has no simulated kernel .*--real"):
            record(Twice(), (2, 3))
        tape = record(Twice(), (2, 3), real=True)
    assert [call.op for call in tape.calls] == ["convscope_test_twice"]


def test_a_model_comes_back_after_a_real_run_that_fails():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("in the middle")

    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), Fails())
    before = state_of(model)
    with pytest.raises(ConvscopeError, match=r"fails in 2#1 \(in the middle\).*check the input's shape$"):
        record(model, (2, 3, 5, 5), TrainingPlan(), real=True)
    assert state_of(model) == before


def test_meta_tensors_cannot_run_for_real():
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    with pytest.raises(ConvscopeError, match="meta"):
        record(model, (2, 3), real=True)


def test_a_custom_operator_without_a_simulation_is_named():
    @torch.library.custom_op("convscope_test::halved", mutates_args=())
    def halved(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    class Halves(nn.Module):
        def forward(self, x):
            return torch.ops.convscope_test.halved(x)

    with pytest.raises(ConvscopeError, match=r"convscope_test_halved\.1 has no simulated kernel .*--real"):
        record(Halves(), (2, 3))
    assert [call.op for call in record(Halves(), (2, 3), real=True).calls] == ["convscope_test_halved"]


@pytest.mark.filterwarnings("ignore:flex_attention called")
def test_operators_over_functions_are_refused_in_one_line():
    from torch.nn.attention.flex_attention import flex_attention

    class Flexible(nn.Module):
        def forward(self, x):
            return flex_attention(x, x, x)

    with pytest.raises(ConvscopeError, match=r"calls flex_attention in self#1, .*scaled_dot_product"):
        record(Flexible(), (1, 2, 16, 16))


def test_no_memory_asks_for_a_smaller_batch():
    net = nn.Sequential(nn.Conv2d(1, 1 << 20, 1), nn.Flatten())
    with pytest.raises(ConvscopeError, match=r"0#1:convolution\.1 finds no memory .*smaller batch"):
        record(net, (1 << 12, 1, 64, 64), real=True)
