"""The log of a watched loop: what it has shown, judged, as numbers for a logger, and as curves."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from convscope.checkup.examine import assemble
from convscope.checkup.expected import declared
from convscope.checkup.measuring.describe import Roster, optimizer_facts
from convscope.checkup.measuring.wrappers import averaging_wrapper, per_sample_gradients
from convscope.checkup.observed import Observation, TrainingRun
from convscope.checkup.observed.run import Percentiles
from convscope.checkup.result import Checkup
from convscope.checkup.unchecked import Unchecked
from convscope.checkup.watching.layers import compiled_parts, copied_statistics
from convscope.checkup.watching.ledger import Ledger, norms_of
from convscope.checkup.watching.writing import Values, Writer
from convscope.core.finding import Finding
from convscope.probe.passes import Hearing

if TYPE_CHECKING:
    from rich.console import RenderableType

_NEEDS_STEPS = (
    "training-in-evaluation-mode, freeze-undone, accumulated-batches, recomputed-updates, scale-drift"
)
_DIDNT_RUN = (
    "the optimizer stepped, but the network itself didn't run; if a compiled copy of it does, watch a short "
    "run without compiling"
)


class TrainingLog:
    """What a loop has shown so far; made by :func:`convscope.checkup.watching.watch`.

    It can be asked at any time, within the block and after it.

    Attributes:
        ledger: the loop's events.
        unseen: what can't be seen in this loop, and why.
        hearing: whether watching has had to end, and what it has passed over.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: tuple[Optimizer, ...],
        every: int,
        writer: Writer | None,
        unseen: tuple[Unchecked, ...] = (),
    ) -> None:
        self.ledger = Ledger(model, every, bool(optimizers))
        self.hearing = Hearing()
        self.unseen = unseen
        self._model, self._optimizers, self._writer = model, optimizers, writer
        self._values: Values = {}
        self._start = {
            path: copies
            for path, norm in norms_of(model).items()
            if (copies := copied_statistics(norm)) is not None
        }

    def __str__(self) -> str:
        return str(self.checkup())

    def __rich__(self) -> "RenderableType":
        return self.checkup().__rich__()

    @property
    def run(self) -> TrainingRun:
        """What has been measured, before anything is judged."""
        return self.ledger.run()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong so far, errors first."""
        return self.checkup().findings

    @property
    def percentiles(self) -> tuple[Percentiles, ...]:
        """The 15 %, 50 % and 85 % of a channel of each layer, over training."""
        return self.ledger.percentiles.found()

    def checkup(self) -> Checkup:
        """Return the check-up of depth ``"training"``: faults of the run, of modules and of the optimizer.

        The network isn't run for it, and processes of a distributed run don't talk to one another: any one of
        them can ask.
        """
        with declared(self.ledger.declarations()):
            return assemble(self.observation(), "training")

    def observation(self) -> Observation:
        """Return what was measured: the run, and the network as it is now."""
        roster, run = Roster(self._model), self.run
        norms = tuple(roster.from_module(path) for path in roster.norms)
        facts = [optimizer_facts(self._model, optimizer) for optimizer in self._optimizers]
        return Observation(
            norms=norms,
            # With several optimizers none of them is meant to hold everything.
            optimizer=facts[0] if len(facts) == 1 else None,
            training=roster.training,
            run=run,
            averaged=averaging_wrapper(self._model),
            per_sample=per_sample_gradients(self._model),
            unchecked=(*self.unseen, *self._unchecked(run, bool(norms))),
        )

    def add(self, **values: float | Tensor) -> None:
        """Hand in numbers of the loop's own, such as ``loss=loss``, to be written with the next metrics."""
        for name, value in values.items():
            self._values[name] = float(value.detach() if isinstance(value, Tensor) else value)

    def metrics(self) -> Values:
        """Return the state of training as flat numbers, for any logger.

        Per batch norm: ``mean_shift``, how far the running mean has moved since the watch began, in standard
        deviations (largest of channels); ``gamma``, the median |γ|; ``input_p15``, ``output_p50`` and so on,
        the latest percentiles; ``relative_update``, ‖Δw‖ / ‖w‖ of the weight before it. Over all:
        ``findings``, how many there are; and what :meth:`add` was given.
        """
        values = {f"convscope/{name}": value for name, value in self._measured()}
        return {**values, "convscope/findings": float(len(self.findings)), **self._values}

    def write(self) -> None:
        """Hand the metrics to the writer, if there is one."""
        if self._writer is not None:
            self._writer(self.metrics(), self.ledger.steps)

    def after_step(self) -> None:
        """Write metrics after a step that was looked at closely; what the writer raises is the user's."""
        if not self.ledger.has_sampled or self.hearing.ended_by is not None:
            return
        self.ledger.has_sampled = False
        if self._writer is None:
            return
        try:
            values = self.metrics()
        except Exception as error:
            self.hearing.ended_by = error
            return
        self._writer(values, self.ledger.steps)

    def _unchecked(self, run: TrainingRun, has_norms: bool) -> Iterator[Unchecked]:
        if self.hearing.ended_by is not None:
            error = self.hearing.ended_by
            reason = f"watching ended at step {run.num_steps}: {type(error).__name__}: {error}"
            yield Unchecked("training run", reason)
        if self.hearing.transformed:
            calls = f"{self.hearing.transformed} calls of the network within transforms of torch.func"
            yield Unchecked("training run", f"{calls} (vmap, grad, …) aren't followed")
        for path in compiled_parts(self._model):
            yield Unchecked("training run", f"{path} is compiled, so that batch norms in it aren't seen")
        if not has_norms:
            yield Unchecked(
                "batch norm", "this network has no batch norm module; one called as a function isn't seen"
            )
        if not self._optimizers:
            yield Unchecked(_NEEDS_STEPS, "no optimizer was given, so that steps aren't seen")
        elif not run.num_steps:
            reason = _DIDNT_RUN if self.ledger.idle else "the optimizer made no step"
            yield Unchecked(_NEEDS_STEPS, reason)
        if self.ledger.closures:
            steps = f"{self.ledger.closures} steps"
            yield Unchecked("accumulated-batches", f"{steps} ran the network several times themselves")
        if run.non_finite:
            yield Unchecked(
                "values over training",
                f"gradients were NaN or infinite in {run.non_finite} of {run.num_sampled} sampled steps",
            )

    @torch.no_grad()
    def _measured(self) -> Iterator[tuple[str, float]]:
        for path, norm in norms_of(self._model).items():
            if path in self._start and norm.running_mean is not None:
                mean_C, variance_C = self._start[path]
                if mean_C.shape == norm.running_mean.shape:
                    shift_C = (norm.running_mean - mean_C) / (variance_C + norm.eps).sqrt()
                    yield f"{path}/mean_shift", float(shift_C.abs().max())
            if norm.weight is not None:
                yield f"{path}/gamma", float(norm.weight.abs().median())
        for (path, side), levels in self.ledger.percentiles.latest().items():
            yield from zip((f"{path}/{side}_p{level}" for level in (15, 50, 85)), levels, strict=True)
        for path, update in self.ledger.weights.latest().items():
            yield f"{path}/relative_update", update
