"""What lies between the image and a value, and how a projection's rule passes each operator.

Decided from the recorded data flow, not from module types: functional, in-place and shared activations are
the same to it, and those that are written out (``clamp(min=0)``, ``where(x > 0, x, 0)``, ``x * sigmoid(x)``)
are found too.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from convscope.core.errors import ConvscopeError
from convscope.sight.projecting.activations import EXTREMES, has_gate, is_relu
from convscope.sight.projecting.frozen import Freezing
from convscope.sight.projecting.holding import HoldPoint, held_fields, hold_points
from convscope.sight.projecting.linear import is_linear
from convscope.sight.projecting.origins import SHAPE_ONLY, Origins
from convscope.sight.projecting.projection import Census, Rule
from convscope.tape import OperatorCall, Tape
from convscope.tape.batch_norms import uses_batch_statistics
from convscope.tape.receptive_field import ReceptiveField, receptive_fields

Role = Literal["relu", "gate", "frozen", "switch", "identity", "linear", "none"]
"""``relu``: the rule replaces its backward; ``gate``: another activation x · gate(x); ``frozen``: a product,
quotient, norm or choice whose gate, denominator, statistics or condition is a recorded switch; ``switch``: a
max-pool, or a maximum of several maps; ``identity``: local response normalisation; ``linear``: its backward
doesn't depend on the image; ``none``: there is no rule for it."""

_SWITCHES = {
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "fractional_max_pool2d", "max", "amax", "min", "amin", "topk", "sort", "gather",
}  # fmt: skip
_NORMS = {"layer_norm", "group_norm", "_fused_rms_norm", "convscope_normalise", "glu"}
SQUASHES = {"sigmoid", "sigmoid_", "hardsigmoid", "hardsigmoid_", "softplus"}
"""Activations without a gate that only rise: as a unit's own, last one they change the scale alone."""
_NAMED = 3


@dataclass(frozen=True)
class Below:
    """The roles of a recorded forward pass's operators.

    Args:
        tape: of one run in evaluation mode.
    """

    tape: Tape

    @cached_property
    def origins(self) -> Origins:
        """What the values are made of."""
        return Origins(self.tape)

    @cached_property
    def freezing(self) -> Freezing:
        """Which inputs are recorded switches."""
        return Freezing(self.origins)

    @cached_property
    def _roles(self) -> dict[int, Role]:
        return {}

    def role(self, call: OperatorCall) -> Role:
        """Return how a projection passes an operator."""
        if call.index not in self._roles:
            self._roles[call.index] = self._role(call)
        return self._roles[call.index]

    def frozen_places(self, call: OperatorCall) -> tuple[int, ...]:
        """Return which of a call's inputs no signal goes back through, but by its own derivative."""
        return (1,) if self.role(call) == "identity" else self.freezing.places(call)

    def path_to(self, value: int, rule: Rule = "deconvnet") -> tuple[OperatorCall, ...]:
        """Return the forward operators through which a signal goes from the image to ``value``, in order."""
        return tuple(self.tape.calls[index] for index in sorted(self._way([value], rule)[0]))

    def census(self, value: int, rule: Rule) -> Census:
        """Return how every operator between the image and ``value`` is passed by a rule.

        What the rule can't pass isn't in it; see :meth:`require_rule`.
        """
        by_role: dict[Role, list[OperatorCall]] = {}
        for call in self.path_to(value, rule):
            by_role.setdefault(self.role(call), []).append(call)
        at = {role: tuple(str(call.address) for call in calls) for role, calls in by_role.items()}
        linear = by_role.get("linear", [])
        convolutions = sum(call.op == "convolution" for call in linear)
        switches = at.get("switch", ())
        if rule == "gradient":  # every operator's own derivative is what the rule asks for
            roles: tuple[Role, ...] = ("relu", "gate", "frozen", "identity", "none")
            calls = sorted((call for role in roles for call in by_role.get(role, ())), key=lambda c: c.index)
            left = tuple(str(call.address) for call in calls)
            return Census((), (), (), switches, (), left, len(linear), convolutions)
        relus, gates = at.get("relu", ()), at.get("gate", ())
        if rule == "gated":
            passed: tuple[Role, ...] = ("relu", "gate", "none")
            active = sorted((c for role in passed for c in by_role.get(role, ())), key=lambda c: c.index)
            relus, gates = (), tuple(str(call.address) for call in active)
        return Census(
            rewritten=relus,
            gated=gates if rule == "gated" else (),
            frozen=at.get("frozen", ()),
            switches=switches,
            identity=at.get("identity", ()),
            left=(),
            linear=len(linear),
            convolutions=convolutions,
        )

    def without_rule(self, value: int, rule: Rule) -> tuple[OperatorCall, ...]:
        """Return the operators between the image and ``value`` which a rule says nothing about."""
        if rule == "gradient":
            return ()
        unknown: tuple[Role, ...] = ("none",) if rule == "gated" else ("none", "gate")
        own = self.tape.producer(value) if rule == "gated" else None
        return tuple(
            call
            for call in self.path_to(value, rule)
            if self.role(call) in unknown and not (call is own and call.op in SQUASHES)
        )

    def require_rule(self, value: int, rule: Rule) -> None:
        """Check that a rule passes every operator between the image and ``value``.

        Raises:
            ConvscopeError: it doesn't; the first operators are named, and a rule that does.
        """
        missing = self.without_rule(value, rule)
        if not missing:
            return
        named = ", ".join(f"{call.op} at {call.address}" for call in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        defined = {"gated": "activations x · gate(x), gates, norms and linear operators"}
        other = "gradient" if self.without_rule(value, "gated") else "gated"
        raise ConvscopeError(
            f"rule={rule!r} on the way through {named}{more}",
            defined.get(rule, "ReLU as the only activation") + " between the image and the unit",
            f"use rule={other!r}, or choose a layer below {missing[0].address}",
        )

    def fields(self, rule: Rule) -> dict[int, ReceptiveField | None]:
        """Return the receptive fields of values along the signal's way, for windows that hold what is frozen.

        Gates and statistics of the whole map count as constants, since windows hold those of the whole image
        (:mod:`convscope.sight.projecting.holding`); those of a neighbourhood count with what they see.
        """
        plain = receptive_fields(self.tape)
        if rule == "gradient":
            return plain
        return {
            value: self._held_fields.get(value) if value in self._main else plain[value] for value in plain
        }

    @cached_property
    def hold_points(self) -> tuple[HoldPoint, ...]:
        """What windows hold in the place of their own values."""
        return hold_points(self.origins, self._held_fields, self._beside)

    @cached_property
    def _held_fields(self) -> dict[int, ReceptiveField | None]:
        return held_fields(self.tape, self._beside)

    @cached_property
    def _main(self) -> frozenset[int]:
        """All values by which a signal from the network's outputs passes."""
        return frozenset(self._way(list(self.tape.outputs), "gated")[1])

    @cached_property
    def _beside(self) -> frozenset[int]:
        """The values that serve gates and statistics alone."""
        return self.origins.dependent - self._main

    def batch_statistics(self, value: int) -> OperatorCall | None:
        """Return a normalisation below ``value`` by statistics of all images of a batch, or None."""
        way = self.path_to(value, "gradient")
        return next((call for call in way if uses_batch_statistics(self.tape, call)), None)

    def depends_on_image(self, value: int) -> bool:
        """Whether the image's content reaches a value, differentiably or not."""
        return self.origins.depends(value)

    def _way(self, values: list[int], rule: Rule) -> tuple[set[int], set[int]]:
        """The calls and the values by which a signal goes back to the image."""
        pending, found, seen = list(values), set[int](), set(values)
        while pending:
            call = self.tape.producer(pending.pop())
            if call is None or call.index in found or not self._carries_signal(call):
                continue
            found.add(call.index)
            frozen = () if rule == "gradient" else self.frozen_places(call)
            before = [value for place, value in enumerate(call.inputs) if place not in frozen]
            seen.update(before)
            pending += before
        return found, seen

    def _carries_signal(self, call: OperatorCall) -> bool:
        dependent = self.origins.dependent
        if (
            call.phase != "forward"
            or call.op in SHAPE_ONLY
            or not any(value in dependent for value in call.inputs)
        ):
            return False
        if call.outputs[0] is None:
            return False
        dtype = self.tape.values[call.output].dtype
        return dtype.is_floating_point or dtype.is_complex

    def _role(self, call: OperatorCall) -> Role:
        if is_relu(self.origins, call):
            return "relu"
        if has_gate(self.origins, call) or self.freezing.is_written_out(call):
            return "gate"
        if self._is_local_response_norm(call):
            return "identity"
        if call.op in EXTREMES:
            return self._role_of_extreme(call)
        if self.freezing.is_choice(call):
            return "gate" if self.freezing.is_own_choice(call) else "frozen"
        if self.freezing.places(call) or self._normalises(call):
            return "frozen"
        if call.op in _SWITCHES:
            return "switch"
        return "linear" if is_linear(self.origins, call) else "none"

    def _role_of_extreme(self, call: OperatorCall) -> Role:
        """Of a maximum or minimum that isn't a ReLU: of maps, of one and itself, or with constants."""
        if self.freezing.is_own_extreme(call):
            return "gate"
        return "switch" if len(self.origins.places(call)) > 1 else "none"

    def _normalises(self, call: OperatorCall) -> bool:
        """Whether it has statistics of its own input."""
        return call.op in _NORMS or (call.op == "batch_norm" and not _by_constants(call))

    def _is_local_response_norm(self, call: OperatorCall) -> bool:
        """Whether a division is by a power of the dividend's own neighbourhood."""
        if call.op not in ("div", "div_") or self.origins.places(call) != (0, 1):
            return False
        power = self.tape.producer(call.inputs[1])
        values = self.tape.values
        same_shape = values[call.inputs[1]].shape == values[call.inputs[0]].shape
        is_power = power is not None and power.op in ("pow", "pow_") and same_shape
        return is_power and power is not None and self.origins.comes_from(power, call.inputs[0])


def _by_constants(call: OperatorCall) -> bool:
    """Whether a batch norm normalises by what it was given."""
    return call.arguments.get("training") is False or "no_training" in call.overload
