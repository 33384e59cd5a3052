"""Does a network keep to its limits? For CI: readings of the other rooms against numbers."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from convscope.checkup import CheckupPlan, fault_names
from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.gate.limits import UNMEASURED_GAP, Limits
from convscope.gate.readings import READINGS, Subject
from convscope.gate.verdict import Check, Gate
from convscope.tape import TrainingPlan
from convscope.tape.substrate import Inputs

_DEFAULT_PLAN = TrainingPlan()


def gate(
    model: nn.Module,
    inputs: Inputs,
    limits: Limits | None = None,
    *,
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    device: Literal["cuda", "cpu"] = "cuda",
    gpu: str = "sm90",
    data: Any = None,
    loss: Any = None,
    checkup_plan: CheckupPlan | None = None,
    **more: Any,
) -> Gate:
    """Return whether a network keeps to its limits; it comes back as it was.

    Args:
        model: any eager PyTorch module.
        inputs: a tensor, a tuple or dict of tensors, or a shape such as ``(1, 3, 224, 224)``: the batch whose
            work and memory are limited.
        limits: what isn't to be exceeded.
        plan: the training step whose memory is limited; None for inference.
        device: whose memory rules to follow.
        gpu: architecture or model of the GPU; unused for ``"cpu"``.
        data: for the limit on faults, as :func:`convscope.checkup.checkup` takes it; without it only what the
            network itself tells is checked.
        loss: of the check-up, ``loss(outputs, labels)``, where cross-entropy doesn't take the outputs.
        checkup_plan: of the check-up.
        more: limits by name, in place of ``limits``' own: ``memory="24GiB"``, ``flops="5G"``, …

    Raises:
        ConvscopeError: nothing is limited, a limit isn't one, a fault isn't known, the network can't be read,
            or no fault was found on data whose gap couldn't be measured, and that isn't allowed.

    Example:
        >>> found = gate(nn.Conv2d(3, 96, 11, stride=4), (1, 3, 227, 227), params="30k", plan=None)
        >>> found.passed, found.checks[0].found
        (False, 34944)
    """
    _refuse_loader(inputs)
    limits = _limits(limits, more)
    subject = Subject(model, inputs, limits, plan, device, gpu, data, loss, checkup_plan)
    checks = tuple(_checks(subject))
    shapes = tuple(tuple(subject.tape.values[value].shape) for value in subject.tape.inputs)
    return Gate(type(model).__name__, shapes, checks, all(check.passed for check in checks))


def _refuse_loader(inputs: Any) -> None:
    if hasattr(inputs, "__iter__") and not isinstance(inputs, Tensor | tuple | list | Mapping | str):
        raise ConvscopeError(
            f"inputs of type {type(inputs).__name__}",
            "a tensor, a tuple or dict of tensors, or a shape such as (32, 3, 224, 224)",
            "give the shape of a batch as inputs, and a loader as data=",
        )


def _limits(limits: Limits | None, more: dict[str, Any]) -> Limits:
    names = tuple(Limits.__dataclass_fields__)
    strange = [name for name in more if name not in names]
    if strange:
        raise ConvscopeError(
            f"unknown limit {strange[0]!r}", f"some of {', '.join(names)}", nearest(strange[0], names)
        )
    found = replace(limits or Limits(), **more)
    if found.is_empty:
        raise ConvscopeError(
            "a gate without limits", "at least one", "give one, such as memory='24GiB' (--max-memory 24GiB)"
        )
    known = (*fault_names(), UNMEASURED_GAP)
    unknown = [name for name in found.allowed if name not in known]
    if unknown:
        raise ConvscopeError(
            f"unknown fault {unknown[0]!r}",
            "faults of the check-up",
            nearest(unknown[0], known, "`convscope checkup --explain` lists them"),
        )
    return found


def _checks(subject: Subject) -> Iterator[Check]:
    for name, reading in READINGS.items():
        limit = getattr(subject.limits, name)
        if limit is None:
            continue
        began = time.perf_counter()
        found = reading(subject)
        most = 0 if name == "fault" else int(limit)
        yield Check(
            name="faults" if name == "fault" else name,
            limit=most,
            found=found.value,
            unit=found.unit,
            passed=found.value <= most,
            method=found.method,
            details=found.details,
            seconds=time.perf_counter() - began,
            unchecked=found.unchecked,
            assumptions=found.assumptions,
        )
