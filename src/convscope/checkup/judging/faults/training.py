"""Faults of modes that only a training run shows: who trains, who is evaluated, who is frozen, and when."""

from collections.abc import Iterator

from convscope.checkup.judging.faults.registry import fault
from convscope.checkup.judging.faults.settings import static_dummy_forwards
from convscope.checkup.judging.residuals import MEAN_TOLERANCE, VARIANCE_TOLERANCE
from convscope.checkup.observed import Observation
from convscope.checkup.observed.run import NormRun, StrayCalls
from convscope.core.address import ROOT
from convscope.core.finding import Evidence, Finding, Severity
from convscope.core.units import counted

_FEWEST_STEPS = 2
_LONG_ROW, _MANY_PASSES = 3, 5
_TIME_AND_AGAIN = 3
_FORGOTTEN = 0.01  # weight of what old batches have left in the running averages
_MOVES = "torch.nn.BatchNorm2d documentation: a forward pass in training mode moves the running statistics"


@fault("evaluating-in-training-mode")
def evaluating_in_training_mode(observation: Observation) -> Iterator[Finding]:
    """Forward passes that use batch statistics and move others, but train nothing, once training has begun.

    An error between stretches of training, if gradients are off, or if there are several such passes in a
    row, time and again or five in all; otherwise advice, as where they come along with the steps. Effect: how
    far they moved the running statistics, over the tolerance of stale ones.
    """
    run = observation.run
    if run is None:
        return
    if run.evaluations.count:
        yield _evaluations(run.evaluations)
    if run.interleaved.count:
        yield _interleaved(run.interleaved)


def _interleaved(stray: StrayCalls) -> Finding:
    return _of_strays(
        "advice",
        stray,
        "moved the running statistics, interleaved with the steps: the averages are of these inputs too (a "
        f"mean moved by up to {stray.shift:.2g} σ)",
        "if they are evaluations, model.eval() before them, model.train() after; if they belong to the "
        "training, such as a momentum encoder's, nothing, or momentum 0 if the averages are for others",
    )


def _evaluations(stray: StrayCalls) -> Finding:
    return _of_strays(
        "error" if _is_evaluation(stray) else "advice",
        stray,
        "ran in training mode: what they measured depends on who shares a batch, and they moved running "
        f"means by up to {stray.shift:.2g} σ, furthest at {stray.worst}",
        "model.eval() before the evaluation and model.train() after it; on purpose, as for Monte-Carlo "
        'dropout: with cs.expected("evaluating-in-training-mode") around it',
    )


def _of_strays(severity: Severity, stray: StrayCalls, what: str, remedy: str) -> Finding:
    return Finding(
        "evaluating-in-training-mode",
        severity,
        ROOT,
        _stray_evidence(stray),
        f"{_passes(stray)} from which no gradient came {what}",
        remedy,
        _MOVES,
        effect=_effect(stray),
    )


def _is_evaluation(stray: StrayCalls) -> bool:
    """Whether passes are more than a single forgotten result: gradients are off, or they come in rows."""
    if stray.with_gradients < stray.count:
        return True
    recurs = stray.longest >= _LONG_ROW and stray.blocks > 1
    return recurs or (stray.longest > 1 and stray.count >= _MANY_PASSES)


@fault("dummy-forwards")
def dummy_forwards(observation: Observation) -> Iterator[Finding]:
    """Forward passes in training mode before the first step, of which no gradient came.

    Advice once the averages have forgotten them. Effect: how far they moved the running statistics, over the
    tolerance of stale ones.
    """
    run = observation.run
    if run is None:
        yield from static_dummy_forwards(observation)
    elif run.dummies.count:
        stray = run.dummies
        left = _left(observation, stray, run.num_steps)
        constant = f", {stray.constant} of them on constant images," if stray.constant else ""
        yield Finding(
            "dummy-forwards",
            "warning" if left > _FORGOTTEN else "advice",
            stray.worst,
            (*_stray_evidence(stray), Evidence("their weight by now", left, "1", "(1 − momentum)^updates")),
            f"{_passes(stray)} in training mode before the first step{constant} moved the running statistics "
            f"of {counted(len(stray.layers), 'batch norm')}, a mean by up to {stray.shift:.2g} σ, |ln| of a "
            f"variance by up to {stray.log_variance:.2g}; {left:.2g} of that is left after "
            f"{counted(run.num_steps, 'step')}",
            "model.eval() and torch.no_grad() for summaries, sanity checks and dummy forwards, then "
            "model.train(); load the statistics again, or cs.norm.recalibrate(model, loader)",
            _MOVES + "; torchsummary issue 67",
            effect=_effect(stray),
        )


@fault("training-in-evaluation-mode")
def training_in_evaluation_mode(observation: Observation) -> Iterator[Finding]:
    """Steps that train γ and β, or nearly everything, while the whole network is in evaluation mode.

    Deliberate freezing isn't that: the network is in training mode then, or only a part of it trains.
    Effect: the share of such steps, over two of them.
    """
    run = observation.run
    if run is None or run.evaluation_steps.count < _FEWEST_STEPS:
        return
    steps = run.evaluation_steps
    dropouts = f" and {counted(steps.dropouts, 'dropout layer')}" if steps.dropouts else ""
    yield Finding(
        "training-in-evaluation-mode",
        "warning",
        ROOT,
        (
            Evidence("steps in evaluation mode", steps.count, "steps", f"of {run.num_steps}"),
            Evidence("batch norms switched off", steps.norms, "layers"),
            Evidence("of these with gradients at γ or β", steps.affine, "layers"),
            Evidence("share of the parameters that train", steps.share, "1"),
            Evidence("dropout layers switched off", steps.dropouts, "layers"),
        ),
        f"{steps.count} of {run.num_steps} steps trained {steps.share:.0%} of the parameters while the "
        f"network was in evaluation mode: {counted(steps.norms, 'batch norm')}{dropouts} were off, and "
        "running statistics stood still while the weights before them moved",
        "model.train() before every epoch, after each evaluation; to train with fixed statistics on purpose, "
        "cs.norm.freeze(model)",
        "torch.nn.Module.eval documentation; Lightning issues 20105 and 20573",
        effect=steps.count / _FEWEST_STEPS,
    )


@fault("freeze-undone")
def freeze_undone(observation: Observation) -> Iterator[Finding]:
    """Batch norms that were in evaluation mode while the network trained, and then train by themselves.

    Not if requires_grad of γ or β or their place in an optimizer has changed too, as in progressive
    unfreezing, nor where the loop itself goes to and fro, step by step. Effect: how far a running
    mean has moved since then, over the tolerance of stale ones.
    """
    norms = () if observation.run is None else observation.run.norms
    undone = [norm for norm in norms if norm.undone_at is not None and not _alternates(norm)]
    if not undone:
        return
    first, worst = undone[0], max(undone, key=lambda norm: norm.undone_shift)
    yield Finding(
        "freeze-undone",
        "warning",
        first.path,
        (
            Evidence("layers", len(undone), "layers"),
            Evidence("steps in evaluation mode", first.frozen_steps, "steps", "while the network trained"),
            Evidence("first step in training mode", first.undone_at or 0, "step", "from 1"),
            Evidence(
                "shift since then", worst.undone_shift, "σ", f"of a running mean, largest: {worst.path}"
            ),
        ),
        f"{counted(len(undone), 'batch norm')} that had been put into evaluation mode train again since step "
        f"{first.undone_at}, though γ and β are as they were: model.train() has woken them, and a running "
        f"mean has moved by {worst.undone_shift:.2g} σ since",
        f"cs.norm.freeze(model{_only(undone, observation)}), which model.train() doesn't undo",
        "torch.nn.Module.train documentation: sets the mode of all submodules; Lightning issue 2551",
        effect=max(1.0, worst.undone_shift / MEAN_TOLERANCE),
    )


def _alternates(norm: NormRun) -> bool:
    """Whether a layer is put into evaluation mode time and again, for about a step each."""
    return norm.refrozen >= _TIME_AND_AGAIN and norm.frozen_steps < 2 * (norm.refrozen + 1)


def _passes(stray: StrayCalls) -> str:
    return counted(stray.count, "forward pass", "forward passes")


def _stray_evidence(stray: StrayCalls) -> tuple[Evidence, ...]:
    return (
        Evidence("forward passes", stray.count, "calls", "in training mode, without a backward pass"),
        Evidence("batch norms that they moved", len(stray.layers), "layers"),
        Evidence("shift of a running mean", stray.shift, "σ", "all together, largest"),
        Evidence("passes with gradients enabled", stray.with_gradients, "calls"),
        Evidence("change of a running variance", stray.log_variance, "1", "|ln(after / before)|, largest"),
        Evidence("inputs of one value", stray.constant, "calls"),
        Evidence("steps before the first of them", stray.before_steps, "steps"),
    )


def _effect(stray: StrayCalls) -> float:
    return max(1.0, stray.shift / MEAN_TOLERANCE, stray.log_variance / VARIANCE_TOLERANCE)


def _left(observation: Observation, stray: StrayCalls, steps: int) -> float:
    """What is left of the moves after some steps, of one update or more each."""
    norm = next((norm for norm in observation.norms if norm.path == stray.worst), None)
    if norm is None or norm.momentum is None:
        return 1.0
    runs = () if observation.run is None else observation.run.norms
    updates = next((run.updates + run.recomputed for run in runs if run.path == stray.worst), 1)
    return float((1 - norm.momentum) ** (steps * max(updates, 1)))


def _only(norms: list[NormRun], observation: Observation) -> str:
    """The argument of a call that is to concern some batch norms; none if they are all."""
    paths = [norm.path for norm in norms]
    if len(paths) == len({norm.path for norm in observation.norms}):
        return ""
    return f", only={paths!r}" if len(paths) > 1 else f', only="{paths[0]}"'
