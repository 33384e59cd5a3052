"""Measuring: one observation of a model, from its modules alone or from batches of data as well."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from torch import nn

from convscope.checkup.batches import Batch, batches_of
from convscope.checkup.bias import BiasSums, TrainingStep, training_step
from convscope.checkup.describe import Roster, optimizer_facts
from convscope.checkup.flow import feeds_only_relus, norms_reading, running_mean_behind
from convscope.checkup.losses import Loss
from convscope.checkup.observation import BiasGradient, NormCall, Observation
from convscope.checkup.passes import Passes
from convscope.checkup.result import Unchecked
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.probe import Probe, probing
from convscope.tape import Tape, device_of, record

# The training step shows signs, not sizes: a few samples will do, and backward keeps all their activations.
_TRAINING_SAMPLES = 32


def observe_modules(model: nn.Module, shape: Any, optimizer: Any) -> Observation:
    """Return what modules and optimizer tell, and the data flow if an input shape is given.

    Args:
        model: any module; it isn't run.
        shape: an input shape, or None.
        optimizer: or None.
    """
    roster = Roster(model)
    facts = optimizer_facts(model, optimizer)
    unchecked = [Unchecked("statistics, gap, biases and batches", "no data was given")]
    if not roster.norms:
        unchecked.append(Unchecked("batch norm", "this network has no batch norm module"))
    if shape is None:
        norms = tuple(roster.from_module(path) for path in roster.norms)
        unchecked.append(Unchecked("data flow", "neither data nor an input shape was given"))
        return Observation(norms, optimizer=facts, training=roster.training, unchecked=tuple(unchecked))
    tape = record(model, shape, device=device_of(model))
    norms = _recorded(roster, tape)
    return Observation(
        norms, optimizer=facts, tape=tape, training=roster.training,
        unchecked=(*unchecked, *_unused(roster, norms)),
    )  # fmt: skip


def observe_data(model: nn.Module, data: Any, loss: Loss | None, optimizer: Any) -> Observation:
    """Return what batches tell; each is run twice, and a part of the first also forward and backward.

    Args:
        model: any module; it comes back as it was.
        data: see :func:`convscope.checkup.batches.batches_of`.
        loss: a callable, or None for cross-entropy where labels are integers.
        optimizer: or None.
    """
    roster = Roster(model)
    facts = optimizer_facts(model, optimizer)
    unchecked: list[Unchecked] = []
    with preserved_rng():
        batches = batches_of(model, data)
        first = next(batches)
        tape = _tape(model, first, unchecked)
        step = _step(model, first, unchecked)
        with probing(model) as probe:
            passes = Passes(probe, roster, loss, tape)
            passes.by_batch = step.by_batch
            for batch in chain([first], _unseen(batches, probe)):
                outputs = passes.as_at_test_time(batch)
                if not passes.has_norms:
                    return _without_norms(roster, passes)
                passes.as_in_training(batch, outputs)
    norms = passes.norms()
    return Observation(
        norms, _biases(step, tape), passes.gap(), facts, tape, roster.training,
        passes.num_samples, passes.num_batches, (*unchecked, *passes.unchecked, *_unused(roster, norms)),
    )  # fmt: skip


def _unseen(batches: Iterator[Batch], probe: Probe) -> Iterator[Batch]:
    """Let the data load without the probe watching its operators."""
    while True:
        with probe.paused():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _without_norms(roster: Roster, passes: Passes) -> Observation:
    reason = Unchecked("batch norm", "none runs in this network")
    return Observation(
        (), training=roster.training, num_samples=passes.num_samples, num_batches=passes.num_batches,
        unchecked=(reason, *_unused(roster, ())),
    )  # fmt: skip


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
