"""The second look as a whole: which blocks are this process's, what is kept of them, and where.

A process takes every so-many-th of the blocks that nobody has done yet. Since batches are made within a
block, its file has the same bytes whoever makes it.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.sight.collecting.processes import Processes
from convscope.sight.images import ImageSource
from convscope.sight.picturing.drawing import Drawing
from convscope.sight.picturing.judged import judged
from convscope.sight.picturing.kept import BlockFiles, Pictures, packed
from convscope.sight.picturing.winners import ImagesChangedError, look
from convscope.sight.projecting.projection import Rule
from convscope.sight.projecting.projector import Projector, for_model, projecting
from convscope.tape import Tape


@dataclass(frozen=True)
class SecondLook:
    """What the second look works on.

    Attributes:
        model: the network.
        tape: of a run of it.
        rule: of the projections.
        images: the data set.
        drawings: the layers.
        blocks: winning images, see :func:`convscope.sight.picturing.places.blocks_of`.
    """

    model: nn.Module
    tape: Tape
    rule: Rule
    images: ImageSource
    drawings: list[Drawing]
    blocks: list[tuple[int, ...]]

    def draw(self, files: BlockFiles, processes: Processes, progress: Callable[[int, int], object]) -> None:
        """Draw all blocks that aren't done, this process its share; the first process has all files then.

        Args:
            files: where blocks are kept.
            processes: that share the work.
            progress: is told how many images this process has looked at, and how many it has to.

        Raises:
            ConvscopeError: images aren't what they were at the first look, or a file can't be written.
        """
        done = processes.gather(files.done())
        left = processes.broadcast(None if done is None else self._left(done))
        assert left is not None
        own = [self.blocks[number] for number in left[processes.rank :: processes.size]]
        numbers = dict(zip(own, left[processes.rank :: processes.size], strict=True))
        processes.each(lambda: self._draw(own, numbers, files, progress))
        files.bring_together(processes)

    def _left(self, done: Collection[set[int]]) -> list[int]:
        return sorted(set(range(len(self.blocks))).difference(*done))

    def _draw(
        self,
        blocks: list[tuple[int, ...]],
        numbers: dict[tuple[int, ...], int],
        files: BlockFiles,
        progress: Callable[[int, int], object],
    ) -> None:
        if not blocks:
            return
        total, looked_at = sum(map(len, blocks)), 0
        with projecting(self.model, self.tape, self.rule, narrow=True) as projector:
            for block, pixels in self._read(blocks):
                files.write(numbers[block], self._pictures(projector, block, pixels))
                looked_at += len(block)
                progress(looked_at, total)

    def _pictures(self, projector: Projector, block: tuple[int, ...], pixels: Tensor) -> bytes:
        drawings = {drawing.look.number: drawing for drawing in self.drawings}
        found: dict[int, Pictures] = {}
        looks = [drawing.look for drawing in self.drawings]
        pixels = for_model(self.model, pixels)
        for layer, view in look(projector, looks, block, pixels):
            pictures = found.setdefault(layer.number, Pictures())
            drawings[layer.number].put(view, self.images, pictures)
        for layer, unit, scores in judged(projector, looks, dict(zip(block, pixels, strict=True))):
            found[layer.number].scores[unit] = scores
        return packed({number: found[number] for number in sorted(found)})

    def _read(self, blocks: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """The images of block after block; every image is read once."""
        waiting = list(reversed(blocks))
        have: dict[int, Tensor] = {}
        for indices, batch in self.images.batches({image for block in blocks for image in block}):
            have |= dict(zip(indices, batch, strict=True))
            while waiting and have.keys() >= set(waiting[-1]):
                block = waiting.pop()
                yield block, torch.stack([have.pop(image) for image in block])
        if waiting:
            lacking = next(image for image in waiting[-1] if image not in have)
            raise ImagesChangedError(
                f"image {lacking}, which can't be read at the second look",
                "images that are the same, in the same order, each time they are read",
                "see that the files stay while they are looked at",
            )
