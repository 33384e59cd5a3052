"""How do the processes of a group pool what each has found of a batch that they share?

Forwards, every process sends count, mean and variance of its share, per channel, and merges what all have
sent by Chan's formula in float64 (``merging``), in the order of ranks and on the CPU: the same bits on every
process. Shares may be unequal or empty. Backwards, the sums over shares are added up; who divides them by the
total count gets the gradient, which means of shares would not give.

A message begins with a frame of fixed size: a head that says what the process is about to do, and as many
of its numbers as fit; for many channels a second part follows. So processes that disagree (about the number
of channels, about gradients) can still read each other's heads, and all of them raise the same error.

Limits: a process that doesn't take part at all can't be told from a slow one: the others wait until the
group's timeout. Backwards there are no heads, for reading them would stall an accelerator: after the same
forward pass, processes must run the same backward pass. Not within a CUDA graph.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, distributed, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.engine.merging import Summary, pooled
from convscope.norm.engine.statistics import Moments, in_two_numbers
from convscope.norm.naming import named

_HEAD = struct.Struct("<??q22s")

FRAME_BYTES = _HEAD.size + 1024 * 20
"""Bytes of a message's first part: the head, and count, mean and variance of 1,024 channels in float32."""


class Head(NamedTuple):
    """What a process says before its numbers.

    Attributes:
        refused: whether it can't normalise its input; no numbers follow then.
        differentiated: whether its backward pass will follow.
        channels: C.
        dtype: of its input, such as ``"float32"``.
    """

    refused: bool
    differentiated: bool
    channels: int
    dtype: str

    def packed(self) -> bytes:
        """Return the head as 32 bytes."""
        return _HEAD.pack(*self[:3], self.dtype.encode())

    @classmethod
    def unpacked(cls, message: bytes) -> "Head":
        """Return the head at the beginning of a message.

        Example:
            >>> Head.unpacked(Head(False, True, 64, "float32").packed() + b"...")
            Head(refused=False, differentiated=True, channels=64, dtype='float32')
        """
        refused, differentiated, channels, dtype = _HEAD.unpack_from(message)
        return cls(refused, differentiated, channels, dtype.rstrip(b"\0").decode())


class ProcessExchange:
    """Pools moments and sums over a process group: the ``Exchange`` of ``function``.

    Args:
        layer: who is named in messages.
        group: a process group that this process is a member of; None for the default one.
        differentiated: whether a backward pass will follow on this process.
        dtype: of the input.
    """

    def __init__(self, layer: nn.Module, group: Any, differentiated: bool, dtype: torch.dtype) -> None:
        self._layer, self._group = layer, group
        self._count = distributed.get_world_size(group)
        self._differentiated, self._dtype = differentiated, str(dtype).removeprefix("torch.")

    def moments(self, local: Moments) -> Moments:
        """Return the moments of all processes' values, the same bits on each of them.

        Args:
            local: those of this process's share; a share without values has a count of 0.

        Raises:
            ConvscopeError: another process has refused its input, has another number of channels or another
                dtype, or runs without gradients what runs with them here; a process was lost.
        """
        channels = local.shift.numel()
        head = Head(False, self._differentiated, channels, self._dtype)
        numbers = (local.count.expand_as(local.shift), *local[:3])
        message = torch.cat([_on(local.shift.device, head), *map(_bytes, numbers)])
        messages = self._gathered(message)
        counts, *rest = _columns(messages, channels, [torch.int64, *(local.shift.dtype,) * 3])
        shift, residual, variance = (column.double() for column in rest)
        sizes = counts.double()
        whole = pooled(Summary(sizes, shift + residual, variance * sizes))
        return _as_moments(whole, local.shift)

    def refuse(self, device: torch.device) -> None:
        """Tell the other processes, which wait for this one, that it can't normalise its input."""
        frame = _framed(_on(device, Head(True, self._differentiated, 0, self._dtype)))
        with suppress(ConvscopeError):  # this process has an error of its own to raise
            self._all_gather(frame)

    def total(self, share: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the sum of all processes' shares, differentiable as often as wanted.

        Raises:
            ConvscopeError: a process was lost.
        """
        whole: Tensor = _Total.apply(share, self)  # type: ignore[no-untyped-call]
        return whole

    def added_up(self, share: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the sum of all processes' shares, outside the graph."""
        whole = share.detach().clone(memory_format=torch.contiguous_format)
        with self._all_together():
            distributed.all_reduce(whole, group=self._group)
        return whole

    def _gathered(self, message: UInt8[Tensor, " bytes"]) -> UInt8[Tensor, "processes bytes"]:
        """Return all processes' messages, in the CPU's memory, after checking their heads."""
        messages = self._all_gather(_framed(message))
        heads = messages[:, : _HEAD.size]
        if not torch.equal(heads, heads[:1].expand_as(heads)) or heads[0, 0]:
            self._refuse([Head.unpacked(bytes(row.tolist())) for row in heads])
        if message.numel() > FRAME_BYTES:  # on every process, since the heads agree
            messages = torch.cat([messages, self._all_gather(message[FRAME_BYTES:])], dim=1)
        return messages

    def _all_gather(self, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(self._count)]
        with self._all_together():
            distributed.all_gather(parts, part, group=self._group)
            return torch.stack(parts).cpu()

    def _refuse(self, heads: Sequence[Head]) -> NoReturn:
        """Say which process has refused its input, or else how the heads differ."""
        refusing = [rank for rank, head in enumerate(heads) if head.refused]
        if refusing:
            raise ConvscopeError(
                f"{named(self._layer)}: process {refusing[0]} of {self._count} refused its input",
                "inputs that every process can normalise",
                "see that process's own error",
            )
        rank = next(rank for rank, head in enumerate(heads) if head != heads[0])
        raise ConvscopeError(
            f"{named(self._layer)} run with {_described(heads[0])} on process 0, "
            f"with {_described(heads[rank])} on process {rank}",
            f"the same on all {self._count} processes of its group",
            "build the same network on each of them and run its layers in the same order and way",
        )

    @contextmanager
    def _all_together(self) -> Iterator[None]:
        """Name the layer where processes don't come together."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0].partition(". ")[0]
            raise ConvscopeError(
                f"{named(self._layer)} couldn't exchange its statistics between processes ({reason})",
                f"all {self._count} processes of its group to run it in training mode, forwards and "
                "backwards, in the same order, on devices that the group's backend serves",
                "look for the one that has stopped, is in eval mode or leaves the layer out",
            ) from error


class _Total(torch.autograd.Function):
    """Every process's result depends on every process's share, so that their gradients add up as well."""

    @staticmethod
    def forward(share: Tensor, exchange: ProcessExchange) -> Tensor:
        return exchange.added_up(share)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        ctx.exchange = inputs[1]

    @staticmethod
    def backward(ctx: Any, dwhole: Tensor) -> tuple[Tensor | None, ...]:
        return _Total.apply(dwhole, ctx.exchange), None  # type: ignore[no-untyped-call]


def _described(head: Head) -> str:
    return f"{head.channels} channels in {head.dtype}, {'' if head.differentiated else 'not '}differentiated"


def _bytes(numbers: Tensor) -> UInt8[Tensor, " bytes"]:
    return numbers.contiguous().flatten().view(torch.uint8)


def _on(device: torch.device, head: Head) -> UInt8[Tensor, " bytes"]:
    return torch.frombuffer(bytearray(head.packed()), dtype=torch.uint8).to(device)


def _framed(message: UInt8[Tensor, " bytes"]) -> UInt8[Tensor, " frame"]:
    """Return the first part of a message, filled up with zeros."""
    return nn.functional.pad(message, (0, max(0, FRAME_BYTES - message.numel())))[:FRAME_BYTES].contiguous()


def _columns(
    messages: UInt8[Tensor, "processes bytes"], channels: int, dtypes: Sequence[torch.dtype]
) -> list[Tensor]:
    """Return the numbers after the heads, one tensor (processes, channels) for each dtype in turn."""
    columns, begin = [], _HEAD.size
    for dtype in dtypes:
        end = begin + channels * dtype.itemsize
        columns.append(messages[:, begin:end].contiguous().view(dtype))
        begin = end
    return columns


def _as_moments(whole: Summary, like: Float[Tensor, "*sets"]) -> Moments:
    """Return a summary as moments, in the shape and dtype, and on the device, of a tensor."""
    moments = (*in_two_numbers(whole, like.dtype), whole.count.long())
    return Moments(*(number.view(like.shape).to(like.device) for number in moments))
