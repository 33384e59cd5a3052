"""Planted faults of the training loop: modes, dummy passes, accumulation, checkpointing, penalties, drift.

A subject's ``train`` is a user's loop, which ``cs.watch`` looks at. Loops are a table of settings; a fault
is a wrong setting, and mending sets it right or calls what the remedy names.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import convscope as cs
from bench.checkup_suite.networks import ARCHITECTURES, grown, images, labels_of
from bench.checkup_suite.planted import Planted, Subject

PICTURES, EPOCHS, STEPS, BATCH = 256, 2, 6, 16
FIRST_NORM = {"residual": "bn", "plain": "1"}
CHECKPOINTED = {"residual": "block2", "plain": "5"}
PARTS = (slice(0, 4), slice(4, 6), slice(6, None))  # of the plain network; the second is checkpointed
Prepare = Callable[[nn.Module], object]


@dataclass(frozen=True)
class Loop:
    """Settings of a training loop.

    Attributes:
        first: done to the model before anything else, such as freezing.
        before: done to the model before the first step.
        train, evaluate: done to the model at the beginning of every epoch, and before its evaluation.
        batches: how many batches' gradients are accumulated in a step.
        size: images in a batch.
        loss: of a model, pictures and labels.
        decay: weight decay of the first convolution if it is above 0, with SGD at learning rate 0.1, of
            weights alone; otherwise there is none, and the rate is 0.02.
    """

    first: Prepare = nn.Module.train
    before: Prepare = nn.Module.train
    train: Prepare = nn.Module.train
    evaluate: Prepare = nn.Module.eval
    batches: int = 1
    size: int = BATCH
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = field(
        default=lambda model, pictures, labels: nn.functional.cross_entropy(model(pictures), labels)
    )
    decay: float = 0.0


@dataclass
class Looped(Subject):
    """A subject that remembers its loop.

    Attributes:
        network: name of the architecture.
        loop: its settings.
    """

    network: str = ""
    loop: Loop = field(default_factory=Loop)


def looped(network: str, loop: Loop) -> Looped:
    """Return a network with mature statistics and a loop that trains it."""
    model = grown(network)
    rate = 0.1 if loop.decay else 0.02
    first, *others = [p for p in model.parameters() if p.dim() > 1 or not loop.decay]
    groups = [{"params": [first], "weight_decay": loop.decay}, {"params": others}]
    optimizer = torch.optim.SGD(groups, rate, momentum=0.9)
    loop.first(model)
    subject = Looped(model, optimizer=optimizer, network=network, loop=loop)
    subject.train = partial(_train, subject)
    return subject


def _train(subject: Looped) -> None:
    model, optimizer, loop = subject.model, subject.optimizer, subject.loop
    pictures = images(PICTURES, seed=7)
    labels = labels_of(pictures)
    order = torch.Generator().manual_seed(3)
    loop.before(model)
    for epoch in range(EPOCHS):
        if epoch:
            loop.train(model)
        for _ in range(STEPS):
            optimizer.zero_grad()
            for _ in range(loop.batches):
                chosen = torch.randint(0, PICTURES, (loop.size,), generator=order)
                loss = loop.loss(model, pictures[chosen], labels[chosen]) / loop.batches
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        loop.evaluate(model)
        with torch.no_grad():
            model(pictures[:BATCH])


def _with(changes: dict[str, Any], subject: Subject) -> Subject:
    """The same network with another loop."""
    assert isinstance(subject, Looped)
    return looped(subject.network, replace(subject.loop, **changes))


def _called(call: Callable[[nn.Module, str], object], subject: Subject) -> Subject:
    """What a remedy's call makes of a subject."""
    assert isinstance(subject, Looped)
    call(subject.model, subject.network)
    return subject


def _norms_eval(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _frozen_by_hand(model: nn.Module) -> None:
    model.train()
    _norms_eval(model)


def _dummy(model: nn.Module) -> None:
    """What a summary does: a forward pass of zeros, in the mode that the model is in."""
    model.train()
    _zeros(model)


def _zeros(model: nn.Module) -> None:
    with torch.no_grad():
        model(torch.zeros(2, 3, 24, 20))


def _dummy_in_evaluation_mode(model: nn.Module) -> None:
    model.eval()
    _zeros(model)
    model.train()


def _checkpointed(
    network: str, reentrant: bool, model: nn.Module, pictures: Tensor, labels: Tensor
) -> Tensor:
    """The loss, with one block's activations recomputed in backward."""
    if network == "plain":
        first, block, last = (nn.Sequential(*list(model)[part]) for part in PARTS)  # type: ignore[call-overload]
        outputs = last(checkpoint(block, first(pictures), use_reentrant=reentrant))
        return nn.functional.cross_entropy(outputs, labels)
    block = model.get_submodule(CHECKPOINTED[network])
    as_it_was = block.forward
    block.forward = lambda x: checkpoint(as_it_was, x, use_reentrant=reentrant)  # type: ignore[method-assign]
    try:
        return nn.functional.cross_entropy(model(pictures), labels)
    finally:
        del block.forward


def _penalty(model: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, and a penalty on how much outputs change with their inputs, as of a critic."""
    pictures = pictures.clone().requires_grad_()
    outputs = model(pictures)
    (slope,) = torch.autograd.grad(outputs.square().sum(), pictures, create_graph=True)
    return (
        nn.functional.cross_entropy(outputs, labels)
        + 0.01 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    )


def _two_domains(model: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor:
    """Photographs and their bright, flat counterparts, each in a call of its own."""
    first = nn.functional.cross_entropy(model(pictures), labels)
    return first + nn.functional.cross_entropy(model(0.2 * pictures + 3), labels)


def _one_batch_of_domains(model: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor:
    outputs = model(torch.cat([pictures, 0.2 * pictures + 3]))
    return nn.functional.cross_entropy(outputs, labels.repeat(2))


def _twice(model: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor:
    """Two calls with images of one kind, as in a siamese network."""
    half = len(pictures) // 2
    outputs = torch.cat([model(pictures[:half]), model(pictures[half:])])
    return nn.functional.cross_entropy(outputs, labels)


def _case(
    network: str, number: int, fault: str, wrong: dict[str, Any], remedy: str,
    right: dict[str, Any] | Callable[[nn.Module, str], object],
    healthy: Loop | None = None, address: str = "self", expects: tuple[str, ...] = (),
) -> Planted:  # fmt: skip
    return Planted(
        number=number,
        fault=fault,
        network=network,
        healthy=partial(looped, network, healthy or Loop()),
        plant=partial(_with, wrong),
        address=address,
        remedy=remedy,
        mend=partial(_with, right) if isinstance(right, dict) else partial(_called, right),
        expects=expects,
    )


def _cases(network: str) -> tuple[Planted, ...]:
    first = FIRST_NORM[network]
    group = partial(_case, network)
    return (
        group(
            1, "evaluating-in-training-mode", {"evaluate": nn.Module.train}, "model.eval()",
            {"evaluate": nn.Module.eval},
        ),
        group(
            2, "training-in-evaluation-mode", {"train": nn.Module.eval}, "model.train()",
            {"train": nn.Module.train},
            expects=("scale-drift",),  # nothing takes out the weights' length then: steps are long
        ),
        group(
            4, "freeze-undone", {"before": _frozen_by_hand}, "cs.norm.freeze(model)",
            {"first": cs.norm.freeze, "before": nn.Module.train}, address=first,
        ),
        group(
            20, "accumulated-batches", {"batches": 4, "size": 8}, "cs.norm.correct_momentum(model, 4)",
            lambda model, _: cs.norm.correct_momentum(model, 4),
        ),
        group(
            21, "recomputed-updates", {"loss": partial(_checkpointed, network, False)},
            "cs.norm.correct_momentum(model, 2",
            lambda model, name: cs.norm.correct_momentum(model, 2, only=CHECKPOINTED[name]),
            address=CHECKPOINTED[network],
        ),
        group(
            21, "recomputed-updates", {"loss": partial(_checkpointed, network, True)},
            "cs.norm.convert(model, 'convscope')", lambda model, _: cs.norm.convert(model, "convscope"),
            address=CHECKPOINTED[network],
        ),
        group(
            22, "dummy-forwards", {"before": _dummy}, "model.eval()", {"before": _dummy_in_evaluation_mode},
            address="",
        ),
        group(
            23, "shared-over-domains", {"loss": _two_domains}, "torch.cat", {"loss": _one_batch_of_domains},
            healthy=Loop(loss=_twice), address=first,
        ),
        group(
            26, "per-sample-gradients", {"loss": _penalty}, "cs.norm.convert(model, 'group')",
            lambda model, _: cs.norm.convert(model, "group"),
        ),
        group(34, "scale-drift", {"decay": 0.5}, "weight decay", {"decay": 5e-4}, address=first),
    )  # fmt: skip


CASES: tuple[Planted, ...] = tuple(case for network in ARCHITECTURES for case in _cases(network))
