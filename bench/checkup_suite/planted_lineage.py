"""Planted faults of descent: conversions, averages, teachers, checkpoints, ε, and toggled statistics.

Subjects have a reference: what the model was made from. Weights are averaged, copied, converted and loaded in
the ways that go wrong in practice: parameters without buffers, ``strict=False``, PyTorch's own converter.
"""

import copy
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import convscope as cs
from bench.checkup_suite.networks import ARCHITECTURES, NUM_CLASSES, grown, images, labels_of, loader
from bench.checkup_suite.planted import Planted, Subject

NORM = {"residual": "block2.bn1", "plain": "5"}
FIRST_NORM = {"residual": "bn", "plain": "1"}
HEAD = {"residual": "head", "plain": "13"}

Change = Callable[[Subject, str], None]
"""Changes a subject in place, given the name of its architecture."""


class Swish(nn.BatchNorm2d):
    """A batch norm and its activation in one layer, as timm's ``BatchNormAct2d`` is."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ŷ · sigmoid(ŷ), ŷ the batch norm's output."""
        return nn.functional.silu(super().forward(x))


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _replaced(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _norm(model: nn.Module, name: str) -> nn.BatchNorm2d:
    layer = model.get_submodule(NORM[name])
    assert isinstance(layer, nn.BatchNorm2d)
    return layer


def _changed(change: Change, name: str, subject: Subject) -> Subject:
    changed = copy.copy(subject)
    changed.model = copy.deepcopy(subject.model)
    change(changed, name)
    return changed


def _recalibrate(subject: Subject, _: str) -> None:
    cs.norm.recalibrate(subject.model, loader(seed=2), method="sequential")


# Averages of weights: 8. The last steps of training at a high rate, and the mean of where they led.


@cache
def _walk(name: str) -> tuple[nn.Module, AveragedModel]:
    """A network that has walked about, its statistics fresh; and its averaged weights with those."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = grown(name)
        averaged = AveragedModel(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.4, momentum=0.9)
        pictures = images(256, seed=6)
        labels = labels_of(pictures)
        for step in range(60):
            chosen = torch.randint(0, 256, (32,))
            loss = nn.functional.cross_entropy(model(pictures[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % 5 == 4:
                averaged.update_parameters(model)
    cs.norm.recalibrate(model, loader(seed=2), method="sequential")
    return model, averaged


def _averaged(name: str) -> Subject:
    """Averaged weights with statistics of their own."""
    _, averaged = copy.deepcopy(_walk(name))
    cs.norm.recalibrate(averaged, loader(seed=2), method="sequential")
    return Subject(averaged, loader())


def _averaged_alone(name: str) -> Subject:
    """The same without its wrapper, beside the network that was averaged."""
    raw, _ = copy.deepcopy(_walk(name))
    return Subject(_averaged(name).model.get_submodule("module"), loader(), reference=raw)


def _raw_statistics(subject: Subject, name: str) -> None:
    """The buffers are the raw network's, as ``AveragedModel`` leaves them."""
    raw, _ = _walk(name)
    for mine, other in zip(_norms(subject.model), _norms(raw), strict=True):
        mine.load_state_dict({**mine.state_dict(), **dict(other.named_buffers())})


# Teachers: 9. Weights close to the student's.


def _teacher(name: str) -> Subject:
    student = grown(name)
    teacher = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.999)
    return Subject(teacher, loader(), reference=student)


def _weights_only(subject: Subject, _: str) -> None:
    for layer in _norms(subject.model):
        layer.reset_running_stats()


def _copy_buffers(subject: Subject, _: str) -> None:
    for mine, other in zip(_norms(subject.model), _norms(subject.reference), strict=True):
        theirs = dict(other.named_buffers())
        for buffer_name, buffer in mine.named_buffers():
            buffer.copy_(theirs[buffer_name])


def _average_counters(subject: Subject, _: str) -> None:
    for layer in _norms(subject.model):
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked = 0.9 * layer.num_batches_tracked + 0.1 * layer.num_batches_tracked


def _whole_counters(subject: Subject, _: str) -> None:
    for layer in _norms(subject.model):
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked = layer.num_batches_tracked.long()


# Conversions: 14, 32.


def _origin(name: str) -> nn.Module:
    """A network one of whose batch norms is one with an activation."""
    model = grown(name)
    old = _norm(model, name)
    new = Swish(old.num_features)
    new.load_state_dict(old.state_dict())
    _replaced(model, NORM[name], new)
    cs.norm.recalibrate(model, loader(seed=2), method="sequential")
    return model


def _converted(name: str) -> Subject:
    subject = Subject(nn.Identity(), loader(), reference=_origin(name))
    _convert(subject, name)
    return subject


def _convert(subject: Subject, _: str) -> None:
    subject.model = copy.deepcopy(subject.reference)
    cs.norm.convert(subject.model, "sync", (2, 3, 24, 20))


def _convert_by_torch(subject: Subject, _: str) -> None:
    copied = copy.deepcopy(subject.reference)
    subject.model = nn.SyncBatchNorm.convert_sync_batchnorm(copied)  # type: ignore[no-untyped-call]


def _grouped(name: str) -> Subject:
    subject = Subject(nn.Identity(), loader(), reference=grown(name))
    _fit_groups(subject, name)
    return subject


def _fit_groups(subject: Subject, _: str) -> None:
    subject.model = copy.deepcopy(subject.reference)
    cs.norm.convert(subject.model, "group", data=loader(seed=2))


def _keep_affine(subject: Subject, _: str) -> None:
    subject.model = copy.deepcopy(subject.reference)
    cs.norm.convert(subject.model, "group")


def _with_group_norm(name: str) -> Subject:
    """A group norm on the features of an image, one position each."""
    model = grown(name)
    head = model.get_submodule(HEAD[name])
    assert isinstance(head, nn.Linear)
    channels = head.in_features
    neck = nn.Sequential(nn.GroupNorm(1, channels), nn.Linear(channels, NUM_CLASSES))
    _replaced(model, HEAD[name], neck)
    return Subject(model, loader())


def _regroup(groups: int | None, subject: Subject, name: str) -> None:
    neck = subject.model.get_submodule(HEAD[name])
    assert isinstance(neck, nn.Sequential)
    assert isinstance(neck[0], nn.GroupNorm)
    channels = neck[0].num_channels
    neck[0] = nn.GroupNorm(groups or channels, channels)


# Checkpoints: 33.


def _loaded(name: str) -> Subject:
    model = grown(name)
    return Subject(model, loader(), reference=copy.deepcopy(model.state_dict()))


def _load_parameters(subject: Subject, name: str) -> None:
    """A checkpoint of ``named_parameters()``, loaded with ``strict=False``."""
    subject.reference = {key: p.detach().clone() for key, p in subject.model.named_parameters()}
    _ignore_buffers(subject, name)


def _ignore_buffers(subject: Subject, name: str) -> None:
    parameters = dict(subject.model.named_parameters())
    subject.model = ARCHITECTURES[name]()
    subject.model.load_state_dict(parameters, strict=False)


def _stop_tracking(subject: Subject, name: str) -> None:
    old = _norm(subject.model, name)
    new = nn.BatchNorm2d(old.num_features, track_running_stats=False)
    new.load_state_dict(dict(old.named_parameters()))
    _replaced(subject.model, NORM[name], new)


def _track(subject: Subject, name: str) -> None:
    old = _norm(subject.model, name)
    new = nn.BatchNorm2d(old.num_features)
    new.load_state_dict(dict(old.named_parameters()), strict=False)
    _replaced(subject.model, NORM[name], new)
    _recalibrate(subject, name)


# ε: 16.


@torch.no_grad()
def _rescaled(model: nn.Module, variance: float) -> nn.Module:
    """The same network but for ε: every batch norm's input has this variance in each channel."""
    layers = list(model.modules())
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for convolution, norm in zip(convolutions, _norms(model), strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (variance / norm.running_var).sqrt()
        convolution.weight.mul_(scale[:, None, None, None])
        norm.running_mean.mul_(scale)
        norm.running_var.fill_(variance)
    return model


def _ported(name: str) -> Subject:
    """A network with TensorFlow's default ε, whose variances are 20 times that."""
    origin = _rescaled(grown(name), 0.02)
    for layer in _norms(origin):
        layer.eps = 1e-3
    return Subject(copy.deepcopy(origin), reference=origin)


def _set_epsilon(eps: float, subject: Subject, _: str) -> None:
    for layer in _norms(subject.model):
        layer.eps = eps


def _healthy(name: str) -> Subject:
    return Subject(grown(name), loader())


def _shrink(subject: Subject, _: str) -> None:
    _rescaled(subject.model, 1e-5)


# Settings: 5, 22.


def _toggle(subject: Subject, name: str) -> None:
    _norm(subject.model, name).track_running_stats = False


def _freeze(subject: Subject, name: str) -> None:
    cs.norm.freeze(subject.model, only=NORM[name])


def _to_train(name: str) -> Subject:
    """A network before its optimizer's first step."""
    model = grown(name)
    return Subject(model, optimizer=torch.optim.AdamW(model.parameters(), weight_decay=0.0))


def _summarise(subject: Subject, _: str) -> None:
    """Forwards of zeros in training mode, in a network whose averages have just been begun anew."""
    for layer in _norms(subject.model):
        layer.reset_running_stats()
    with torch.no_grad():
        for zeros in torch.zeros(3, 2, 3, 24, 20):
            subject.model.train()(zeros)
    subject.optimizer = torch.optim.AdamW(subject.model.parameters(), weight_decay=0.0)


def _load_again(subject: Subject, name: str) -> None:
    subject.model.load_state_dict(grown(name).state_dict())
    subject.optimizer = torch.optim.AdamW(subject.model.parameters(), weight_decay=0.0)


_LEFT = ("train-eval-gap", "stale-statistics", "young-statistics")
_OLD = ("train-eval-gap", "stale-statistics")
_WRAPPED = dict.fromkeys(ARCHITECTURES, "module.")
_ANY = dict.fromkeys(ARCHITECTURES, "")
_NECK = {name: f"{path}.0" for name, path in HEAD.items()}

# number, fault, healthy, plant, address, remedy, mend, what else follows from it
_TABLE: tuple[
    tuple[int, str, Callable[[str], Subject], Change, dict[str, str], str, Change, tuple[str, ...]], ...
] = (
    (5, "statistics-never-move", _healthy, _toggle, NORM, "cs.norm.freeze", _freeze, ()),
    (8, "averaged-weights", _averaged, _raw_statistics, _WRAPPED, "cs.norm.recalibrate", _recalibrate, _OLD),
    (8, "averaged-weights", _averaged_alone, _raw_statistics, _ANY, "cs.norm.recalibrate", _recalibrate,
     _OLD),
    (9, "teacher-statistics", _teacher, _weights_only, FIRST_NORM, "copy the student's", _copy_buffers,
     _LEFT),
    (9, "teacher-statistics", _teacher, _average_counters, FIRST_NORM, ".long()", _whole_counters, ()),
    (14, "lost-behaviour", _converted, _convert_by_torch, NORM, "cs.norm.convert", _convert, _OLD),
    (16, "dominant-epsilon", _ported, partial(_set_epsilon, 1e-5), _ANY, "set eps=0.001",
     partial(_set_epsilon, 1e-3), ()),
    (16, "dominant-epsilon", _healthy, _shrink, _ANY, "smaller eps=", partial(_set_epsilon, 1e-9), _OLD),
    (22, "dummy-forwards", _to_train, _summarise, FIRST_NORM, "load the checkpoint again", _load_again,
     ("young-statistics",)),
    (32, "one-value-per-group", _with_group_norm, partial(_regroup, None), _NECK, "num_groups=1",
     partial(_regroup, 1), ()),
    (32, "unfitted-group-norm", _grouped, _keep_affine, FIRST_NORM, "data=loader", _fit_groups, ()),
    (33, "missing-statistics", _loaded, _load_parameters, FIRST_NORM, "cs.norm.recalibrate",
     _recalibrate, _LEFT),
    (33, "missing-statistics", _loaded, _ignore_buffers, FIRST_NORM, "strict=True", _recalibrate, _LEFT),
    (33, "missing-statistics", _healthy, _stop_tracking, NORM, "track_running_stats=True", _track, ()),
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
