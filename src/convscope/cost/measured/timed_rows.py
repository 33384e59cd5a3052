"""Which row of the table the operators of a real step belong to, and what the rows took."""

import statistics
from collections.abc import Iterable, Iterator

from convscope.cost.arithmetic.gradients import ParameterFlow
from convscope.cost.layers import Layers
from convscope.cost.measured.values import RowTiming, Seconds
from convscope.cost.rows import table_of
from convscope.tape import Site, Tape
from convscope.tape.calls import OperatorCall


class TimedRows:
    """The rows of the table, and which of them an operator of a real step belongs to."""

    def __init__(self, tape: Tape) -> None:
        self.rows = table_of(tape).rows
        self._tape, self._layers = tape, Layers(tape, ParameterFlow(tape))
        layers = self._layers.layers
        self._whole = {str(layer.address) for layer in layers if layer.address.op is None}
        # The first row of a module call, and of a module, stands for operators that lead to no other.
        self._nearest: dict[str, str] = {}
        for layer in layers:
            self._nearest.setdefault(str(layer.address.module), str(layer.address))
            self._nearest.setdefault(layer.address.path, str(layer.address))
        self._known: dict[str, str | None] = {}

    def whole(self, module: str) -> str | None:
        """The address of a row that is this module call as a whole, or None."""
        return module if module in self._whole else None

    def is_inside(self, site: Site) -> bool:
        """Whether an operator runs in a module call which is a row as a whole."""
        return site.phase in ("forward", "recompute") and str(site.address.module) in self._whole

    def of(self, site: Site) -> str | None:
        """The address of an operator's row; sums of a parameter's gradient belong to its module's first."""
        address = str(site.address)
        if address not in self._known:
            call = self._tape.find(address)
            layer = self._layers.of(call) if isinstance(call, OperatorCall) else None
            near = self._nearest.get(str(site.address.module)) or self._nearest.get(site.address.path)
            self._known[address] = near if layer is None else str(layer.address)
        return self._known[address]

    def timings(self, halves: Iterable[tuple[Seconds, Seconds]], total: float) -> Iterator[RowTiming]:
        """The rows' timings, from their forward and backward seconds."""
        for row, (forward, backward) in zip(self.rows, halves):
            backward_flops = row.backward_input_flops + row.backward_weight_flops + row.recompute_flops
            flops, seconds = row.forward_flops + backward_flops, forward.median + backward.median
            yield RowTiming(
                address=row.address,
                op=row.op,
                forward=forward,
                backward=backward,
                forward_flops=row.forward_flops,
                backward_flops=backward_flops if self._tape.training else 0,
                flops_per_second=flops / seconds if flops and seconds else None,
                share=seconds / total if total else 0.0,
            )


def seconds_of(times: list[float], repeats: int) -> Seconds:
    """Median and quartiles; repeats in which a time wasn't met had none of it."""
    low, median, high = statistics.quantiles(times + [0.0] * (repeats - len(times)), n=4, method="inclusive")
    return Seconds(median, low, high)
