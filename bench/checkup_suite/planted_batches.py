"""Planted faults that batches show: how they are drawn, what they hold, and how they lie in memory."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import convscope as cs
from bench.checkup_suite.networks import grown, images, labels_of, loader
from bench.checkup_suite.planted import Planted, Subject

_FIRST = {"residual": "bn", "plain": "1"}


def _settled(model: nn.Module, batches: Iterable[Tensor], passes: int = 60) -> nn.Module:
    """Let running statistics come to rest on some batches."""
    model.train()
    with torch.no_grad():
        for batch in islice(cycle(batches), passes):
            model(batch)
    return model


# 24, sorted batches.


def _by_brightness(pictures: Tensor) -> Tensor:
    return pictures[pictures.mean((1, 2, 3)).argsort()]


def _plain_subject(name: str) -> Subject:
    return Subject(grown(name), loader())


def _sort(subject: Subject) -> Subject:
    pictures = _by_brightness(images(128, seed=1))
    return Subject(subject.model, DataLoader(TensorDataset(pictures, labels_of(pictures)), 32))


def _shuffle(subject: Subject) -> Subject:
    order = torch.Generator().manual_seed(1)
    return Subject(subject.model, DataLoader(subject.data.dataset, 32, shuffle=True, generator=order))


# 23, a network that two domains share.


class Pair(nn.Module):
    """Runs a network on pictures and on a second version of them, and adds up what comes out.

    Attributes:
        sketches: whether the second version is of another domain, or else the picture's mirror image.
        together: whether both versions make up one batch.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.sketches, self.together = net, False, False

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes)."""
        other = 2 * x.abs() + 1 if self.sketches else x.flip(3)
        if self.together:
            return self.net(torch.cat((x, other))).reshape(2, len(x), -1).sum(0)
        return self.net(x) + self.net(other)


def _pair(name: str) -> Subject:
    return Subject(_settled(Pair(grown(name)), images(256, seed=3).split(32)), images(128, seed=1).split(32))


def _two_domains(subject: Subject) -> Subject:
    model = copy.deepcopy(subject.model)
    model.sketches = True  # type: ignore[assignment]
    return Subject(_settled(model, images(256, seed=3).split(32)), subject.data)


def _one_batch(subject: Subject) -> Subject:
    model = copy.deepcopy(subject.model)
    model.together = True  # type: ignore[assignment]
    cs.norm.recalibrate(model, images(256, seed=3).split(64), method="sequential")
    return Subject(model, subject.data)


# 25, a loss that compares samples.


def _contrastive(outputs: Tensor, _: Tensor) -> Tensor:
    """Each picture's other half is to be told from those of the batch's other pictures."""
    one, other = F.normalize(outputs, dim=1).chunk(2)
    return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(one)))


def _views() -> list[tuple[Tensor, Tensor]]:
    """Batches of pictures of one scene each, every picture twice."""
    found = []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        pictures = images(16, seed=50 + seed)
        views = torch.cat((pictures, pictures + 0.1 * torch.randn(pictures.shape, generator=generator)))
        found.append((views, torch.zeros(32, dtype=torch.long)))
    return found


def _classified(name: str) -> Subject:
    return Subject(grown(name), _views())


def _compare(subject: Subject) -> Subject:
    return Subject(subject.model, subject.data, _contrastive)


def _by_group(subject: Subject) -> Subject:
    model = copy.deepcopy(subject.model)
    cs.norm.convert(model, "group")
    return Subject(model, subject.data, subject.loss)


# 27, padding.

_SIZES = ((24, 20), (14, 20), (18, 12), (10, 10))
_BLACK = -6.0


def _of_sizes(number: int, seed: int) -> list[Tensor]:
    """Batches of pictures of one size each."""
    return [images(number, size, seed + index) for index, size in enumerate(_SIZES)]


def _padded(number: int, seed: int) -> list[Tensor]:
    """The same pictures, filled up to the largest size, in mixed batches."""
    pictures = [
        F.pad(picture, (0, 20 - picture.shape[-1], 0, 24 - picture.shape[-2]), value=_BLACK)
        for picture in _of_sizes(number, seed)
    ]
    order = torch.randperm(4 * number, generator=torch.Generator().manual_seed(seed))
    return list(torch.cat(pictures)[order].split(32))


def _unpadded(name: str) -> Subject:
    return Subject(_settled(grown(name), _of_sizes(32, 7)), _of_sizes(32, 8))


def _pad(subject: Subject) -> Subject:
    return Subject(_settled(copy.deepcopy(subject.model), _padded(32, 7)), _padded(32, 8))


def _like_sizes(subject: Subject) -> Subject:
    return Subject(_settled(copy.deepcopy(subject.model), _of_sizes(32, 7)), _of_sizes(32, 8))


# 28, the wrong axis.


class Mixer(nn.Module):
    """Two convolutions along a sequence of 16 steps, normalised by channel, or by step if ``wrong``."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong = False
        self.first, self.second = nn.Conv1d(6, 16, 3, padding=1), nn.Conv1d(16, 16, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm1d(16), nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes), of sequences (N, 6, 16)."""
        for convolution, norm in ((self.first, self.bn1), (self.second, self.bn2)):
            x = convolution(x)
            x = norm(x.permute(0, 2, 1)).permute(0, 2, 1) if self.wrong else norm(x)
            x = torch.relu(x)
        return self.head(x.mean(2))


class Patches(nn.Module):
    """A convolution to maps (N, 16, 16, 16), normalised by channel, or by row if ``wrong``."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong = False
        self.conv, self.norm, self.head = nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes), of pictures (N, 3, 16, 16)."""
        x = self.conv(x)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.wrong else self.norm(x)
        return self.head(torch.relu(x).mean((2, 3)))


def _sequences(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list((torch.randn(512, 6, 16, generator=generator) + 1).split(64))


def _pictures(seed: int) -> list[Tensor]:
    return list((images(256, (16, 16), seed) + 1).split(32))


def _right_axis(model: type[nn.Module], data: Callable[[int], list[Tensor]]) -> Subject:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Subject(_settled(model(), data(1)), data(2))


def _set_axis(wrong: bool, data: Callable[[int], list[Tensor]], subject: Subject) -> Subject:
    model = copy.deepcopy(subject.model)
    model.wrong = wrong  # type: ignore[assignment]
    return Subject(_settled(model, data(1)), data(2))


# 30, cancellation.


def _with_first_norm(name: str) -> Subject:
    """A network whose inputs are normalised by a batch norm, as a user would to be spared constants."""
    model = nn.Sequential(nn.BatchNorm2d(3), grown(name))
    return Subject(_settled(model, images(256, seed=3).split(32)), images(128, seed=1).split(32))


def _far_off(number: int, seed: int) -> list[Tensor]:
    pictures = images(number, seed=seed) + 1e5
    return [batch.to(memory_format=torch.channels_last) for batch in pictures.split(32)]


def _shift(subject: Subject) -> Subject:
    model = copy.deepcopy(subject.model)
    cs.norm.recalibrate(model, _far_off(256, 3), method="sequential")
    return Subject(model, _far_off(128, 1))


def _contiguous(subject: Subject) -> Subject:
    batches = [batch.contiguous(memory_format=torch.contiguous_format) for batch in subject.data]
    return Subject(subject.model, batches)


def _own_sums(subject: Subject) -> Subject:
    model = copy.deepcopy(subject.model)
    cs.norm.convert(model, "batch")
    return Subject(model, subject.data)


# 31, dropout before a batch norm.


def _drop(name: str, model: nn.Module, early: bool) -> nn.Module:
    """The same network with dropout before its second batch norm, or before the head."""
    model = copy.deepcopy(model)
    path = {"residual": ("block1", "head"), "plain": ("4", "13")}[name][0 if early else 1]
    layer = model.get_submodule(path)
    setattr(model, path, nn.Sequential(nn.Dropout(0.5), layer))
    return model


def _late_dropout(name: str) -> Subject:
    return _dropping(name, False, _plain_subject(name))


def _dropping(name: str, early: bool, _: Subject) -> Subject:
    model = _settled(_drop(name, grown(name), early), images(256, seed=3).split(32))
    return Subject(model, loader())


_LAYOUTS: dict[str, tuple[type[nn.Module], Callable[[int], list[Tensor]], str]] = {
    "sequence": (Mixer, _sequences, "bn"),
    "patches": (Patches, _pictures, "norm"),
}
_OFF = ("stale-statistics", "train-eval-gap")

CASES: tuple[Planted, ...] = (
    *(
        Planted(
            24, "sorted-batches", name, partial(_plain_subject, name), _sort, first, "shuffle=True",
            _shuffle,
        )
        for name, first in _FIRST.items()
    ),
    *(
        Planted(
            23, "shared-over-domains", name, partial(_pair, name), _two_domains, "net.", "in one batch",
            _one_batch, _OFF,
        )
        for name in _FIRST
    ),
    *(
        Planted(
            25, "leaking-batch", name, partial(_classified, name), _compare, first,
            "cs.norm.convert(model, 'group')", _by_group, _OFF,
        )
        for name, first in _FIRST.items()
    ),
    *(
        Planted(
            27, "padding-in-statistics", name, partial(_unpadded, name), _pad, first, "like lengths",
            _like_sizes,
        )
        for name, first in _FIRST.items()
    ),
    *(
        Planted(
            28, "wrong-axis", name, partial(_right_axis, model, data), partial(_set_axis, True, data), norm,
            "permute", partial(_set_axis, False, data),
        )
        for name, (model, data, norm) in _LAYOUTS.items()
    ),
    Planted(
        30, "cancellation", "residual", partial(_with_first_norm, "residual"), _shift, "0#1",
        "cs.norm.convert(model, 'batch')", _own_sums, _OFF,
    ),
    Planted(
        30, "cancellation", "plain", partial(_with_first_norm, "plain"), _shift, "0#1",
        "torch.contiguous_format", _contiguous, _OFF,
    ),
    *(
        Planted(
            31, "dropout-before-norm", name, partial(_late_dropout, name), partial(_dropping, name, True), at,
            "behind the last batch norm", partial(_dropping, name, False), _OFF,
        )
        for name, at in {"residual": "block1", "plain": "5"}.items()
    ),
)  # fmt: skip
