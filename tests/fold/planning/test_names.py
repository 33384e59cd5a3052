"""Batch norms called as functions keep their names in the ledger while others before them go."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.fold import fold
from convscope.fold.planning.names import Untold, paired


class Branches(nn.Module):
    """A sum of branches, and two functional batch norms, of which only the first folds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = _normalised(self.layer(x), self.first)
        x = (self.a(x) + self.b(x)).relu()
        return _normalised(x, self.second)


class Pair(nn.Module):
    """Two functional batch norms and nothing else: one of them alone has the module's name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return _normalised(x, self.first), _normalised(y, self.second)


class AroundPair(nn.Module):
    """A pair of which one can be folded, and a sum that is merged."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.pair = nn.Conv2d(3, 4, 3), Pair()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layer(x)
        x, y = self.pair(x, F.relu(self.a(x) + self.b(x)))
        return x, y


def _normalised(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_the_ledger_names_the_calls_of_the_network_as_it_was(randomised) -> None:
    model = randomised(Branches())
    folded = fold(model, (2, 3, 9, 7))
    verdicts = {entry.address: entry.verdict for entry in folded.ledger.entries}
    assert verdicts == {"self#1:batch_norm.1": "folded", "self#1:batch_norm.2": "kept"}
    x = torch.randn(2, 3, 9, 7)
    torch.testing.assert_close(folded.model.double()(x.double()), model.double()(x.double()))


def test_one_that_is_left_alone_in_its_module_keeps_its_name(randomised) -> None:
    entries = fold(randomised(AroundPair()), (2, 3, 9, 7)).ledger.entries
    apart = fold(randomised(AroundPair()), (2, 3, 9, 7), merge=False).ledger.entries
    assert [entry.address for entry in entries] == ["pair#1:batch_norm.1", "pair#1:batch_norm.2"]
    assert [entry.verdict for entry in entries] == [entry.verdict for entry in apart]


def test_names_are_paired_within_their_callers() -> None:
    left = ["a#1:batch_norm.3", "b#1:batch_norm.1", "a#1:batch_norm.4", "bn#1"]
    now = ["a#1:batch_norm.1", "b#1", "a#1:batch_norm.2", "bn#1"]
    assert paired(left, now) == {
        "a#1:batch_norm.1": "a#1:batch_norm.3",
        "a#1:batch_norm.2": "a#1:batch_norm.4",
        "b#1": "b#1:batch_norm.1",
    }


def test_another_number_of_calls_tells_nothing() -> None:
    with pytest.raises(Untold):
        paired(["a#1:batch_norm.1", "a#1:batch_norm.2"], ["a#1"])
