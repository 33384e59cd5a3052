"""Planted faults of running statistics, batch sizes, gains, biases and optimizer groups.

Each is put into a grown network by what people really do: frozen by ``requires_grad=False`` alone, a reset
counter, a constant added to a bias, and so on.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import convscope as cs
from bench.checkup_suite.networks import ARCHITECTURES, NUM_CLASSES, grown, images, loader
from bench.checkup_suite.planted import Planted, Subject

CONVOLUTION = {"residual": "block2.conv1", "plain": "4"}
NORM = {"residual": "block2.bn1", "plain": "5"}
HEAD = {"residual": "head", "plain": "13"}

Change = Callable[[Subject, str], None]
"""Changes a subject in place, given the name of its architecture."""


def _norm(subject: Subject, name: str) -> nn.BatchNorm2d:
    layer = subject.model.get_submodule(NORM[name])
    assert isinstance(layer, nn.BatchNorm2d)
    return layer


def _healthy(name: str) -> Subject:
    return Subject(grown(name), loader())


def _changed(change: Change, name: str, subject: Subject) -> Subject:
    changed = copy.copy(subject)
    changed.model = copy.deepcopy(subject.model)
    change(changed, name)
    return changed


def _recalibrate(subject: Subject, _: str) -> None:
    cs.norm.recalibrate(subject.model, loader(seed=2), method="sequential")


@torch.no_grad()
def _train_statistics(subject: Subject, batches: int) -> None:
    subject.model.train()
    for seed in range(batches):
        subject.model(images(32, seed=100 + seed))


# Settings of the layer: 3, 5, 15, 29.


def _freeze_parameters(subject: Subject, name: str) -> None:
    for parameter in _norm(subject, name).parameters():
        parameter.requires_grad_(False)


def _freeze(subject: Subject, name: str) -> None:
    cs.norm.freeze(subject.model, only=NORM[name])


def _stop_averages(subject: Subject, name: str) -> None:
    _norm(subject, name).momentum = 0.0


def _other_convention(subject: Subject, name: str) -> None:
    _norm(subject, name).momentum = 0.9
    _train_statistics(subject, 5)


def _own_convention(subject: Subject, name: str) -> None:
    _norm(subject, name).momentum = 0.1
    _recalibrate(subject, name)


def _halve(subject: Subject, _: str) -> None:
    subject.model.bfloat16()
    subject.data = [(pictures.bfloat16(), labels) for pictures, labels in loader()]


def _keep_in_float32(subject: Subject, _: str) -> None:
    for module in subject.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    batches = [(pictures.bfloat16(), labels) for pictures, labels in loader(seed=2)]
    cs.norm.recalibrate(subject.model, batches, method="sequential")


# Running statistics: 6, 7.


def _start_anew(subject: Subject, name: str) -> None:
    _norm(subject, name).reset_running_stats()
    _train_statistics(subject, 5)


def _stale(subject: Subject, name: str) -> None:
    """Weights move on while the averages stand still, as in a layer that was left in evaluation mode."""
    convolution = subject.model.get_submodule(CONVOLUTION[name])
    with torch.no_grad():
        convolution.weight.mul_(3.0)


def _other_domain(subject: Subject, _: str) -> None:
    """The test data are brighter and of more contrast than what the network was trained on."""
    subject.data = [(4 * pictures + 3, labels) for pictures, labels in loader(512)]


def _adapt(subject: Subject, _: str) -> None:
    cs.norm.recalibrate(subject.model, subject.data, method="sequential")


def _poison(subject: Subject, name: str) -> None:
    _norm(subject, name).running_var[2] = float("nan")


# The batch: 10, 11.


def _with_neck(name: str) -> Subject:
    """A batch norm over the image's features, one value each, as in face and person re-identification."""
    model = grown(name)
    head = model.get_submodule(HEAD[name])
    assert isinstance(head, nn.Linear)
    neck = nn.Sequential(nn.BatchNorm1d(head.in_features), nn.Linear(head.in_features, NUM_CLASSES))
    if isinstance(model, nn.Sequential):
        model[int(HEAD[name])] = neck
    else:
        setattr(model, HEAD[name], neck)
    cs.norm.recalibrate(model, loader(seed=2), method="sequential")
    return Subject(model, loader(129, drop_last=True))


def _keep_last(subject: Subject, _: str) -> None:
    subject.data = loader(129)


def _drop_last(subject: Subject, _: str) -> None:
    subject.data = loader(129, drop_last=True)


def _batches_of_two(subject: Subject, _: str) -> None:
    subject.data = loader(batch_size=2)


def _larger_batches(subject: Subject, _: str) -> None:
    subject.data = loader(batch_size=64)


# Gains and biases: 17, 19.


def _add_bias(subject: Subject, name: str) -> None:
    convolution = subject.model.get_submodule(CONVOLUTION[name])
    assert isinstance(convolution, nn.Conv2d)
    convolution.bias = nn.Parameter(torch.linspace(-1, 1, convolution.out_channels))
    mean = _norm(subject, name).running_mean
    assert mean is not None
    mean += convolution.bias.detach()


def _take_bias_in(subject: Subject, name: str) -> None:
    convolution = subject.model.get_submodule(CONVOLUTION[name])
    mean = _norm(subject, name).running_mean
    assert isinstance(convolution.bias, nn.Parameter)
    assert mean is not None
    mean -= convolution.bias.detach()
    convolution.bias = None


def _shut(gain: float, offset: float, subject: Subject, name: str) -> None:
    with torch.no_grad():
        _norm(subject, name).weight[:5] = gain
        _norm(subject, name).bias[:5] = offset
    _recalibrate(subject, name)


# Optimizers: 18, 32.


def _optimized(name: str) -> Subject:
    subject = _healthy(name)
    subject.optimizer = torch.optim.SGD(subject.model.parameters(), 0.01)
    return subject


def _decay_all(subject: Subject, _: str) -> None:
    subject.optimizer = torch.optim.SGD(subject.model.parameters(), 0.01, weight_decay=1e-4)


def _decay_kernels(subject: Subject, _: str) -> None:
    named = list(subject.model.named_parameters())
    kernels = [parameter for _, parameter in named if parameter.dim() > 1]
    others = [parameter for _, parameter in named if parameter.dim() <= 1]
    groups = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
    subject.optimizer = torch.optim.SGD(groups, 0.01, weight_decay=1e-4)


def _replace_late(subject: Subject, name: str) -> None:
    subject.optimizer = torch.optim.SGD(subject.model.parameters(), 0.01)
    old = _norm(subject, name)
    new = nn.BatchNorm2d(old.num_features)
    new.load_state_dict(old.state_dict())
    parent, _, last = NORM[name].rpartition(".")
    setattr(subject.model.get_submodule(parent), last, new)


def _new_optimizer(subject: Subject, _: str) -> None:
    subject.optimizer = torch.optim.SGD(subject.model.parameters(), 0.01)


_OTHER_DATA = ("train-eval-gap", "stale-statistics")
_FIRST_NORM = {"residual": "bn", "plain": "1"}
_NECK = {"residual": "head.0", "plain": "13.0"}
_SELF = dict.fromkeys(ARCHITECTURES, "self")

# number, fault, healthy, plant, address, remedy, mend, what else follows from it
_TABLE: tuple[
    tuple[int, str, Callable[[str], Subject], Change, dict[str, str], str, Change, tuple[str, ...]], ...
] = (
    (3, "frozen-but-tracking", _healthy, _freeze_parameters, NORM, "cs.norm.freeze", _freeze, ()),
    (5, "statistics-never-move", _healthy, _stop_averages, NORM, "cs.norm.freeze", _freeze, ()),
    (6, "young-statistics", _healthy, _start_anew, NORM, "cs.norm.recalibrate", _recalibrate, _OTHER_DATA),
    (7, "stale-statistics", _healthy, _stale, NORM, "cs.norm.recalibrate", _recalibrate, _OTHER_DATA),
    (7, "train-eval-gap", _healthy, _other_domain, _SELF, "cs.norm.recalibrate", _adapt, _OTHER_DATA),
    (0, "non-finite-statistics", _healthy, _poison, NORM, "cs.norm.recalibrate", _recalibrate, ()),
    (10, "one-value-per-channel", _with_neck, _keep_last, _NECK, "drop_last=True", _drop_last, ()),
    (11, "micro-batch", _with_neck, _batches_of_two, _NECK, "larger batches", _larger_batches, ()),
    (15, "momentum-convention", _healthy, _other_convention, NORM, "momentum=0.1", _own_convention,
     _OTHER_DATA),
    (17, "redundant-bias", _healthy, _add_bias, CONVOLUTION, "bias=False", _take_bias_in, ()),
    (18, "decayed-gains", _optimized, _decay_all, _FIRST_NORM, "weight_decay=0", _decay_kernels, ()),
    (19, "dead-gamma", _healthy, partial(_shut, 0.0, -0.5), NORM, "γ to 1", partial(_shut, 1.0, 0.0), ()),
    (19, "dead-channel", _healthy, partial(_shut, 0.5, -9.0), NORM, "β to 0", partial(_shut, 1.0, 0.0), ()),
    (29, "half-statistics", _healthy, _halve, _FIRST_NORM, "float32", _keep_in_float32, ()),
    (32, "foreign-optimizer", _optimized, _replace_late, NORM, "make the optimizer", _new_optimizer, ()),
)  # fmt: skip

CASES = tuple(
    Planted(
        number,
        fault,
        name,
        healthy=partial(healthy, name),
        plant=partial(_changed, plant, name),
        address=address[name],
        remedy=remedy,
        mend=partial(_changed, mend, name),
        expects=expects,
    )
    for number, fault, healthy, plant, address, remedy, mend, expects in _TABLE
    for name in ARCHITECTURES
)
