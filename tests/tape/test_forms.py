"""Results made from remembered forms are those that PyTorch's own simulation gives."""

import pytest
import torch
from torch import nn

import convscope.tape.recorder as recorder
from cases import CASES
from convscope.core.errors import ConvscopeError
from convscope.tape import TrainingPlan, forms, record


def without_memory(monkeypatch, *args, **kwargs):
    """The tape that PyTorch's simulation gives for every single operator."""
    with monkeypatch.context() as patched:
        patched.setattr(recorder, "key_of", lambda *_: None)
        return record(*args, **kwargs)


@pytest.mark.parametrize("plan", [None, TrainingPlan("adamw"), TrainingPlan("sgd", foreach=False)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_tape_as_without_memory(case, plan, monkeypatch):
    model = case.make()
    forms._remembered.clear()
    first, again = record(model, case.shape, plan), record(model, case.shape, plan)
    plain = without_memory(monkeypatch, model, case.shape, plan)
    assert again == first == plain


class Views(nn.Module):
    """Views of views, in-place writes through them, promotion of integers and booleans, no elements."""

    def forward(self, x):
        y = x.permute(0, 2, 3, 1)[:, 1:, :, ::2].unsqueeze(1)
        z = y.clone()
        z[:, :, 0].mul_(2)
        z.transpose(1, 2).add_(1)
        counts = (z > 0).sum((2, 3))
        parts = counts.float().split(1, dim=-1)
        empty = x[:0].sum() + x.new_zeros(0, 3).sum()
        half = (counts + 1).to(torch.float16) + 1.5
        return torch.cat([*parts, half.float()], -1), counts / 2, counts + 2, counts + 2.0, empty


@pytest.mark.parametrize("double", [False, True])
def test_views_promotion_and_empty_tensors(double, monkeypatch):
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    try:
        forms._remembered.clear()
        tapes = [record(Views(), (2, 3, 5, 7)) for _ in range(2)]
        plain = without_memory(monkeypatch, Views(), (2, 3, 5, 7))
    finally:
        torch.set_default_dtype(torch.float32)
    assert tapes[0] == tapes[1] == plain
    real = [output.dtype for output in Views()(torch.randn(2, 3, 5, 7))]
    assert double or [plain.values[value].dtype for value in plain.outputs] == real


def test_a_shape_that_fails_once_fails_again():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2))
    for _ in range(2):
        with pytest.raises(ConvscopeError, match=r"2#1:addmm\.1"):
            record(net, (2, 3, 9, 9))


class Odd(nn.Module):
    """Results whose form the arguments' forms don't tell."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        y = self.layer(x)
        with torch.no_grad():
            for _ in range(2):
                resized = torch.empty(0)
                torch.mm(y, y.t(), out=resized)
        complex_ = y * 1j
        return resized, torch.view_as_real(complex_), torch.fft.fft(y).conj().imag * 2


def test_resized_results_complex_factors_and_lazy_negation(monkeypatch):
    forms._remembered.clear()
    tapes = [record(Odd(), (4, 6)) for _ in range(3)]
    plain = without_memory(monkeypatch, Odd(), (4, 6))
    assert tapes[0] == tapes[1] == tapes[2] == plain
    real = Odd()(torch.randn(4, 6))
    shapes = [(plain.values[v].shape, plain.values[v].dtype) for v in plain.outputs]
    assert shapes == [(tuple(out.shape), out.dtype) for out in real]


def test_other_devices_fail_every_time():
    class Mixes(nn.Module):
        def forward(self, x):
            return x + torch.zeros(4, device="cuda")

    for _ in range(3):
        with pytest.raises(ConvscopeError):
            record(Mixes(), (2, 4))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_factors_are_recorded():
    class Sparse(nn.Module):
        def forward(self, x):
            places = torch.tensor([[0, 1], [1, 2]])
            return torch.sparse.mm(torch.sparse_coo_tensor(places, torch.ones(2), (5, 4)), x)

    for _ in range(2):
        assert record(Sparse(), (4, 3)).calls


def test_recurrent_layers_have_one_tape(monkeypatch):
    net = nn.LSTM(4, 5, 2, bidirectional=True)
    forms._remembered.clear()
    tapes = [record(net, (3, 2, 4), TrainingPlan()) for _ in range(3)]
    assert tapes[0] == tapes[1] == tapes[2] == without_memory(monkeypatch, net, (3, 2, 4), TrainingPlan())
