"""What lies between the image and a value, and how a projection's rule passes each operator.

Decided from the recorded data flow, not from module types: functional, in-place and shared ReLUs are the
same to it, and ReLUs that are written as ``clamp(min=0)`` or ``where(x > 0, x, 0)`` are found too.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from convscope.sight.projection import Census, Rule
from convscope.tape import OperatorCall, Tape
from convscope.tape.batch_norms import normalises_samples

Role = Literal["relu", "switch", "identity", "linear", "plain"]
"""``relu``: the rule replaces its backward; ``switch``: a max-pool; ``identity``: local response
normalisation; ``linear``: its backward doesn't depend on the image; ``plain``: none of these."""

_SWITCHES = {
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "fractional_max_pool2d", "max", "amax",
}  # fmt: skip
# Their result has the shape of a tensor, but not its content.
_SHAPE_ONLY = {
    "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty",
}  # fmt: skip
_ZEROS = {"zeros", "zeros_like", "new_zeros", "scalar_tensor", "full", "full_like"}
# Linear in all of their tensors together.
_SUMS = {
    "add", "add_", "sub", "sub_", "rsub", "neg", "neg_", "sum", "mean", "cat", "stack", "clone", "_to_copy",
    "copy_", "view", "_unsafe_view", "_reshape_alias", "reshape", "permute", "transpose", "t", "expand",
    "squeeze", "unsqueeze", "slice", "select", "narrow", "split", "split_with_sizes", "unbind", "unfold",
    "as_strided", "as_strided_", "repeat", "roll", "flip", "index_select", "channel_shuffle",
    "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "im2col", "col2im", "constant_pad_nd",
    "reflection_pad2d",
    "replication_pad2d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "movedim",
}  # fmt: skip
# Linear in one tensor if the others don't depend on the image.
_PRODUCTS = {"convolution", "addmm", "mm", "bmm", "baddbmm", "mul", "mul_", "addcmul", "addcmul_", "linear"}
_QUOTIENTS = {"div", "div_"}


@dataclass(frozen=True)
class Below:
    """The roles of a recorded forward pass's operators.

    Args:
        tape: of one run in evaluation mode.
    """

    tape: Tape

    def role(self, call: OperatorCall) -> Role:
        """Return how a projection passes an operator."""
        if self._is_relu(call):
            return "relu"
        if call.op in _SWITCHES:
            return "switch"
        if self._is_local_response_norm(call):
            return "identity"
        return "linear" if self._is_linear(call) else "plain"

    def path_to(self, value: int) -> tuple[OperatorCall, ...]:
        """Return the forward operators through which a signal goes from the image to ``value``, in order."""
        pending, found = [value], set[int]()
        while pending:
            call = self.tape.producer(pending.pop())
            if call is None or call.index in found or not self._carries_signal(call):
                continue
            found.add(call.index)
            if self._is_local_response_norm(call):
                pending.append(call.inputs[0])  # the denominator is no way back
            else:
                pending += call.inputs
        return tuple(self.tape.calls[index] for index in sorted(found))

    def census(self, value: int, rule: Rule) -> Census:
        """Return how every operator between the image and ``value`` is passed by a rule."""
        by_role: dict[Role, list[OperatorCall]] = {}
        for call in self.path_to(value):
            by_role.setdefault(self.role(call), []).append(call)
        addresses = {role: tuple(str(call.address) for call in calls) for role, calls in by_role.items()}
        linear = by_role.get("linear", [])
        num_convolutions = sum(call.op == "convolution" for call in linear)
        if rule == "gradient":  # every operator's own derivative is what the rule asks for
            return Census((), addresses.get("switch", ()), (), len(linear), num_convolutions, ())
        return Census(
            rewritten=addresses.get("relu", ()),
            switches=addresses.get("switch", ()),
            identity=addresses.get("identity", ()),
            linear=len(linear),
            convolutions=num_convolutions,
            plain=tuple(f"{call.op} {call.address}" for call in by_role.get("plain", ())),
        )

    def batch_statistics(self, value: int) -> OperatorCall | None:
        """Return a normalisation below ``value`` by statistics of all images of a batch, or None."""
        return next((call for call in self.path_to(value) if self._is_over_batch(call)), None)

    def depends_on_image(self, value: int) -> bool:
        """Whether the image's content reaches a value, differentiably or not."""
        return value in self._dependent

    @cached_property
    def _dependent(self) -> frozenset[int]:
        # A write into a view changes the whole tensor: a value that isn't among the call's results.
        written: dict[int, list[int]] = {}
        for value in self.tape.values:
            if value.producer is not None:
                written.setdefault(value.producer, []).append(value.index)
        reached = set(self.tape.inputs)
        for call in self.tape.calls:
            if call.op not in _SHAPE_ONLY and not reached.isdisjoint(call.inputs):
                reached.update(output for output in call.outputs if output is not None)
                reached.update(written.get(call.index, ()))
        return frozenset(reached)

    def _carries_signal(self, call: OperatorCall) -> bool:
        if (
            call.phase != "forward"
            or call.op in _SHAPE_ONLY
            or not any(v in self._dependent for v in call.inputs)
        ):
            return False
        return call.outputs[0] is not None and self.tape.values[call.output].dtype.is_floating_point

    def _is_over_batch(self, call: OperatorCall) -> bool:
        if call.op == "convscope_moments":
            return 0 in call.arguments["dims"]
        if call.op != "batch_norm" or call.arguments.get("training") is False:
            return False
        return "no_training" not in call.overload and normalises_samples(self.tape, call)

    def _num_dependent(self, call: OperatorCall) -> int:
        return sum(value in self._dependent for value in call.inputs)

    def _is_linear(self, call: OperatorCall) -> bool:
        if call.op in _SUMS:
            return True
        if call.op in _PRODUCTS:
            return self._num_dependent(call) == 1
        if call.op in _QUOTIENTS:
            return self._num_dependent(call) == 1 and call.inputs[0] in self._dependent
        if call.op == "batch_norm":
            return call.arguments.get("training") is False or "no_training" in call.overload
        return False

    def _is_relu(self, call: OperatorCall) -> bool:
        given = call.arguments
        if call.op in ("relu", "relu_"):
            return True
        if call.op in ("threshold", "threshold_"):
            return bool(given["threshold"] == 0 and given["value"] == 0)
        if call.op in ("clamp", "clamp_", "clamp_min", "clamp_min_"):
            return bool(given["min"] == 0) and given.get("max") is None
        return call.op == "where" and self._selects_positives(call)

    def _selects_positives(self, call: OperatorCall) -> bool:
        """Whether a ``where`` keeps what is positive and puts zeros elsewhere."""
        condition, kept, other = (call.tensor(name) for name in ("condition", "self", "other"))
        if condition is None or kept is None or other is None:
            return False
        test, zeros = self.tape.producer(condition), self.tape.producer(other)
        is_test = test is not None and test.op in ("gt", "ge") and test.inputs[0] == kept
        is_zeros = zeros is not None and zeros.op in _ZEROS and not any(_fills(zeros))
        return is_test and is_zeros and test is not None and bool(test.arguments.get("other") == 0)

    def _is_local_response_norm(self, call: OperatorCall) -> bool:
        """Whether a division is by a power of the dividend's own neighbourhood."""
        if call.op not in _QUOTIENTS or len(call.inputs) != 2 or self._num_dependent(call) != 2:
            return False
        power = self.tape.producer(call.inputs[1])
        return power is not None and power.op in ("pow", "pow_") and self._comes_from(power, call.inputs[0])

    def _comes_from(self, call: OperatorCall, value: int) -> bool:
        pending, seen = list(call.inputs), set[int]()
        while pending:
            current = pending.pop()
            if current == value:
                return True
            producer = self.tape.producer(current)
            if producer is not None and producer.index not in seen:
                seen.add(producer.index)
                pending += [v for v in producer.inputs if v in self._dependent]
        return False


def _fills(call: OperatorCall) -> list[object]:
    """The numbers other than zero that a new tensor is filled with."""
    return [call.arguments[name] for name in ("fill_value", "s") if call.arguments.get(name)]
