"""One observation of a model, from its modules alone or from batches of data as well."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from torch import nn

from convscope.checkup.measuring.attribution import attribution, is_significant
from convscope.checkup.measuring.batches import Batch, Kept, batches_of
from convscope.checkup.measuring.bias import BiasSums, TrainingStep, training_step
from convscope.checkup.measuring.describe import Roster, optimizer_facts
from convscope.checkup.measuring.flow import feeds_only_relus, norms_reading, running_mean_behind
from convscope.checkup.measuring.groups import group_calls
from convscope.checkup.measuring.loader import loader_facts
from convscope.checkup.measuring.losses import Loss
from convscope.checkup.measuring.passes import Passes
from convscope.checkup.measuring.processes import process_facts
from convscope.checkup.measuring.reference import reference_facts
from convscope.checkup.measuring.wrappers import averaging_wrapper, per_sample_gradients
from convscope.checkup.observed import BiasGradient, NormCall, Observation
from convscope.checkup.plan import CheckupPlan
from convscope.checkup.unchecked import Unchecked
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.probe import Probe, probing
from convscope.tape import Tape, device_of, record

# The training step shows signs, not sizes: a few samples will do, and backward keeps all their activations.
_TRAINING_SAMPLES = 32


@dataclass(frozen=True)
class Subject:
    """What a check-up is given beside data; see :func:`convscope.checkup.checkup`."""

    model: nn.Module
    loss: Loss | None
    optimizer: Any
    reference: Any
    plan: CheckupPlan


def observe_modules(subject: Subject, shape: Any) -> Observation:
    """Return what modules and optimizer tell, and the data flow if an input shape is given.

    Args:
        subject: its model isn't run.
        shape: an input shape, or None.
    """
    model = subject.model
    roster = Roster(model)
    unchecked = [Unchecked("statistics, gap, biases and batches", "no data was given")]
    if not roster.norms:
        unchecked.append(Unchecked("batch norm", "this network has no batch norm module"))
    tape = None if shape is None else record(model, shape, device=device_of(model))
    if tape is None:
        norms = tuple(roster.from_module(path) for path in roster.norms)
        unchecked.append(Unchecked("data flow", "neither data nor an input shape was given"))
    else:
        norms = _recorded(roster, tape)
        unchecked += _unused(roster, norms)
    return Observation(
        norms=norms,
        optimizer=optimizer_facts(model, subject.optimizer),
        tape=tape,
        training=roster.training,
        unchecked=tuple(unchecked),
        groups=group_calls(tape),
        processes=process_facts(model),
        reference=reference_facts(model, subject.reference, None),
        averaged=averaging_wrapper(model),
        per_sample=per_sample_gradients(model),
    )


def observe_data(subject: Subject, data: Any) -> Observation:
    """Return what batches tell; each is run twice, and a part of the first also forward and backward.

    Args:
        subject: its model comes back as it was.
        data: see :func:`convscope.checkup.measuring.batches.batches_of`.
    """
    model, plan = subject.model, subject.plan
    roster = Roster(model)
    unchecked: list[Unchecked] = []
    with preserved_rng():
        batches = islice(batches_of(model, data), plan.max_batches)
        first = next(batches)
        tape = _tape(model, first, unchecked)
        step = _step(model, first, unchecked)
        kept = Kept(plan.kept_bytes if plan.attribute else 0)
        with probing(model) as probe:
            passes = Passes(probe, roster, subject.loss, tape)
            passes.by_batch = step.by_batch
            for batch in chain([first], _unseen(batches, probe)):
                outputs = passes.as_at_test_time(batch)
                if not passes.has_norms:
                    break
                passes.as_in_training(batch, outputs)
                kept.add(batch)
            gap = passes.gap()
            layers = (
                ()
                if not is_significant(gap)
                else attribution(probe, kept.batches, passes.norms(), subject.loss, plan)
            )
        reference = reference_facts(model, subject.reference, first)
    norms = passes.norms()
    if not norms:
        unchecked.append(Unchecked("batch norm", "none runs in this network"))
    return Observation(
        norms=norms,
        biases=_biases(step, tape) if norms else (),
        gap=gap,
        attribution=layers,
        optimizer=optimizer_facts(model, subject.optimizer),
        tape=tape,
        training=roster.training,
        num_samples=passes.num_samples,
        num_batches=passes.num_batches,
        unchecked=(*unchecked, *passes.unchecked, *_unused(roster, norms)),
        groups=group_calls(tape),
        loader=loader_facts(data),
        processes=process_facts(model),
        reference=reference,
        averaged=averaging_wrapper(model),
        per_sample=per_sample_gradients(model),
    )


def _unseen(batches: Iterator[Batch], probe: Probe) -> Iterator[Batch]:
    """Let the data load without the probe watching its operators."""
    while True:
        with probe.paused():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _tape(model: nn.Module, batch: Batch, unchecked: list[Unchecked]) -> Tape | None:
    try:
        return record(model, batch.inputs, device=device_of(model))
    except ConvscopeError as error:
        unchecked.append(Unchecked("data flow", f"the network couldn't be recorded: {error.given}"))
        return None


def _step(model: nn.Module, batch: Batch, unchecked: list[Unchecked]) -> TrainingStep:
    try:
        return training_step(model, batch.first(_TRAINING_SAMPLES))
    except Exception as error:
        # Whatever the model raises only in training mode says that it can't train on this batch.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        unchecked.append(Unchecked("redundant-bias", f"the network fails in training mode ({reason})"))
        return TrainingStep()


def _biases(step: TrainingStep, tape: Tape | None) -> tuple[BiasGradient, ...]:
    return tuple(_bias(sums, tape) for sums in step.biases.values() if sums.operators)


def _bias(sums: BiasSums, tape: Tape | None) -> BiasGradient:
    operators = [str(call) for call in sums.operators]
    reading = [() if tape is None else norms_reading(tape, operator) for operator in operators]
    signed_C, absolute_C = sums.signed, sums.absolute
    return BiasGradient(
        name=sums.name,
        address=str(sums.operators[0].module),
        channels=0 if signed_C is None else len(signed_C),
        signed=0.0 if signed_C is None else float(signed_C.abs().sum()),
        absolute=0.0 if absolute_C is None else float(absolute_C.sum()),
        norms=tuple(dict.fromkeys(chain.from_iterable(reading))) if all(reading) else (),
        running_mean=running_mean_behind(tape, operators) if tape is not None and all(reading) else None,
        precise=sums.dtype is None or sums.dtype.itemsize >= 4,
    )


def _recorded(roster: Roster, tape: Tape) -> tuple[NormCall, ...]:
    """The batch norm modules' calls on a tape, in order, with what reads them."""
    return tuple(
        replace(
            roster.from_module(call.address.path),
            address=str(call.address.module),
            operator=str(call.address),
            feeds_relu=feeds_only_relus(tape, str(call.address)),
        )
        for call in tape.calls
        if call.op == "batch_norm" and call.address.path in roster.norms
    )


def _unused(roster: Roster, norms: tuple[NormCall, ...]) -> tuple[Unchecked, ...]:
    ran = {norm.path for norm in norms}
    return tuple(
        Unchecked(path, "this batch norm isn't called when the network runs")
        for path in roster.norms
        if path not in ran
    )
