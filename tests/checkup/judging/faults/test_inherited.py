"""Statistics that should have been handed down: teachers, checkpoints, and layers without any."""

import copy

import pytest
import torch
from torch import nn

import convscope as cs
from checkup.grown import Small, evidence, faults, grow, loader
from convscope import checkup
from convscope.core.errors import ConvscopeError

GROWN = grow(Small())


@pytest.fixture
def student():
    return copy.deepcopy(GROWN)


def _teacher(student, buffers):
    """An average of weights after one update, its buffers copied or not."""
    teacher = Small()
    if buffers:
        teacher.load_state_dict(student.state_dict())
    with torch.no_grad():
        for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.copy_(0.999 * other)
    return teacher


def _of(found, fault):
    return [(f.severity, f.address) for f in found.findings if f.fault == fault]


@pytest.mark.parametrize("data", [None, "loader"])
def test_a_teacher_without_the_students_buffers(student, data):
    data = None if data is None else loader()
    teacher = _teacher(student, buffers=False)
    found = checkup(teacher, data, reference=student)
    assert _of(found, "teacher-statistics") == [("error", "bn1#1")]
    finding = next(f for f in found.findings if f.fault == "teacher-statistics")
    assert evidence(finding, "layers") == 3
    assert _of(checkup(_teacher(student, buffers=True), data, reference=student), "teacher-statistics") == []
    assert _of(checkup(teacher, data), "teacher-statistics") == []
    assert _of(checkup(teacher, data, reference=Small()), "teacher-statistics") == []  # neither has moved


def test_the_effect_is_the_students_distance_from_the_start(student):
    found = checkup(_teacher(student, buffers=False), reference=student)
    finding = next(f for f in found.findings if f.fault == "teacher-statistics")
    far = 0.0
    for name in ("bn1", "bn2", "bn3"):
        mean, variance = (
            getattr(student.get_submodule(name), s).double() for s in ("running_mean", "running_var")
        )
        far = max(far, float((mean / variance.sqrt()).abs().max()) / 0.5)
        far = max(far, float((variance.log() / torch.log(torch.tensor(2.0))).abs().max()))
    assert finding.effect == pytest.approx(far, rel=1e-5)


def test_an_averaged_counter(student):
    for layer in (student.bn2, student.bn3):
        layer.num_batches_tracked = 0.9 * layer.num_batches_tracked
    found = checkup(student)
    assert _of(found, "teacher-statistics") == [("warning", "bn2#1")]
    assert evidence(found.findings[0], "layers") == 2
    for layer in (student.bn2, student.bn3):
        layer.num_batches_tracked = layer.num_batches_tracked.long()
    assert faults(checkup(student)) == []


def test_a_checkpoint_of_parameters_alone(student):
    parameters = {name: p.detach().clone() for name, p in student.named_parameters()}
    model = Small()
    model.load_state_dict(parameters, strict=False)
    assert _of(checkup(model, reference=parameters), "missing-statistics") == [("error", "bn1#1")]
    cs.norm.recalibrate(model, loader())
    assert faults(checkup(model, reference=parameters)) == []


def test_one_layer_missing_is_named(student):
    state = {
        name: tensor for name, tensor in student.state_dict().items() if not name.startswith("bn2.running")
    }
    model = Small()
    model.load_state_dict(state, strict=False)
    found = checkup(model, reference=state)
    assert _of(found, "missing-statistics") == [("error", "bn2#1")]
    assert evidence(found.findings[0], "layers") == 1


def test_an_old_checkpoint_without_counters_is_fine(student):
    state = {name: t for name, t in student.state_dict().items() if "num_batches_tracked" not in name}
    assert faults(checkup(student, reference=state)) == []


def test_statistics_that_werent_loaded(student):
    model = Small()
    model.load_state_dict(dict(student.named_parameters()), strict=False)
    found = checkup(model, reference=student.state_dict())
    assert _of(found, "missing-statistics") == [("error", "bn1#1")]
    assert "weren't loaded" in found.findings[0].why
    assert _of(found, "teacher-statistics") == []


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, cs.norm.BatchNorm2d])
@pytest.mark.parametrize("data", [None, "loader"])
def test_a_layer_without_statistics(student, norm, data):
    data = None if data is None else loader()
    affine = dict(student.bn2.named_parameters())
    student.bn2 = norm(12, track_running_stats=False)
    student.bn2.load_state_dict(affine)
    x = torch.randn(4, 3, 11, 9)
    assert not torch.allclose(student.eval()(x)[:1], student(x[:1]))  # its outputs depend on the batch
    found = checkup(student, data)
    assert _of(found, "missing-statistics") == [("warning", "bn2#1")]
    with cs.checkup.expected("missing-statistics", at="bn2"):
        meant = checkup(student, data)
    assert _of(meant, "missing-statistics") == []
    assert [f.address for f in meant.expected] == ["bn2#1"]
    student.bn2 = norm(12)
    student.bn2.load_state_dict(affine, strict=False)
    cs.norm.recalibrate(student, loader())
    assert faults(checkup(student, data)) == []


def test_instance_norm_has_none_by_design():
    model = grow(Small(lambda channels: nn.InstanceNorm2d(channels, affine=True)), batches=1)
    with pytest.raises(ConvscopeError):
        cs.norm.recalibrate(model, loader())
    assert faults(checkup(model, loader())) == []
