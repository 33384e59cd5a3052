"""Which inputs of an operator a projection takes for recorded switches: no signal goes back through them.

==============================  ===========================================================================
operator                        frozen
==============================  ===========================================================================
x · s                           the gate: the factor which a sigmoid, hard sigmoid, softmax, tanh or
                                comparison makes (through views and scales), or else the one that broadcasts
batched matrix product          the softmaxed factor (attention)
x / d                           the denominator
x − mean(x)                     the mean
convolution                     weights made from the image
sampling at image-made places   the places
norms                           all but what is normalised: statistics and image-made scales
==============================  ===========================================================================

Autograd's derivative of x · s sends signal through s too: by way of a squeeze-and-excitation gate every pixel
would get some. As switches, gates say *where* the unit's image passed, and the signal is linear below them.

Limits: of two image-dependent factors of one shape neither of which is known to be a gate (q · k, x · x),
none is frozen; such a product has no rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from convscope.sight.projecting.activations import EXTREMES, bounds
from convscope.sight.projecting.origins import SHIFTS, Origins
from convscope.tape import OperatorCall

# How surely a function makes a gate; the first one wins.
_GATES = {
    "sigmoid": 0, "hardsigmoid": 0, "_softmax": 0, "_safe_softmax": 0, "gt": 0, "ge": 0, "lt": 0, "le": 0,
    "eq": 0, "ne": 0, "hardtanh": 1, "relu6": 1, "clamp": 1, "tanh": 2, "erf": 2,
}  # fmt: skip
_CLAMPS = {"hardtanh", "relu6", "clamp"}
_SOFTMAX = {"_softmax", "_safe_softmax"}
# Places of the two factors.
_FACTORS = {"mul": (0, 1), "mul_": (0, 1), "addcmul": (1, 2), "addcmul_": (1, 2)}
_MATRICES = {
    "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2),
    "linear": (0, 1),
}  # fmt: skip
_DENOMINATORS = {"div": 1, "div_": 1, "addcdiv": 2, "addcdiv_": 2}
# Everything but their first input.
_MODULATED = {
    "convolution", "grid_sampler_2d", "grid_sampler_3d", "torchvision_deform_conv2d", "convscope_normalise",
    "layer_norm", "group_norm", "batch_norm", "_fused_rms_norm",
}  # fmt: skip
_MEANS = {"mean", "var_mean", "std_mean", "_adaptive_avg_pool2d", "avg_pool2d", "convscope_moments"}


@dataclass(frozen=True)
class Freezing:
    """Decides from the recorded data flow which inputs are frozen.

    Args:
        origins: of the run's values.
    """

    origins: Origins

    def places(self, call: OperatorCall) -> tuple[int, ...]:
        """Return which of a call's inputs are frozen."""
        dependent = self.origins.places(call)
        if call.op == "attention":
            return tuple(place for place in (0, 1) if place in dependent)
        if len(dependent) < 2 or (dependent[0] != 0 and call.op not in _FACTORS | _MATRICES):
            return ()
        if call.op in _MODULATED:
            return dependent[1:]
        if call.op in _DENOMINATORS:
            return tuple(place for place in dependent if place == _DENOMINATORS[call.op])
        if call.op in ("sub", "sub_"):
            return (1,) if self._is_mean(call.inputs[1], call.inputs[0]) else ()
        if call.op in _MATRICES:
            return self._softmaxed(call, _MATRICES[call.op])
        return self._gate(call, _FACTORS[call.op]) if call.op in _FACTORS else ()

    def is_written_out(self, call: OperatorCall) -> bool:
        """Whether a call is an activation x · gate(x) written out, such as x · σ(x) or x / (1 + |x|)."""
        places = self.places(call)
        if len(places) != 1 or call.op not in ("mul", "mul_", "div", "div_"):
            return False
        roots = self.origins.multiples(call.inputs[1 - places[0]])
        return any(self.origins.is_elementwise(call.inputs[places[0]], root) for root in roots)

    def is_choice(self, call: OperatorCall) -> bool:
        """Whether a call picks by a condition which depends on the image: a recorded switch."""
        if call.op not in ("where", "masked_fill", "masked_fill_"):
            return False
        condition = call.tensor("condition" if call.op == "where" else "mask")
        return condition is not None and self.origins.depends(condition)

    def is_own_choice(self, call: OperatorCall) -> bool:
        """Whether such a condition is a test of the very elements that are picked: an activation."""
        condition = call.tensor("condition" if call.op == "where" else "mask")
        names = ("self", "other") if call.op == "where" else ("self", "value")
        kept = [value for name in names if (value := call.tensor(name)) is not None]
        roots = self._common_roots([value for value in kept if self.origins.depends(value)])
        return condition is not None and any(self.origins.is_elementwise(condition, root) for root in roots)

    def is_own_extreme(self, call: OperatorCall) -> bool:
        """Whether a maximum or minimum is of multiples of one value: an activation such as max(x, x / 10)."""
        return call.op in EXTREMES and bool(self._common_roots(call.inputs))

    def _common_roots(self, values: Sequence[int]) -> set[int]:
        """What all of some values are constant multiples of."""
        roots = [set(self.origins.multiples(value)) for value in values]
        return set.intersection(*roots) if roots else set()

    def _gate(self, call: OperatorCall, factors: tuple[int, int]) -> tuple[int, ...]:
        if not set(factors) <= set(self.origins.places(call)):
            return ()
        ranks = [self._rank(call.inputs[place]) for place in factors]
        known = [place for place, rank in zip(factors, ranks) if rank is not None]
        if len(known) == 1:
            return tuple(known)
        spread = [place for place in factors if self._is_spread(call, place)]
        if len(spread) == 1:
            return tuple(spread)
        first, second = ranks
        if first is None or second is None or first == second:
            return ()
        return (factors[0] if first < second else factors[1],)

    def _rank(self, value: int) -> int | None:
        call = self.origins.tape.producer(self.origins.within(value, shifts=True))
        while call is not None and call.op.startswith(("upsample_", "_upsample_")):  # a gate made smaller
            call = self.origins.tape.producer(self.origins.within(call.inputs[0], shifts=True))
        if call is None:
            return None
        if call.op.removesuffix("_") in _CLAMPS and not self._is_hard_sigmoid(call):
            return None
        return _GATES.get(call.op) if call.op in _GATES else _GATES.get(call.op.removesuffix("_"))

    def _is_hard_sigmoid(self, call: OperatorCall) -> bool:
        """Whether a clamp is one to [0, 1], or to other bounds of something shifted: relu6(x + 3) / 6."""
        low, high = bounds(call.op, call.arguments) or (-inf, inf)
        before = self.origins.tape.producer(call.inputs[0])
        is_shifted = before is not None and before.op in SHIFTS and len(self.origins.places(before)) == 1
        return low == 0 and (high == 1 or (high < inf and is_shifted))

    def _is_spread(self, call: OperatorCall, place: int) -> bool:
        """Whether an input has fewer elements than the result, seen through expansions."""
        values = self.origins.tape.values
        whole = self.origins.unviewed(call.inputs[place])
        return min(values[whole].numel, values[call.inputs[place]].numel) < values[call.output].numel

    def _softmaxed(self, call: OperatorCall, factors: tuple[int, int]) -> tuple[int, ...]:
        if not set(factors) <= set(self.origins.places(call)):
            return ()
        known = [place for place in factors if self._is_softmaxed(call.inputs[place])]
        return tuple(known) if len(known) == 1 else ()

    def _is_softmaxed(self, value: int) -> bool:
        """Whether a softmax made it, perhaps with its heads mixed afterwards."""
        mixing = {"convolution", "mm", "addmm", "bmm", "native_dropout", "batch_norm"}
        while True:
            value = self.origins.within(value, shifts=True)
            call = self.origins.tape.producer(value)
            if call is None or call.op in _SOFTMAX:
                return call is not None
            if call.op not in mixing or len(places := self.origins.places(call)) != 1:
                return False
            value = call.inputs[places[0]]

    def _is_mean(self, value: int, of: int) -> bool:
        """Whether a value is the mean of another one, over some axis."""
        values, source = self.origins.tape.values, self.origins.unviewed(value)
        call = self.origins.tape.producer(source)
        if call is None or call.op not in _MEANS or values[source].numel >= values[of].numel:
            return False
        return self.origins.within(call.inputs[0]) == self.origins.within(of)
