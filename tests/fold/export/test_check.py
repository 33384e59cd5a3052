import copy

import pytest
import torch
from torch import nn

from cases import state_of
from convscope.fold.export.check import answers
from convscope.fold.export.result import NotExportable
from convscope.fold.proof.trials import Trial

SHAPE = (3, 4, 6, 5)


def net():
    return nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 5, 3)).eval()


def test_the_yardstick_is_the_network_s_own_rounding():
    network, x = net(), torch.randn(SHAPE)
    said = answers(network, (Trial((x,), None),))
    with torch.no_grad():
        narrow = network(x)
        exact = copy.deepcopy(network).double()(x.double())
    assert torch.equal(said.outputs[0][0], narrow)
    assert said.own_error == ((narrow.double() - exact).abs().max() / exact.abs().max()).item()
    assert 1e-9 < said.own_error < 1e-6
    assert said.allowed == 1e-4
    assert said.trials == (str(SHAPE),)


def test_the_largest_difference_counts():
    network, x = net(), torch.randn(SHAPE)
    said = answers(network, (Trial((x,), None), Trial((x,), 1)))
    off = copy.deepcopy(network)
    with torch.no_grad():
        off[2].bias += 0.5
        size = min(network(x).abs().max(), *(y.abs().max() for y in said.outputs[1]))
    assert said.error_of(network) == 0
    assert said.error_of(off) == pytest.approx(0.5 / size.item(), rel=1e-5)


@pytest.mark.parametrize("wrong", [
    lambda x: torch.zeros(1), lambda x: (), lambda x: torch.full((3, 5, 2, 1), float("nan")),
])  # fmt: skip
def test_other_shapes_and_nan_are_infinitely_far(wrong):
    said = answers(net(), (Trial((torch.randn(SHAPE),), None),))
    assert said.error_of(wrong) == float("inf")


def test_a_network_that_insists_on_float32_has_no_yardstick():
    class Insisting(nn.Linear):
        def forward(self, x):
            assert x.dtype == torch.float32
            return super().forward(x)

    said = answers(Insisting(3, 2), (Trial((torch.randn(2, 3),), None),))
    assert (said.own_error, said.allowed) == (None, 1e-3)
    assert torch.get_default_dtype() == torch.float32


def test_the_network_stays():
    network, x = net().train(), torch.randn(SHAPE)
    kept = state_of(network)
    answers(network, (Trial((x,), None),))
    assert state_of(network) == kept


def test_failures_are_verdicts():
    with pytest.raises(NotExportable, match="RuntimeError: "):
        answers(net(), (Trial((torch.randn(2, 2),), None),))
    said = answers(net(), (Trial((torch.randn(SHAPE),), None),))
    with pytest.raises(NotExportable, match="ZeroDivisionError"):
        said.error_of(lambda x: 1 / 0)


def test_a_verdict_is_one_line_without_colours():
    try:
        try:
            raise ValueError("the\nreason")
        except ValueError as inner:
            raise RuntimeError("\x1b[96mFailed\x1b[0m to convert. Next steps:\n- do this") from inner
    except RuntimeError as error:
        verdict = str(NotExportable.because(error))
    assert verdict == "RuntimeError: Failed to convert. because of ValueError: the"


def test_outputs_that_are_never_finite_cannot_be_compared():
    net = nn.Sequential(nn.Conv2d(3, 2, 3)).eval()
    with torch.no_grad():
        net[0].bias.fill_(float("nan"))
    with pytest.raises(NotExportable, match="none of its outputs is a finite number"):
        answers(net, (Trial((torch.zeros(1, 3, 5, 5),), 1),))
