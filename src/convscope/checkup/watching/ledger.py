"""The ledger of a watched loop: hands every event to those whom it concerns, and closes every step."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from convscope.checkup.expected import declarations, is_expected
from convscope.checkup.observed.run import NormRun, TrainingRun
from convscope.checkup.watching.layers import copied_affine, uses_batch
from convscope.checkup.watching.modes import Modes
from convscope.checkup.watching.percentiles import PercentileLog
from convscope.checkup.watching.sequence import Gauge, Sequence, accumulated
from convscope.checkup.watching.strays import StrayFinder
from convscope.checkup.watching.updates import NormUpdates
from convscope.checkup.watching.weights import Weights
from convscope.core.address import ROOT
from convscope.probe.passes import ForwardPass, LayerCall

_WARM_UP = 10
_MANY = 64  # passes without a step, after which few of them are looked at closely
_MOST = 4096  # and after which no backward pass is waited for that would come to the first ones


class Ledger:
    """Listens to a loop; :meth:`run` says what it has shown so far.

    Args:
        model: the network.
        every: the first ten steps and every so-manyth one are looked at closely.
        has_steps: whether steps will be seen; backward passes stand in for them if not.

    Attributes:
        steps: optimizer steps so far.
        idle: steps before which nothing ran in the network, such as those of its second optimizer.
        sampled: whether the current step is looked at closely.
        has_sampled: whether the last step was, until someone sets it back.
        closures: steps whose optimizer ran forward passes itself, more than one.
        percentiles, weights: see there.
    """

    def __init__(self, model: nn.Module, every: int, has_steps: bool = True) -> None:
        self.steps = self.idle = self._num_sampled = self._non_finite = 0
        self._passes = self._backwards = 0  # passes since the last step
        self.sampled, self.has_sampled = True, False
        self._every, self._has_steps = every, has_steps
        self._norms = norms_of(model)
        self._affine = {path: copied_affine(norm) for path, norm in self._norms.items()}
        self._sequence, self._strays = Sequence(), StrayFinder(self._norms)
        self._modes = Modes(model, self._norms)
        self._updates: dict[str, NormUpdates] = {}
        self._declared: set[int] = set()
        self._declarations: Counter[tuple[str, str]] = Counter()
        self._checkpointed: dict[str, ForwardPass] = {}
        self._num_double = 0
        self._double_norms: dict[str, None] = {}
        self._by_batch: dict[int, list[str]] = {}
        self._last_backward = -1
        self._checked = False
        self._gauge = Gauge()
        self._groups: list[dict[str, Any]] = []
        self.percentiles, self.weights = PercentileLog(), Weights(model)

    @property
    def closures(self) -> int:  # noqa: D102
        return self._sequence.closures

    def begins(self, run: ForwardPass) -> None:
        """A forward pass begins, or the next part of one."""
        if len(run.parts) == 1:
            self._passes += 1
            if self._passes > _MANY:
                self._no_step_in_sight()
        if run.will_be_recomputed:
            self._checkpointed[run.path] = run
        elif run.recomputed and run.path in self._checkpointed:
            self._trains(self._checkpointed[run.path], run.backward)
        if is_expected("per-sample-gradients", run.path):
            self._declared.add(run.number)  # here, since backward runs in a thread of its own on accelerators
        fault = "evaluating-in-training-mode" if self._turns else "dummy-forwards"
        if not is_expected(fault, run.path) and not self._stands_at_average():
            self._strays.begins(run, self._norms, self._turns)

    def layer_begins(self, call: LayerCall) -> None:
        """A batch norm, or a convolution in a network without any, is about to run."""
        if not call.within.trains:
            return
        norm = call.layer
        if not isinstance(norm, _BatchNorm):
            if norm.training and not call.recomputed:
                self._sequence.forward(call.within.number, self._is_fresh)
            return
        self._norms[call.path] = norm
        if not call.recomputed:
            self._modes.layer(call, norm)
        if not uses_batch(norm):
            return
        if not call.recomputed:
            self._sequence.forward(call.within.number, self._is_fresh)
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
        """A forward pass is over, or a part of one."""
        self._strays.ends(run)

    def reached(self, run: ForwardPass, gradient: Tensor, backward: int) -> None:
        """A backward pass has come to an output of a forward pass."""
        self._trains(run, backward)
        if self.sampled and not self._checked:
            self._checked = True
            self._non_finite += not bool(gradient.sum(dtype=torch.float64).isfinite())

    def differentiated(self, run: ForwardPass) -> None:
        """A gradient of a forward pass's inputs is about to be trained on."""
        norms = self._by_batch.get(run.number)
        if norms and run.number not in self._declared:
            self._num_double += 1
            self._double_norms.update(dict.fromkeys(norms))

    def _trains(self, run: ForwardPass, backward: int) -> None:
        """A backward pass has come to a forward pass."""
        if not self._has_steps and backward != self._last_backward:
            self._last_backward = backward
            self._backwards += 1
            self._strays.step_ends(self._turns)
        self._strays.reached(run)
        self._modes.reached(run)
        if run.number in self._by_batch or not self._norms:
            self._sequence.backward(backward)

    def step_begins(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step, or to run the loop's closure."""
        self._sequence.step_begins()
        self._groups = optimizer.param_groups
        if self.sampled:
            self.weights.step_begins(optimizer)

    def step_ends(self, optimizer: Optimizer) -> None:
        """Close the account of a step; a second optimizer's, with nothing run in between, is the same one."""
        if self.sampled:
            self.weights.step_ends()
            self._gauge = Gauge(optimizer)
        goes_on = self._sequence.is_empty and not self._modes.is_training
        if not is_expected("training-in-evaluation-mode", ROOT):
            self._modes.see_training(optimizer, self._norms, goes_on)
        if goes_on:
            self.idle += 1
            return
        self.percentiles.step_ends(self.steps)
        self._num_sampled += self.sampled
        self.steps += 1
        self._declarations.update(set(declarations()))
        self._strays.step_ends(self._turns)
        self._sequence.step_ends(self.sampled)
        self._modes.step_ends(self.steps, optimizer)
        for updates in self._updates.values():
            updates.step_ends()
        self._clear()
        self._passes = 0
        self.has_sampled, self.sampled = self.sampled, self.steps < _WARM_UP or self.steps % self._every == 0

    def declarations(self) -> tuple[tuple[str, str], ...]:
        """Return the faults and addresses that were declared as expected in at least half of the steps."""
        return tuple(each for each, number in self._declarations.items() if 2 * number >= self.steps)

    def run(self) -> TrainingRun:
        """Return what the loop has shown so far."""
        evaluations, interleaved, dummies = self._strays.finish(self._turns)
        shifts = [updates.shift() for updates in self._updates.values()]
        return TrainingRun(
            num_steps=self.steps,
            num_sampled=self._num_sampled,
            moved=frozenset(path for path in self._affine if self._has_moved(path)),
            patterns=dict(self._sequence.patterns.most_common()),
            accumulated=accumulated(self._sequence.patterns),
            norms=tuple(self._norm_run(path) for path in (*self._updates, *self._asleep())),
            evaluations=evaluations,
            interleaved=interleaved,
            dummies=dummies,
            evaluation_steps=self._modes.evaluation_steps(),
            input_gradients=self._num_double,
            input_gradient_norms=tuple(self._double_norms),
            call_shifts=tuple(shift for shift in shifts if shift is not None),
            weights=self.weights.found(),
            percentiles=self.percentiles.found(),
            non_finite=self._non_finite,
        )

    def _has_moved(self, path: str) -> bool:
        now = copied_affine(self._norms[path])
        return not all(map(torch.equal, self._affine[path], now)) or len(now) != len(self._affine[path])

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
            refrozen=0 if freeze is None else freeze.returns,
            undone_shift=freeze.shift(self._norms[path]) if undone and freeze is not None else 0.0,
        )

    def _of(self, path: str) -> NormUpdates:
        return self._updates.setdefault(path, NormUpdates(path))

    @property
    def _turns(self) -> int:
        """Steps so far; where none are seen, backward passes."""
        return self.steps if self._has_steps else self._backwards

    def _stands_at_average(self) -> bool:
        """Whether the optimizer has put averaged weights in place, as schedule-free ones do to evaluate.

        Forward passes on training data give these weights statistics of their own.
        """
        return any(group.get("train_mode") is False for group in self._groups)

    def _no_step_in_sight(self) -> None:
        """Keep what lies about from growing, and look at few passes closely: maybe no step will come."""
        if self._passes % _MOST == 1:
            self._clear()
        self.sampled = self._passes % self._every == 0

    def _is_fresh(self) -> bool:
        """Whether gradients were set to zero; looked at in some steps."""
        return self.sampled and self._gauge.is_fresh()

    def _clear(self) -> None:
        self._by_batch.clear()
        self._declared.clear()
        self._checkpointed.clear()
        self._modes.forget_passes()
        self._checked = False


def norms_of(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return a network's batch norm modules by path."""
    return {path or ROOT: m for path, m in model.named_modules() if isinstance(m, _BatchNorm)}
