"""The engine of projections: forward as far as a layer, then back to the image by a rule.

Used by :mod:`convscope.sight.project` for one picture and by the gallery for thousands in one go; all runs
go through one probe, so the model is put aside and restored once.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, probing
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.holding import Frozen
from convscope.sight.projecting.projection import Box, Census, Rule
from convscope.sight.projecting.randomised import upper_weights
from convscope.sight.projecting.rules import RuleBook
from convscope.sight.projecting.support import convolution_backward
from convscope.sight.undisturbed import CHECKPOINT_WARNING
from convscope.tape import Tape, require_values
from convscope.tape.receptive_field import ReceptiveField

RECORDED = 16  # images in a run that records


class Projector:
    """Runs a model forward to an address, and signals back to the images; see :func:`projecting`."""

    def __init__(self, probe: Probe, book: RuleBook, tape: Tape) -> None:
        self._probe, self._book, self._tape = probe, book, tape
        self.applied, self.below = book.applied, book.below
        self._runs = WeakTensorKeyDictionary()  # by their images: what leads back, and their gates

    @cached_property
    def upper_weights(self) -> dict[Tensor, Tensor]:
        """Random weights for all layers above the first, by the parameter that they replace."""
        return upper_weights(self._probe.model, self._tape)

    def require_applied(self, census: Census) -> None:
        """Check that signals have met every operator that the rule replaces; raises ConvscopeError."""
        self._book.require_applied(census)

    def standing_in(self, weights: Mapping[Tensor, Tensor]) -> AbstractContextManager[None]:
        """Return a context in whose runs, forward and backward, other tensors replace some parameters."""
        return self._probe.standing_in(weights)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run a block with other runs of the model, which the rules don't concern."""
        with self._probe.paused():
            yield
        self._probe.attribution.abandon()  # runs may have been broken off

    def forward_to(
        self, addresses: Sequence[str], images: Float[Tensor, "n c h w"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the images as the start of a graph, and copies of the maps at several addresses.

        One run serves them all, as far as the last; its graph is kept as long as any of the maps.
        """
        leaves = images.detach().clone().requires_grad_()
        maps = self._probe.run_through(addresses, self._given(leaves))
        self._runs[leaves] = self._probe.attribution.run, self._book.taken_gates()
        return leaves, maps

    def forward(self, address: str, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
        """Return the images as the start of a graph, and the units' maps at ``address``."""
        leaves = images.detach().clone().requires_grad_()
        maps = self._probe.run_until(address, self._given(leaves))
        self._runs[leaves] = self._probe.attribution.run, self._book.taken_gates()
        return leaves, maps

    def backward(
        self,
        leaves: Float[Tensor, "n c h w"],
        maps: Float[Tensor, "n u *s"],
        seed: Tensor,
        *,
        keep: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the projection of a seed of the maps' shape to the images.

        Args:
            leaves: the images of a forward run.
            maps: of the same run.
            seed: the signal at the maps.
            keep: whether to keep the graph for more seeds; it is used up otherwise.

        Raises:
            ConvscopeError: no gradient flows from the maps to the images, or not in one go.
        """
        if not maps.requires_grad:
            raise self._not_differentiable(leaves)
        try:
            run, gates = self._runs[leaves]  # other forward runs may have come in between
            with self._probe.attribution.back_in(run):
                self._book.prepare(maps, self._probe, gates)
                (projection,) = torch.autograd.grad(maps, leaves, seed, retain_graph=keep, allow_unused=True)
        except RuntimeError as error:
            if self._has_reentrant_checkpoint(leaves):
                raise _reentrant() from error
            raise ConvscopeError(
                f"a network whose backward pass fails ({str(error).splitlines()[0]})",
                "one that torch.autograd.grad differentiates",
                "choose a layer before the operator named",
            ) from error
        if projection is None:  # the maps' graph doesn't begin at the images
            raise self._not_differentiable(leaves)
        return projection.detach()

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

    @property
    def holds(self) -> bool:
        """Whether windows of an image must hold gates or statistics of the whole to be passed like it."""
        return self._book.holds

    def recorded(self, images: Float[Tensor, "n c h w"]) -> Frozen:
        """Return the gates and statistics of whole images that windows of them are to hold."""
        parts = []
        for batch in torch.split(images, RECORDED):
            with torch.no_grad(), self._book.recording() as frozen:
                self._probe.model(batch.detach().clone())
            parts.append(dict(frozen.values))
        return Frozen({point: torch.cat([part[point] for part in parts]) for point in parts[0]})

    def holding(self, frozen: Frozen) -> AbstractContextManager[None]:
        """Return a context in whose runs, forward and backward, such values stand in for the runs' own."""
        return self._book.holding(frozen)

    def _given(self, leaves: Tensor) -> Tensor:
        """A copy within the graph: a network may write into the images that it is given."""
        with self._probe.paused():
            return leaves.clone()

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
def projecting(
    model: nn.Module,
    tape: Tape,
    rule: Rule,
    *,
    narrow: bool = False,
    also: Callable[[Probe], object] | None = None,
) -> Iterator[Projector]:
    """Run a block with a projector for ``model``, which is as it was afterwards, whatever happened.

    Args:
        model: the network.
        tape: of a run of it in evaluation mode.
        rule: of the projections.
        narrow: whether convolutions on the way back leave out the zeros around a signal
            (:mod:`convscope.sight.projecting.support`): faster, and the same but for rounding.
        also: installs more rules, which go round those of ``rule``.
    """
    book = RuleBook(rule, Below(tape))
    with torch.inference_mode(False), torch.enable_grad(), probing(model) as probe:
        # Signals go to the images alone; and attention has other operators where a bias needs a gradient.
        model.requires_grad_(False)
        book.install(probe)
        if narrow:
            probe.around("convolution_backward", convolution_backward)
        if also is not None:
            also(probe)
        yield Projector(probe, book, tape)


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
