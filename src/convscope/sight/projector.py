"""The engine of projections: forward as far as a layer, then back to the image by a rule.

Used by :mod:`convscope.sight.project` for one picture and by the gallery for thousands in one go; all runs
go through one probe, so the model is put aside and restored once.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, probing
from convscope.sight.below import Below
from convscope.sight.projection import Box, Rule
from convscope.sight.rules import RuleBook
from convscope.sight.undisturbed import CHECKPOINT_WARNING
from convscope.tape import Tape, require_values
from convscope.tape.receptive_field import ReceptiveField


class Projector:
    """Runs a model forward to an address, and signals back to the images; see :func:`projecting`."""

    def __init__(self, probe: Probe, book: RuleBook) -> None:
        self._probe, self._book = probe, book
        self.applied = book.applied

    def forward(self, address: str, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
        """Return the images as the start of a graph, and the units' maps at ``address``."""
        leaves = images.detach().clone().requires_grad_()
        return leaves, self._probe.run_until(address, leaves)

    def backward(
        self, leaves: Float[Tensor, "n c h w"], maps: Float[Tensor, "n u *s"], seed: Tensor
    ) -> Float[Tensor, "n c h w"]:
        """Return the projection of a seed of the maps' shape to the images; the graph is used up.

        Raises:
            ConvscopeError: no gradient flows from the maps to the images, or not in one go.
        """
        if not maps.requires_grad:
            raise self._not_differentiable(leaves)
        try:
            (projection,) = torch.autograd.grad(maps, leaves, seed, allow_unused=True)
        except RuntimeError as error:
            if self._has_reentrant_checkpoint(leaves):
                raise _reentrant() from error
            raise ConvscopeError(
                f"a network whose backward pass fails ({str(error).splitlines()[0]})",
                "one that torch.autograd.grad differentiates",
                "choose a layer before the operator named",
            ) from error
        return torch.zeros_like(leaves) if projection is None else projection.detach()

    def project(
        self, address: str, images: Float[Tensor, "n c h w"], seeds: list[tuple[int, tuple[int, ...]]]
    ) -> Float[Tensor, "n c h w"]:
        """Return the projections of one unit and position per image, ``(unit, position)``."""
        leaves, maps = self.forward(address, images)
        seed = torch.zeros_like(maps)
        for row, (unit, position) in enumerate(seeds):
            at_position(seed, position)[row, unit] = 1
        return self.backward(leaves, maps, seed)

    def values(self, address: str, images: Float[Tensor, "n c h w"]) -> Tensor:
        """Return the units' maps at ``address`` without a graph."""
        with torch.no_grad():
            return self._probe.run_until(address, images.detach().clone())

    def _not_differentiable(self, leaves: Tensor) -> ConvscopeError:
        if self._has_reentrant_checkpoint(leaves):
            return _reentrant()
        return ConvscopeError(
            "a layer which isn't differentiable in the image",
            "one that autograd connects with the input",
            "choose a layer before the detach(), no_grad() or integer operator",
        )

    def _has_reentrant_checkpoint(self, leaves: Tensor) -> bool:
        """Whether the network has one: in a run without gradients it warns."""
        with warnings.catch_warnings(record=True) as caught, torch.no_grad():
            warnings.simplefilter("always")
            self._probe.model(leaves[:1].detach().clone())
        return any(str(warning.message).startswith(CHECKPOINT_WARNING) for warning in caught)


def _reentrant() -> ConvscopeError:
    return ConvscopeError(
        "a network with a reentrant checkpoint, which hides the graph of its block from torch.autograd.grad",
        "blocks checkpointed with use_reentrant=False, or not at all",
        "switch the network's checkpointing off, or choose a layer before it",
    )


@contextmanager
def projecting(model: nn.Module, tape: Tape, rule: Rule) -> Iterator[Projector]:
    """Run a block with a projector for ``model``, which is as it was afterwards, whatever happened."""
    below = Below(tape)
    roles = [(str(call.address), below.role(call)) for call in tape.in_phase("forward")]
    book = RuleBook(
        rule,
        relus=frozenset(address for address, role in roles if role == "relu"),
        identities=frozenset(address for address, role in roles if role == "identity"),
    )
    with torch.inference_mode(False), torch.enable_grad(), probing(model) as probe:
        book.install(probe)
        yield Projector(probe, book)


def check_model(model: nn.Module, *, differentiated: bool = True) -> None:
    """Refuse a model that can't run or, if it is to be ``differentiated``, be sent signals back through.

    Raises:
        ConvscopeError: not a module; tensors on the meta device, or made in inference mode.
    """
    require_values(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if differentiated and tensor.is_inference():
            raise ConvscopeError(
                f"tensor {name!r} made under torch.inference_mode(), which autograd can't use",
                "a model made outside of it",
                "make the model again outside of inference mode and load its state_dict",
            )


def for_model(model: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return images on the model's device and in its dtype, without their autograd graph."""
    floating = (parameter for parameter in model.parameters() if parameter.is_floating_point())
    first = next(floating, None)
    images = images.detach()
    return images if first is None else images.to(device=first.device, dtype=first.dtype)


def strongest(channel: Float[Tensor, "h w"]) -> tuple[int, int]:
    """Return the position (y, x) of a map's largest value, the first of equal ones."""
    y, x = divmod(int(channel.flatten().argmax()), channel.shape[-1])
    return y, x


def at_position(maps: Float[Tensor, "n u *s"], position: tuple[int, ...]) -> Float[Tensor, "n u"]:
    """Return the view of all channels at one position; an empty one for a layer without space."""
    for place in position:
        maps = maps.select(2, place)
    return maps


def box_of(field: ReceptiveField | None, position: tuple[int, ...], image_size: tuple[int, int]) -> Box:
    """Return the pixels that a position sees, clamped to the image; all of them without a known field."""
    if field is None or len(position) != 2:
        return Box(0, 0, *image_size)
    starts = [offset + place * stride for offset, place, stride in zip(field.offset, position, field.stride)]
    ends = [start + size for start, size in zip(starts, field.size)]
    # A position may see nothing but padding: its box is then the nearest pixel.
    top, left = (min(max(start, 0), size - 1) for start, size in zip(starts, image_size))
    bottom, right = (
        max(min(end, size), start + 1) for end, size, start in zip(ends, image_size, (top, left))
    )
    return Box(top, left, bottom, right)
