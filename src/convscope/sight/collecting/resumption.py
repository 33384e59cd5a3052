"""The folder from which an interrupted scan goes on, with as many processes as there are then.

Every process writes a file of its own, under a name that no other run has. A later run puts all together
into one file and deletes the others after that: whenever it is killed, every batch is in some whole file, and
files that overlap are recognised by their batches.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.identity import Identity, check_same
from convscope.sight.collecting.progress import Progress
from convscope.sight.collecting.state import read_state, write_state

_SUFFIX = ".safetensors"


def new_run() -> str:
    """Return a name that no other run has."""
    return os.urandom(6).hex()


@dataclass(frozen=True)
class States:
    """The states of one scan in a folder which all its processes see.

    Attributes:
        folder: is made if need be; of other files in it nothing is touched.
        identity: what the scan's numbers depend on.
        run: this run's name.
    """

    folder: Path
    identity: Identity
    run: str = field(default_factory=new_run)

    def load(self, progress: Progress) -> None:
        """Take into account what earlier runs have done, and leave it in one file.

        Raises:
            ConvscopeError: a file is broken or of another scan, or the folder can't be written; nothing has
                been changed then.
        """
        found = [(file, *read_state(file)) for file in self._files()]
        for file, _, identity in found:
            check_same(identity, self.identity, f"state {str(file)!r}")
        for leftover in self.folder.glob(f".scan-*{_SUFFIX}.*"):  # of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        kept = _disjoint(found)
        for _, part in kept:
            progress.merge(part)
        if len(kept) > 1:
            self.conclude(progress)
        elif kept:
            self._delete(progress, but=kept[0][0])

    def save(self, progress: Progress, rank: int) -> None:
        """Write what a process of this run has done so far."""
        write_state(progress, self.identity, self._file(str(rank)))

    def conclude(self, progress: Progress) -> None:
        """Write everything that is done to one file and delete the files that it takes the place of."""
        file = self._file("all")
        write_state(progress, self.identity, file)
        self._delete(progress, but=file)

    def _delete(self, progress: Progress, but: Path) -> None:
        for file in self._files():
            if file != but and not _adds(read_state(file)[0], progress):
                file.unlink(missing_ok=True)

    def _file(self, part: str) -> Path:
        return self.folder / f"scan-{self.run}-{part}{_SUFFIX}"

    def _files(self) -> list[Path]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConvscopeError(
                f"folder {str(self.folder)!r} for the state of a scan ({error.strerror})",
                "a folder that you may write to",
                "choose another one",
            ) from error
        return sorted(self.folder.glob(f"scan-*{_SUFFIX}"))


def _adds(part: Progress, whole: Progress) -> bool:
    return len(part.done | whole.done) > len(whole.done)


def _disjoint(found: Iterable[tuple[Path, Progress, Identity]]) -> list[tuple[Path, Progress]]:
    """The files that have no batch in common, the largest first."""
    taken: list[tuple[Path, Progress]] = []
    for file, part, _ in sorted(found, key=lambda each: (-len(each[1].done), each[0])):
        if len(part.done) and not any(part.done.meets(other.done) for _, other in taken):
            taken.append((file, part))
    return taken
