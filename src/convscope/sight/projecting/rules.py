r"""Backward rules: what takes the place of an operator's own derivative on the way from a unit to the image.

The deconvnet of Zeiler and Fergus (rectify, filter with the transposed filters, put pooled signals back to
where the maxima were) is the backward pass with one rule replaced: a ReLU hands on the positive part of
what comes from above, wherever the unit itself fired or not. The rest is autograd's own: the gradient of a
convolution is the transposed filtering, that of a max-pool follows the switches (and *sums* where windows
overlap), that of batch norm at test time is its scale; biases have no effect.

=========  =============================  =================================================
rule       activation, from signal g       source
=========  =============================  =================================================
deconvnet  max(g, 0); ReLU only            Zeiler and Fergus 2014 (arXiv 1311.2901), 2.1
guided     max(g, 0) where x > 0; ReLU     Springenberg et al. 2015 (arXiv 1412.6806)
gated      max(g, 0) · gate(x)             guided, for any φ(x) = x · gate(x)
gradient   its derivative                  Simonyan et al. 2014 (arXiv 1312.6034)
=========  =============================  =================================================

``gated`` takes the gate that an activation opened on the image for a switch, as the mask of a ReLU is one,
and so equals ``guided`` bit for bit where all activations are ReLUs. It rectifies the signal at *every*
activation, with a gate that can be small but open where x < 0, too: max(g, 0) means that what is handed down
is only what would raise the unit if there were more of it, which is what makes guided's pictures show parts
that excite. A unit's own activation, where the seed is placed after it, is passed like any other; the seed is
positive, so that its gate changes the scale alone.

Under these three, gates (squeeze-and-excitation, attention, gated linear units), denominators and the norms'
own statistics are recorded switches (:mod:`convscope.sight.projecting.frozen`), and local response
normalisation is passed unchanged, as in Mahendran and Vedaldi 2016 ("Salient deconvolutional networks").
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, Visit
from convscope.sight.projecting import statistics
from convscope.sight.projecting.activations import (
    CLAMPS,
    EXTREMES,
    bounds,
    has_own_gate,
    is_square,
    zeros_beside,
)
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.gates import BACKWARDS, gated_signal, wide
from convscope.sight.projecting.holding import Frozen, HoldPoint, is_norm
from convscope.sight.projecting.projection import Census, Rule
from convscope.sight.projecting.registering import GATES
from convscope.sight.projecting.rewiring import Change, rewire
from convscope.tape import OperatorCall

# A ReLU's backward operators, and which of their arguments is the signal from above.
_RELU_BACKWARDS = {"threshold_backward": 0, "where": 1}
# Recomputed blocks of a checkpoint run forward, too.
_FORWARD = ("forward", "recompute")
_SQUASH_BACKWARDS = ("sigmoid_backward", "hardsigmoid_backward", "softplus_backward")


@dataclass
class RuleBook:
    """The rules of one kind of projection for a network, installed on a probe.

    Args:
        rule: see the table above.
        below: the roles of the network's operators.

    Attributes:
        applied: addresses of the operators that have been passed by their rule on the way back so far.
    """

    rule: Rule
    below: Below
    applied: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._changes: dict[str, Change] = {}
        self._by_role: dict[str, set[str]] = {"relu": set(), "gate": set(), "frozen": set(), "none": set()}
        self._recorded: dict[HoldPoint, Tensor] | None = None
        self._held: Frozen | None = None
        self._gates: dict[str, Tensor] = {}
        if self.rule == "gradient":
            return
        for call in self.below.tape.in_phase("forward"):
            role, address = self.below.role(call), str(call.address)
            if role in self._by_role:
                self._by_role[role].add(address)
            change = self._change(call)
            if change is not None:
                self._changes[address] = change

    @property
    def holds(self) -> bool:
        """Whether windows of an image must hold anything to be passed like the whole."""
        return self.rule != "gradient" and bool(self.below.hold_points)

    def install(self, probe: Probe) -> None:
        """Let the rules stand in for operators in the probe's runs."""
        if self.rule == "gradient":
            return
        for op in _RELU_BACKWARDS:
            probe.around(op, self._relu)
        if self.rule == "gated":
            for op in BACKWARDS:
                probe.around(op, self._gate)
            for op in _SQUASH_BACKWARDS:
                probe.around(op, self._squash)
        for op in statistics.BACKWARDS:
            probe.around(op, self._statistics)
        for address in dict.fromkeys(point.address for point in self.below.hold_points):
            probe.around(address, self._hold)
        for address, change in self._changes.items():
            if change.kind == "gate":
                probe.around(address, self._open)

    def taken_gates(self) -> dict[str, Tensor]:
        """Return the gates of the last forward run, by address, which belong to its graph."""
        taken, self._gates = self._gates, {}
        return taken

    def prepare(self, maps: Tensor, probe: Probe, gates: Mapping[str, Tensor]) -> None:
        """Change the graph of a run, with its gates, before a signal goes back from ``maps``."""
        if self._changes:
            changes = {**self._changes, **{at: replace(self._changes[at], gate=gates[at]) for at in gates}}
            self.applied |= rewire(maps, changes, probe.attribution)

    @contextmanager
    def recording(self) -> Iterator[Frozen]:
        """Run a block whose forward runs, over whole images, record what windows of them will hold."""
        self._recorded, before = {}, self._recorded
        try:
            yield Frozen(self._recorded)
        finally:
            self._recorded = before

    @contextmanager
    def holding(self, frozen: Frozen) -> Iterator[None]:
        """Run a block whose runs, forward and backward, use recorded values in the place of their own."""
        self._held, before = frozen, self._held
        try:
            yield
        finally:
            self._held = before

    def require_applied(self, census: Census) -> None:
        """Check that the signal met every operator that the rule replaces.

        Raises:
            ConvscopeError: it didn't: they are hidden in an autograd function of the network's own.
        """
        wanted = (*census.rewritten, *census.gated, *census.identity, *census.frozen)
        missed = [address for address in wanted if address not in self.applied]
        if missed:
            raise ConvscopeError(
                f"rule={self.rule!r} on the way through {', '.join(missed[:3])}, where autograd runs another "
                "backward pass than PyTorch's own",
                "operators outside of torch.autograd.Function; of torch.library, with register_autograd",
                "use rule='gradient', or take the operator out of its autograd function",
            )

    def _change(self, call: OperatorCall) -> Change | None:
        """What is done in the graph, for operators whose backward isn't one operator."""
        role, cut = self.below.role(call), frozenset(self.below.frozen_places(call))
        if role == "identity":
            return Change(call.op, cut, "pass")
        if role == "relu" and call.op in EXTREMES:
            data = zeros_beside(self.below.origins, call) or 0
            return Change(call.op, kind="positive", data=data, masked=self.rule != "deconvnet")
        if role == "gate" and self.rule == "gated":
            if has_own_gate(self.below.origins, call):
                return Change(call.op, kind="gate", data=self.below.origins.places(call)[0])
            if is_square(self.below.origins, call):
                return Change(call.op, kind="square")
            limits = bounds(call.op, call.arguments) if call.op in CLAMPS else None
            if limits is not None:
                return Change(call.op, kind="clamp", bounds=limits)
            written_out = cut or call.op in EXTREMES or self.below.freezing.is_choice(call)
            return Change(call.op, cut, "rectify") if written_out else None
        is_norm_of_its_own = call.op == "convscope_normalise"
        return Change(call.op, cut) if role == "frozen" and not is_norm_of_its_own else None

    def _relu(self, visit: Visit) -> Any:
        if not self._is(visit, "relu"):
            return visit.run()
        signal = visit.args[_RELU_BACKWARDS[visit.site.op]] if self.rule == "deconvnet" else visit.run()
        return signal.clamp(min=0)

    def _gate(self, visit: Visit) -> Any:
        if not self._is(visit, "gate"):
            return visit.run()
        signal = gated_signal(visit.site.op, visit.args, visit.kwargs)
        return (signal, None) if visit.site.op == "_prelu_kernel_backward" else signal

    def _squash(self, visit: Visit) -> Any:
        """A sigmoid on the way is the unit's own: the seed is taken for one before it."""
        return visit.args[0] if self._is(visit, "none") else visit.run()

    def _statistics(self, visit: Visit) -> Any:
        return statistics.frozen_signal(visit) if self._is(visit, "frozen") else visit.run()

    def _is(self, visit: Visit, role: str) -> bool:
        """Whether a visit is in backward, at an operator of a role; it is noted then."""
        address = str(visit.forward)
        if visit.site.phase != "backward" or address not in self._by_role[role]:
            return False
        self.applied.add(address)
        return True

    def _open(self, visit: Visit) -> Any:
        """Compute the gate of an activation of another library's, on the way forward."""
        if visit.site.phase == "forward":
            given = {name: wide(argument) for name, argument in visit.kwargs.items()}
            self._gates[str(visit.site.address)] = GATES[visit.site.op](*map(wide, visit.args), **given)
        return visit.run()

    def _hold(self, visit: Visit) -> Any:
        """Record an operator's results, or put held ones in their place."""
        result = visit.run()
        if visit.site.phase not in _FORWARD or (self._recorded is None and self._held is None):
            return result
        results = list(result) if isinstance(result, tuple | list) else [result]
        points = [p for p in self.below.hold_points if p.address == str(visit.site.address)]
        for point in points:
            own = results[point.output]
            if self._held is not None:
                own.copy_(self._held.of(point, own))
            elif self._recorded is not None:
                self._recorded[point] = own.clone()
        if self._held is not None and is_norm(visit.site.op):
            results[0].copy_(statistics.normalised_by(visit.args, results[1], results[2], results[0]))
        return result


def check_rule(rule: str | None) -> None:
    """Refuse a rule that there isn't; None stands for a choice.

    Raises:
        ConvscopeError: it isn't one of :data:`~convscope.sight.projecting.projection.Rule`.
    """
    if rule is not None and rule not in get_args(Rule):
        raise ConvscopeError(
            f"rule={rule!r}",
            f"one of {', '.join(get_args(Rule))}",
            "leave it out for the one that suits the network; 'deconvnet' is Zeiler and Fergus's",
        )
