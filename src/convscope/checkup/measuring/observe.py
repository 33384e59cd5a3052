"""One observation of a model, from its modules alone or from batches of data as well."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from torch import Tensor, nn

from convscope.checkup.measuring.attribution import attribution
from convscope.checkup.measuring.batches import Batch, Kept, batches_of, num_batches_of
from convscope.checkup.measuring.bias import BiasSums, TrainingStep, training_step
from convscope.checkup.measuring.describe import Roster, optimizer_facts
from convscope.checkup.measuring.dropout import (
    dropout_shifts,
    dropout_sources,
    whole_spreads,
    with_dropout,
)
from convscope.checkup.measuring.flow import (
    feeds_only_relus,
    norms_reading,
    reach_outputs,
    running_mean_behind,
)
from convscope.checkup.measuring.groups import group_calls
from convscope.checkup.measuring.loader import loader_facts
from convscope.checkup.measuring.passes import Passes
from convscope.checkup.measuring.processes import has_synchronised, process_facts, undistributed
from convscope.checkup.measuring.reference import reference_facts
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.measuring.wrappers import averaging_wrapper, per_sample_gradients
from convscope.checkup.observed import (
    BiasGradient,
    Gap,
    LayerGap,
    NormCall,
    Observation,
    ProcessFacts,
)
from convscope.checkup.plan import CheckupPlan, Progress
from convscope.checkup.unchecked import Unchecked
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.probe import Probe, probing
from convscope.probe.kept_memory import memory_kept_for
from convscope.tape import Tape, device_of, record

# The training step shows signs, not sizes: a few samples will do, and backward keeps all their activations.
# Of a first batch below twice that, all take part: so a check-up is four passes over one batch at the most.
_TRAINING_SAMPLES = 32


def observe_modules(subject: Subject, shape: Any) -> Observation:
    """Return what modules and optimizer tell, and the data flow if an input shape is given.

    Args:
        subject: its model isn't run.
        shape: an input shape, or None.
    """
    processes = process_facts(subject.model)
    subject = replace(subject, model=undistributed(subject.model))
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
        norms = _with_untracked(roster, _recorded(roster, tape), tape)
        unchecked += _unused(roster, norms)
    return Observation(
        norms=norms,
        optimizer=optimizer_facts(model, subject.optimizer),
        tape=tape,
        training=roster.training,
        unchecked=tuple(unchecked),
        groups=group_calls(tape),
        processes=processes,
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
    processes = process_facts(subject.model)
    subject = replace(subject, model=undistributed(subject.model))
    model, plan = subject.model, subject.plan
    roster = Roster(model)
    unchecked: list[Unchecked] = []
    with preserved_rng():
        batches = islice(batches_of(model, data), plan.max_batches)
        first = next(batches)
        tape = _tape(model, first, unchecked)
        few = _few(first)
        step = _step(model, few, processes, unchecked)
        sources = _dropout_sources(model, few, step, unchecked)
        kept = Kept(plan.kept_bytes if plan.attribute else 0)
        with probing(model) as probe, memory_kept_for(tape):
            passes = Passes(probe, roster, subject.criterion, tape)
            passes.by_batch = step.by_batch
            passes.watched = frozenset(sources) if few is first else frozenset()
            for batch in chain([first], _unseen(batches, probe)):
                outputs = passes.as_at_test_time(batch)
                if not passes.has_norms:
                    break
                kept.add(batch, passes.as_in_training(batch, outputs))
                _tell(plan, passes.num_batches, data)
        whole = passes.spreads if few is first else _whole(model, few, step, sources, unchecked)
        drops = dropout_shifts(sources, step.spreads, whole)
        gap, norms = passes.gap(), with_dropout(passes.norms(), drops)
        layers = _attributed(subject, kept, gap, norms, unchecked)
        reference = reference_facts(model, subject.reference, first)
    norms = _with_untracked(roster, norms, tape)
    if not norms:
        unchecked.append(Unchecked("batch norm", "none runs in this network"))
    return Observation(
        norms=norms,
        biases=_biases(model, step, tape) if norms else (),
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
        loss_coupling=passes.loss_coupling,
        processes=processes,
        reference=reference,
        averaged=averaging_wrapper(model),
        per_sample=per_sample_gradients(model),
    )


def _attributed(
    subject: Subject, kept: Kept, gap: Gap | None, norms: tuple[NormCall, ...], unchecked: list[Unchecked]
) -> tuple[LayerGap, ...]:
    """How much of a significant gap each layer is answerable for; nothing runs without one."""
    if not subject.plan.attribute or gap is None or not gap.is_significant:
        return ()
    if kept.num_left_out:
        total = len(kept.batches) + kept.num_left_out
        reason = (
            f"of {total} batches with a loss, {len(kept.batches)} fitted into {subject.plan.kept_bytes} B"
        )
        unchecked.append(Unchecked("attribution of the gap", reason))
    if not kept.batches:
        return ()
    layers, left_out = attribution(subject.model, kept.batches, norms, subject.criterion, subject.plan)
    unchecked += left_out
    return layers


def _tell(plan: CheckupPlan, done: int, data: Any) -> None:
    if plan.progress is None:
        return
    limits = [number for number in (num_batches_of(data), plan.max_batches) if number is not None]
    plan.progress(Progress("running batches", done, min(limits, default=None)))


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


def _step(
    model: nn.Module, batch: Batch, processes: ProcessFacts | None, unchecked: list[Unchecked]
) -> TrainingStep:
    if processes is not None and not processes.compared and has_synchronised(model):
        reason = "a training step with synchronised layers waits for processes that don't run the check-up"
        unchecked.append(Unchecked("redundant-bias", reason))
        return TrainingStep()
    try:
        return training_step(model, batch)
    except Exception as error:
        # Whatever the model raises only in training mode says that it can't train on this batch.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        unchecked.append(Unchecked("redundant-bias", f"the network fails in training mode ({reason})"))
        return TrainingStep()


def _few(batch: Batch) -> Batch:
    """The samples for the training step: the batch itself if it is small."""
    return batch if batch.num_samples < 2 * _TRAINING_SAMPLES else batch.first(_TRAINING_SAMPLES)


def _dropout_sources(
    model: nn.Module, batch: Batch, step: TrainingStep, unchecked: list[Unchecked]
) -> dict[str, tuple[str, ...]]:
    try:
        return dropout_sources(model, batch, step)
    except ConvscopeError as error:
        unchecked.append(Unchecked("dropout-before-norm", error.given))
        return {}


def _whole(
    model: nn.Module,
    batch: Batch,
    step: TrainingStep,
    sources: dict[str, tuple[str, ...]],
    unchecked: list[Unchecked],
) -> dict[str, Tensor]:
    try:
        return whole_spreads(model, batch, step) if sources else {}
    except ConvscopeError as error:
        unchecked.append(Unchecked("dropout-before-norm", error.given))
        return {}


def _biases(model: nn.Module, step: TrainingStep, tape: Tape | None) -> tuple[BiasGradient, ...]:
    return tuple(_bias(model, sums, tape) for sums in step.biases.values() if sums.operators)


def _bias(model: nn.Module, sums: BiasSums, tape: Tape | None) -> BiasGradient:
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
        is_zero=not bool(model.get_parameter(sums.name).detach().any()),
        is_used=tape is None or reach_outputs(tape, operators),
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


def _with_untracked(roster: Roster, norms: tuple[NormCall, ...], tape: Tape | None) -> tuple[NormCall, ...]:
    """Add batch norms without running statistics, of which convscope's run by an operator of their own."""
    seen = {norm.path for norm in norms}
    ran = set(roster.norms) if tape is None else {call.address.path for call in tape.calls}
    untracked = (path for path, module in roster.norms.items() if module.running_mean is None)
    return (*norms, *(roster.from_module(path) for path in untracked if path in ran - seen))


def _unused(roster: Roster, norms: tuple[NormCall, ...]) -> tuple[Unchecked, ...]:
    ran = {norm.path for norm in norms}
    return tuple(
        Unchecked(path, "this batch norm isn't called when the network runs")
        for path in roster.norms
        if path not in ran
    )
