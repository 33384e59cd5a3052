"""What is kept of the second look while it goes on: one file for each block of images.

A file appears when it is whole, so that a run that was killed goes on with the blocks that it lacks, on as
many processes as there are then. Processes needn't see the same disk: in the end the first one has all files.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.sight.collecting.processes import Processes
from convscope.sight.projecting.projection import Scores

_KEY, _SUFFIX = "convscope", ".safetensors"


@dataclass
class Pictures:
    """A layer's pictures of the wins in one block.

    Attributes:
        units, ranks: of each win.
        patches, projections: (tile, tile, 3) of each; no projections where the layer has none.
        scores: by unit.
        num_whole: wins that were projected to the whole image.
    """

    units: list[int] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    patches: list[NDArray[np.uint8]] = field(default_factory=list)
    projections: list[NDArray[np.uint8]] = field(default_factory=list)
    scores: dict[int, Scores] = field(default_factory=dict)
    num_whole: int = 0


@dataclass(frozen=True)
class BlockFiles:
    """The files of the blocks in a folder.

    Attributes:
        folder: is made if need be.
        count: how many blocks there are.
    """

    folder: Path
    count: int

    def done(self) -> set[int]:
        """Return the numbers of the blocks that are there, and whole."""
        return {number for number in range(self.count) if self._is_whole(self._file(number))}

    def write(self, number: int, content: bytes) -> None:
        """Keep a block.

        Raises:
            ConvscopeError: it can't be written; the disk may be full.
        """
        try:
            with whole_file(self._file(number)) as file:
                file.write_bytes(content)
        except ConvscopeError as error:
            raise ConvscopeError(
                error.given,
                f"room for {len(content)} bytes of pictures",
                f"{len(self.done())} of {self.count} blocks are kept: make room and start again",
            ) from error

    def content(self, number: int) -> bytes:
        """Return a block as it is kept."""
        return self._file(number).read_bytes()

    def pictures(self, layer: int) -> Iterator[Pictures]:
        """Yield a layer's pictures, block by block."""
        for number in range(self.count):
            with safe_open(self._file(number), framework="np") as opened:
                facts = json.loads(opened.metadata()[_KEY]).get(str(layer))
                if facts is None:
                    continue
                projected = f"{layer}.projections" in opened.keys()  # noqa: SIM118
                yield Pictures(
                    facts["units"],
                    facts["ranks"],
                    list(opened.get_tensor(f"{layer}.patches")),
                    list(opened.get_tensor(f"{layer}.projections")) if projected else [],
                    {int(unit): Scores(**scores) for unit, scores in facts["scores"].items()},
                    facts["num_whole"],
                )

    def bring_together(self, processes: Processes) -> None:
        """Let the first process have all files, whichever process has made them, on whichever disk."""
        holders = processes.gather(self.done())
        lacking = processes.broadcast(None if holders is None else _lacking(holders))
        for number, holder in lacking or ():
            contents = processes.gather(self.content(number) if processes.rank == holder else None)
            content = contents[holder] if contents else None
            processes.first(lambda n=number, c=content: self.write(n, c))  # type: ignore[misc]

    @staticmethod
    def _is_whole(file: Path) -> bool:
        """Whether a file has the length that its header says: when the power fails, it may have not."""
        if not file.is_file():
            return False
        try:
            with safe_open(file, framework="np") as opened:
                return _KEY in (opened.metadata() or {})
        except (OSError, SafetensorError):
            return False

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:07d}{_SUFFIX}"


def packed(layers: dict[int, Pictures]) -> bytes:
    """Return the content of a block's file.

    Args:
        layers: the pictures by the layers' numbers.
    """
    tensors, facts = {}, {}
    for number, pictures in layers.items():
        tensors[f"{number}.patches"] = np.stack(pictures.patches)
        if pictures.projections:
            tensors[f"{number}.projections"] = np.stack(pictures.projections)
        facts[number] = {
            "units": pictures.units,
            "ranks": pictures.ranks,
            "scores": {unit: asdict(scores) for unit, scores in pictures.scores.items()},
            "num_whole": pictures.num_whole,
        }
    return save(tensors, {_KEY: json.dumps(facts)})


def _lacking(holders: list[set[int]]) -> list[tuple[int, int]]:
    """The blocks that the first process hasn't, each with one that has it."""
    found = {number: rank for rank, done in enumerate(holders) for number in done if number not in holders[0]}
    return sorted(found.items())
