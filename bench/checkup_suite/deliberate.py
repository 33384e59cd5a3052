"""Deliberate uses of batch norm that look like faults and aren't: a check-up must say so, or be told so."""

import copy
from collections.abc import Callable, Iterator
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import convscope as cs
from bench.checkup_suite.healthy import Healthy
from bench.checkup_suite.networks import Residual, grown, images, loader
from bench.checkup_suite.planted import Subject

_STEPS = 12
_RATE = 0.005  # of steps that leave the running averages time to follow


class Siamese(nn.Module):
    """Runs one network on both pictures of a pair, which are of one kind, and adds their logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pairs: Tensor) -> Tensor:
        """Return logits (N, classes) of pairs (N, 6, H, W)."""
        return self.network(pairs[:, :3]) + self.network(pairs[:, 3:])


class Checkpointed(nn.Module):
    """Recomputes all of a network but its head in the backward pass."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = network[:-1], network[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        return self.head(checkpoint(self.body, x, use_reentrant=False))


def _stream() -> Iterator[tuple[Tensor, Tensor]]:
    epoch = loader(256)
    while True:
        yield from epoch


def _sgd(model: nn.Module, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trainable, _RATE, momentum=0.9, weight_decay=weight_decay)


def _training(model: nn.Module, step: Callable[[Subject, Tensor, Tensor], object]) -> Subject:
    """A subject whose loop makes steps and leaves evaluation to them."""
    subject = Subject(model, optimizer=_sgd(model))

    def train() -> None:
        for _, (pictures, labels) in zip(range(_STEPS), _stream(), strict=False):
            step(subject, pictures, labels)

    subject.train = train
    return subject


def _step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
    subject.model.train()
    subject.optimizer.zero_grad()
    F.cross_entropy(subject.model(pictures), labels).backward()
    subject.optimizer.step()


def ordinary() -> Subject:
    """Training and evaluation by turns, each in its mode."""

    def step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
        _step(subject, pictures, labels)
        with torch.no_grad():
            subject.model.eval()(pictures)

    return _training(grown("residual"), step)


def monte_carlo_dropout() -> Subject:
    """Samples of the outputs with dropout on, in training mode, declared."""
    model = nn.Sequential(*grown("plain")[:-1], nn.Dropout(0.3), grown("plain")[-1])  # type: ignore[index]

    def step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
        _step(subject, pictures, labels)
        with torch.no_grad(), cs.expected("evaluating-in-training-mode"):
            torch.stack([subject.model(pictures) for _ in range(3)]).var(0)

    return _training(model, step)


def monte_carlo_batch_norm() -> Subject:
    """Samples of the outputs by the batches that an image is in, declared."""

    def step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
        _step(subject, pictures, labels)
        with torch.no_grad(), cs.expected("evaluating-in-training-mode"):
            for seed in range(3):
                subject.model(torch.cat([pictures[:1], images(31, seed=seed)]))

    return _training(grown("residual"), step)


def precise_statistics() -> Subject:
    """Running averages replaced by the statistics of the training data."""
    model = grown("residual")
    cs.norm.recalibrate(model, loader(256, batch_size=64))
    return Subject(model, loader())


def frozen_by_convscope() -> Subject:
    """A backbone frozen for fine-tuning, and trained around."""
    model = grown("residual")
    cs.norm.freeze(model, only=["bn", "block1", "block2"])
    return _training(model, _step)


def frozen_by_mode() -> Subject:
    """The same by hand: evaluation mode anew after every ``train()``, and no gradients."""
    model = grown("residual")

    def step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
        model.train()
        for module in model.block1.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        subject.optimizer.zero_grad()
        F.cross_entropy(model(pictures), labels).backward()
        subject.optimizer.step()

    model.block1.requires_grad_(False)
    return _training(model, step)


def zero_gains() -> Subject:
    """Residual branches that start as nothing: γ of their last batch norm is 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Residual()
    for block in (model.block1, model.block2, model.block3):
        nn.init.zeros_(block.bn2.weight)
    cs.norm.recalibrate(model, loader(256, batch_size=256))
    return Subject(model.train(), loader())


def siamese() -> Subject:
    """One network called on two pictures of one kind."""
    model = Siamese(grown("plain"))
    both = zip(loader(seed=1), loader(seed=4), strict=True)
    return Subject(model, [(torch.cat([one, other], 1), labels) for (one, labels), (other, _) in both])


def two_passes() -> Subject:
    """A critic that scores real and generated pictures by turns, where both are of one distribution."""

    def step(subject: Subject, pictures: Tensor, _: Tensor) -> None:
        subject.model.train()
        subject.optimizer.zero_grad()
        real, generated = subject.model(pictures)[:, 0], subject.model(pictures.flip(3))[:, 0]
        (F.softplus(-real).mean() + F.softplus(generated).mean()).backward()
        subject.optimizer.step()

    return _training(grown("plain"), step)


def accumulation() -> Subject:
    """Gradients of four batches a step, each large enough by itself, with the momentum for four updates."""
    model = grown("plain")
    cs.norm.correct_momentum(model, 4)

    def step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
        subject.model.train()
        subject.optimizer.zero_grad()
        for _ in range(4):
            (F.cross_entropy(subject.model(pictures), labels) / 4).backward()
        subject.optimizer.step()

    return _training(model, step)


def checkpointed() -> Subject:
    """Activation checkpointing, with the momentum for two updates."""
    model = grown("plain")
    assert isinstance(model, nn.Sequential)
    cs.norm.correct_momentum(model, 2)
    return _training(Checkpointed(model), _step)


def averaged() -> Subject:
    """An average of weights, with statistics of its own."""
    model = grown("residual")
    average = AveragedModel(model)
    optimizer = _sgd(model)
    for _, (pictures, labels) in zip(range(_STEPS), _stream(), strict=False):
        _step(Subject(model, optimizer=optimizer), pictures, labels)
        average.update_parameters(model)
    cs.norm.recalibrate(average, loader(256, batch_size=256))
    return Subject(average, loader(), reference=model)


def mixed_precision() -> Subject:
    """Training under bfloat16 autocast, which leaves batch norms in float32."""

    def step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
        subject.model.train()
        subject.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(subject.model(pictures), labels)
        loss.backward()
        subject.optimizer.step()

    return _training(grown("residual"), step)


def transfer() -> Subject:
    """A new head on a trained network, on pictures of the same kind, before the first step."""
    model = grown("residual")
    model.head = nn.Linear(24, 4)
    return Subject(model, loader(), optimizer=_sgd(model))


def unfreezing() -> Subject:
    """Layers that are frozen at first and trained later, gradients and modes together."""
    model = grown("residual")
    steps = count()

    def step(subject: Subject, pictures: Tensor, labels: Tensor) -> None:
        thawed = next(steps) >= _STEPS // 2
        model.train()
        model.block1.requires_grad_(thawed).train(thawed)
        subject.optimizer.zero_grad()
        F.cross_entropy(model(pictures), labels).backward()
        subject.optimizer.step()

    return _training(model, step)


def teacher() -> Subject:
    """A copy with the student's buffers, which follows it closely."""
    model = grown("plain")
    return Subject(copy.deepcopy(model).eval(), loader(), reference=model)


def group_norm() -> Subject:
    """No batch norm left: nothing to find, and nothing to fail on."""
    model = grown("plain")
    cs.norm.convert(model, "group", data=loader())
    return Subject(model, loader())


USES = (
    ordinary, monte_carlo_dropout, monte_carlo_batch_norm, precise_statistics, frozen_by_convscope,
    frozen_by_mode, zero_gains, siamese, two_passes, accumulation, checkpointed, averaged, mixed_precision,
    transfer, unfreezing, teacher, group_norm,
)  # fmt: skip
CASES = tuple(Healthy(use.__name__.replace("_", " "), use) for use in USES)
