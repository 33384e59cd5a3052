"""Linear layers whose bias is added in an operator of its own take gauges like others."""

import pytest
import torch
from torch import Tensor, nn

from convscope.fold import fold
from convscope.tape import record


class Transposed(nn.Module):
    """A batch norm over (N, C, L), read by two linear layers as (N, L, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x).transpose(1, 2)
        return self.q(x), self.k(x)


class Written(nn.Module):
    """A linear layer written out, between two batch norms."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.first, self.last, self.rank = nn.BatchNorm1d(4), nn.BatchNorm1d(4), rank

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.b + x @ self.w if self.rank == 2 else (x.transpose(1, 2) @ self.w + self.b).transpose(1, 2)
        return self.last(x)


class ReadBetween(Transposed):
    """What a layer makes before its bias is added, is read too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x).transpose(1, 2).reshape(-1, 4)
        product = x @ self.q.weight.t()
        return product + self.q.bias, product


class Shared(Transposed):
    """One bias is added to what two matrices make."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x).transpose(1, 2).reshape(-1, 4)
        return x @ self.q.weight.t() + self.q.bias, x.sin() @ self.q.weight + self.q.bias


def _folded(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    folded = fold(model, shape)
    x = torch.randn(shape, dtype=torch.float64)
    before, after = model.double()(x), folded.model.double()(x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    return [entry.verdict for entry in folded.ledger.entries]


def test_pytorch_adds_the_bias_apart_behind_a_transpose() -> None:
    ops = [call.op for call in record(Transposed().eval(), (2, 4, 7)).calls]
    assert (ops.count("mm"), ops.count("add"), ops.count("addmm")) == (2, 2, 0)


@pytest.mark.parametrize("length", [4, 7])  # as many positions as channels, or not
def test_a_batch_norm_goes_on_into_all_of_them(randomised, length: int) -> None:
    model = randomised(Transposed()).double()
    assert _folded(model, (2, 4, length)) == ["folded"]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (3, 4, 5)])
def test_a_layer_that_is_written_out_takes_both(randomised, shape: tuple[int, ...]) -> None:
    assert _folded(randomised(Written(len(shape))).double(), shape) == ["folded", "folded"]


def test_a_product_that_others_read_has_no_bias(randomised) -> None:
    assert _folded(randomised(ReadBetween()).double(), (2, 4, 7)) == ["partial"]


def test_a_bias_of_two_layers_is_nobodys(randomised) -> None:
    assert "folded" not in _folded(randomised(Shared()).double(), (2, 4, 7))


@pytest.mark.parametrize("apart", [False, True])
def test_a_bias_that_other_weights_have_too_stays_as_it_is(randomised, apart: bool) -> None:
    class Two(nn.Module):
        """Two batch norms behind two matrices with one bias."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
            self.first, self.last = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            bias = self.a.bias
            if apart:
                y, z = x @ self.a.weight.t() + bias, x @ self.b.weight.t() + bias
            else:
                y, z = (
                    nn.functional.linear(x, self.a.weight, bias),
                    nn.functional.linear(x, self.b.weight, bias),
                )
            return self.first(y), self.last(z)

    model = randomised(Two()).double()
    assert _folded(model, (3, 4)) == (["partial", "partial"] if apart else ["kept", "kept"])
    if not apart:
        assert all("a.bias, is also read by" in entry.reason for entry in fold(model, (3, 4)).ledger.entries)
