"""Runs on regions: the network's own code, handed a part of the image, with the rest known from a clean run.

The probe's rules give convolutions and pools what lies around their region in the clean maps, in place of
padding, join maps of different regions, and put a region into its whole map where the prefix ends. From there
on everything runs as always.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from convscope.probe import Probe, Visit
from convscope.sight.occluding.prefix import Kind, Prefix
from convscope.sight.occluding.regions import Regions, pasted, surrounded
from convscope.tape import OperatorCall


class Patches:
    """Clean maps, and regions of occluded ones, in the runs of one probe.

    Args:
        prefix: which operators run on regions.
    """

    def __init__(self, prefix: Prefix) -> None:
        self._prefix = prefix
        self._clean: dict[int, Tensor] = {}
        self._whole: dict[int, Tensor] = {}
        self._windows: list[int] | None = None
        self._is_clean_run = False

    def install(self, probe: Probe) -> None:
        """Let the rules stand in for operators."""
        for call, kind in self._prefix.inside:
            probe.around(str(call.address), partial(self._inside, call, kind))
        for call in self._prefix.readers:
            probe.around(str(call.address), partial(self._reader, call))

    @contextmanager
    def holding(self, image: Tensor) -> Iterator[None]:
        """Run a block whose run of the model is the clean image's, and keep the maps that are needed."""
        self._clean = {self._prefix.image: image.clone()}
        self._is_clean_run = True
        try:
            yield
        finally:
            self._is_clean_run = False

    @contextmanager
    def patching(self, windows: list[int]) -> Iterator[None]:
        """Run a block whose run of the model is given the parts of :meth:`parts_of` for these windows."""
        self._windows, self._whole = windows, {}
        try:
            yield
        finally:
            self._windows, self._whole = None, {}

    def parts_of(self, occluded: Tensor, windows: list[int]) -> Tensor:
        """Return the region of the image for each window, (n, c, h, w)."""
        have = self._regions(self._prefix.image, windows)
        height, width = have.size
        return torch.stack(
            [one[:, y : y + height, x : x + width] for one, (y, x) in zip(occluded, have.starts, strict=True)]
        )

    def whole(self, value: int, tensor: Tensor, channel: int | None = None) -> Tensor:
        """Return a value's whole maps, also where the tensor holds its regions; of one channel if named."""
        chosen = slice(None) if channel is None else slice(channel, channel + 1)
        if self._windows is None or value not in self._prefix.regions:
            return tensor[:, chosen]
        have = self._regions(value, self._windows)
        return pasted(self._clean[value][:, chosen], tensor[:, chosen], have)

    def _regions(self, value: int, windows: list[int] | None) -> Regions:
        assert windows is not None
        return self._prefix.regions[value].of(windows)

    def _inside(self, call: OperatorCall, kind: Kind, visit: Visit) -> Any:
        if self._windows is None or kind == "point":
            result = visit.run()
        elif kind == "window":
            result = self._windowed(call, visit)
        else:
            result = self._joined(call, visit)
        if self._is_clean_run and call.output in self._prefix.held:
            self._clean[call.output] = tree_leaves(result)[0].clone()
        return result

    def _reader(self, call: OperatorCall, visit: Visit) -> Any:
        if self._windows is None:
            return visit.run()

        def made_whole(value: int, tensor: Tensor) -> Tensor:
            if value not in self._prefix.regions:
                return tensor
            if value not in self._whole:
                self._whole[value] = self.whole(value, tensor)
            return self._whole[value]

        return visit.operator(*_with_values(call, visit, made_whole), **visit.kwargs)

    def _joined(self, call: OperatorCall, visit: Visit) -> Any:
        need = self._regions(call.output, self._windows)

        def fitted(value: int, tensor: Tensor) -> Tensor:
            have = self._regions(value, self._windows)
            return tensor if have == need else surrounded(self._clean[value], tensor, have, need)

        return visit.operator(*_with_values(call, visit, fitted), **visit.kwargs)

    def _windowed(self, call: OperatorCall, visit: Visit) -> Any:
        """The operator without its padding, over what lies around the region."""
        value, made = call.inputs[0], self._regions(call.output, self._windows)
        kernel = visit.args[1].shape[2:] if call.op == "convolution" else call.arguments["kernel_size"]
        kernel = _pair(kernel)
        stride = _pair(call.arguments.get("stride") or kernel)
        padding, dilation = (_pair(call.arguments.get(name) or default) for name, default in _DEFAULTS)
        size = tuple(
            (made.size[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)
        )
        starts = tuple((y * stride[0] - padding[0], x * stride[1] - padding[1]) for y, x in made.starts)
        fill = -torch.inf if call.op.startswith("max") else 0.0
        have = self._regions(value, self._windows)
        need = Regions((size[0], size[1]), starts)
        given = surrounded(self._clean[value], visit.args[0], have, need, fill)
        if call.op == "convolution":
            weight, bias = visit.args[1:3]
            rest = (list(dilation), False, [0, 0], call.arguments["groups"])
            return visit.operator(given, weight, bias, list(stride), [0, 0], *rest)
        if call.op == "avg_pool2d":
            divisor = call.arguments.get("divisor_override")
            return visit.operator(given, list(kernel), list(stride), [0, 0], False, True, divisor)
        return visit.operator(given, list(kernel), list(stride), [0, 0], list(dilation), False)


_DEFAULTS = (("padding", 0), ("dilation", 1))


def _pair(setting: Any) -> tuple[int, int]:
    numbers = (setting,) if isinstance(setting, int) else tuple(setting)
    return (numbers * 2)[0], (numbers * 2)[1]


def _with_values(call: OperatorCall, visit: Visit, replaced: Any) -> Any:
    """The operator's arguments with each tensor replaced by what a function of its value and itself gives."""
    values = iter(call.inputs)
    return tree_map_only(Tensor, lambda tensor: replaced(next(values), tensor), visit.args)
