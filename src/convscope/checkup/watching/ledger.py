"""The ledger of a watched loop: hands every event to those whom it concerns, and closes every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from convscope.checkup.expected import is_expected
from convscope.checkup.observed.run import NormRun, TrainingRun
from convscope.checkup.watching.layers import uses_batch
from convscope.checkup.watching.modes import Modes
from convscope.checkup.watching.percentiles import PercentileLog
from convscope.checkup.watching.sequence import Sequence, accumulated
from convscope.checkup.watching.strays import StrayFinder
from convscope.checkup.watching.updates import NormUpdates
from convscope.checkup.watching.weights import Weights
from convscope.core.address import ROOT
from convscope.probe.events import ForwardPass, LayerCall

_WARM_UP = 10


class Ledger:
    """Listens to a loop; :meth:`run` says what it has shown so far.

    Args:
        model: the network.
        every: the first ten steps and every so-manyth one are looked at closely.
        after_sample: called at the end of each of these.

    Attributes:
        steps: optimizer steps so far.
        idle: steps before which nothing ran in the network, such as those of its second optimizer.
        sampled: whether the current step is looked at closely.
        closures: steps whose optimizer ran forward passes itself, more than one.
        percentiles, weights: see there.
    """

    def __init__(self, model: nn.Module, every: int, after_sample: Callable[[], object]) -> None:
        self.steps = self.idle = self._num_sampled = self._non_finite = 0
        self.sampled = True
        self._model, self._every, self._after_sample = model, every, after_sample
        self._norms = norms_of(model)
        self._trained = False
        self._sequence, self._strays = Sequence(), StrayFinder()
        self._modes = Modes(model, self._norms)
        self._updates: dict[str, NormUpdates] = {}
        self._declared: set[int] = set()
        self._checkpointed: dict[str, ForwardPass] = {}
        self._double: set[tuple[int, int]] = set()
        self._double_norms: dict[str, None] = {}
        self._by_batch: dict[int, list[str]] = {}
        self._checked = False
        self._gauge: Tensor | None = None
        self.percentiles, self.weights = PercentileLog(), Weights(model)

    @property
    def closures(self) -> int:  # noqa: D102
        return self._sequence.closures

    def begins(self, run: ForwardPass) -> None:
        """A forward pass begins."""
        if run.will_be_recomputed:
            self._checkpointed[run.path] = run
        elif run.recomputed and run.path in self._checkpointed:
            self._trains(self._checkpointed[run.path], run.backward)
        if is_expected("per-sample-gradients", run.path):
            self._declared.add(run.number)  # here, since backward runs in a thread of its own on accelerators
        fault = "dummy-forwards" if not self._trained else "evaluating-in-training-mode"
        if not is_expected(fault, run.path):
            self._strays.begins(run, self._norms, self.steps or int(self._trained))

    def layer_begins(self, call: LayerCall) -> None:
        """A batch norm, or a convolution in a network without any, is about to run."""
        if not call.within.trains:
            return
        norm = call.layer
        if not isinstance(norm, _BatchNorm):
            if norm.training and not call.recomputed:
                self._sequence.forward(call.within.number, call.path, self._is_fresh)
            return
        self._norms[call.path] = norm
        if not call.recomputed:
            self._modes.layer(call, norm)
        if not uses_batch(norm):
            return
        if not call.recomputed:
            self._sequence.forward(call.within.number, call.path, self._is_fresh)
            self._by_batch.setdefault(call.within.number, []).append(call.path)
        if self.sampled:
            self.weights.norm(call.path, call.input)
        self._of(call.path).begins(call, norm, self.sampled)

    def layer_ends(self, call: LayerCall, output: Any) -> None:
        """It has run."""
        if not call.within.trains:
            return
        norm = call.layer
        is_norm = isinstance(norm, _BatchNorm)
        if isinstance(norm, _BatchNorm) and uses_batch(norm):
            self._of(call.path).ends(call, norm)
        if self.sampled and not call.recomputed and norm.training:
            if is_norm and isinstance(call.input, Tensor):
                self.percentiles.add(call.path, norm, "input", call.input)
            if isinstance(output, Tensor):
                self.percentiles.add(call.path, norm, "output", output)

    def ends(self, run: ForwardPass) -> None:
        """A forward pass is over."""
        self._strays.ends(run, self.steps or int(self._trained))

    def reached(self, run: ForwardPass, gradient: Tensor, backward: int, create_graph: bool) -> None:
        """A backward pass has come to an output of a forward pass."""
        norms = self._trains(run, backward)
        if create_graph and run.input_trains and norms and run.number not in self._declared:
            self._double.add((run.number, backward))
            self._double_norms.update(dict.fromkeys(norms))
        if self.sampled and not self._checked:
            self._checked = True
            self._non_finite += not bool(gradient.sum(dtype=torch.float64).isfinite())

    def _trains(self, run: ForwardPass, backward: int) -> list[str]:
        """A backward pass has come to a forward pass; return its batch norms that used batch statistics."""
        self._trained = True
        self._strays.reached(run)
        self._modes.reached(run)
        norms = self._by_batch.get(run.number, [])
        if norms or not self._norms:
            self._sequence.backward(backward)
        return norms

    def step_begins(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step, or to run the loop's closure."""
        self._sequence.step_begins()
        if self.sampled:
            self.weights.step_begins(optimizer)

    def step_ends(self, optimizer: Optimizer) -> None:
        """Close the account of a step; a second optimizer's, with nothing run in between, is the same one."""
        if self.sampled:
            self.weights.step_ends()
            self._gauge = _smallest(optimizer)
        if self._sequence.is_empty and not self._modes.is_training:
            self.idle += 1
            return
        self.percentiles.step_ends(self.steps)
        self._num_sampled += self.sampled
        if not self.steps:
            self._strays.first_step()
        self.steps += 1
        self._sequence.step_ends(self.sampled)
        if not is_expected("training-in-evaluation-mode", ROOT):
            self._modes.see_training(optimizer, self._norms)
        self._modes.step_ends(self.steps)
        for updates in self._updates.values():
            updates.step_ends()
        self._by_batch.clear()
        self._declared.clear()
        self._checkpointed.clear()
        self._checked = False
        was_sampled, self.sampled = self.sampled, self.steps < _WARM_UP or self.steps % self._every == 0
        if was_sampled:
            self._after_sample()

    def run(self) -> TrainingRun:
        """Return what the loop has shown so far."""
        evaluations, dummies = self._strays.finish(bool(self.steps) or self._trained)
        shifts = [updates.shift() for updates in self._updates.values()]
        return TrainingRun(
            num_steps=self.steps,
            num_sampled=self._num_sampled,
            patterns=dict(self._sequence.patterns.most_common()),
            accumulated=accumulated(self._sequence.patterns),
            norms=tuple(self._norm_run(path) for path in (*self._updates, *self._asleep())),
            evaluations=evaluations,
            dummies=dummies,
            evaluation_steps=self._modes.evaluation_steps(),
            input_gradients=len(self._double),
            input_gradient_norms=tuple(self._double_norms),
            call_shifts=tuple(shift for shift in shifts if shift is not None),
            weights=self.weights.found(),
            percentiles=self.percentiles.found(),
            non_finite=self._non_finite,
        )

    def _asleep(self) -> list[str]:
        return [path for path in self._modes.freezes if path not in self._updates]

    def _norm_run(self, path: str) -> NormRun:
        updates = self._updates.get(path, NormUpdates(path))
        forward, backward = updates.per_step
        freeze = self._modes.freezes.get(path)
        undone = freeze is not None and freeze.undone_at is not None
        return NormRun(
            path=path,
            updates=forward,
            recomputed=backward,
            num_values=updates.num_values,
            num_images=updates.num_images,
            effective_values=updates.effective_values(),
            frozen_steps=0 if freeze is None else freeze.steps,
            undone_at=None if freeze is None else freeze.undone_at,
            undone_shift=freeze.shift(self._norms[path]) if undone and freeze is not None else 0.0,
        )

    def _of(self, path: str) -> NormUpdates:
        return self._updates.setdefault(path, NormUpdates(path))

    def _is_fresh(self) -> bool:
        """Whether gradients were set to zero, as far as a small parameter shows; looked at in some steps."""
        if self._gauge is None or not self.sampled:
            return False
        return self._gauge.grad is None or not bool(self._gauge.grad.any())


def norms_of(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return a network's batch norm modules by path."""
    return {path or ROOT: m for path, m in model.named_modules() if isinstance(m, _BatchNorm)}


def _smallest(optimizer: Optimizer) -> Tensor | None:
    """The smallest parameter that has a gradient."""
    parameters = (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
    return min(parameters, key=lambda parameter: parameter.numel(), default=None)
