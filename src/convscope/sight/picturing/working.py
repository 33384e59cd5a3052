"""Where a gallery keeps what is done until it is whole: ``NAME.partial`` beside it.

In it lie a folder for the scan, and one for the blocks of the second look; their names tell what they depend
on, so that another request begins anew beside them. The gallery's files are written there, too, so that a run
that is killed leaves nothing elsewhere. All go when the gallery is there.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from convscope.core.errors import ConvscopeError
from convscope.core.files import check_replaceable, whole_folder
from convscope.sight.collecting.tally import Tally

FORMAT = 2  # of the blocks' files; to be raised when the same request gives other pictures
_WHOLE = "gallery"
_PREFIXES = ("scan-", "blocks-", _WHOLE)


class WorkingFolder:
    """The folder beside a gallery's.

    Args:
        out: the gallery's folder.

    Attributes:
        out: the gallery's folder.
        path: of the working folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, final = out, out.resolve()
        self.path = final.parent / f"{final.name}.partial"

    def check(self) -> None:
        """Refuse one that holds other things.

        Raises:
            ConvscopeError: it does, or it can't be read.
        """
        entries = self.path.iterdir() if self.path.is_dir() else ()
        own = [entry.name for entry in entries if entry.name.startswith(_PREFIXES)]
        check_replaceable(self.path, own, "gallery's unfinished work")

    def scan(self, identity: Mapping[str, Any]) -> Path:
        """Return the folder for the state of a scan."""
        return self.path / f"scan-{_digest(identity)}"

    def blocks(self, identity: Mapping[str, Any], tallies: Iterable[Tally]) -> Path:
        """Return the folder for the blocks of a second look, which depends on who won, too."""
        winners = hashlib.sha256()
        for tally in tallies:
            for tensor in (tally.values, tally.images, tally.places):
                winners.update(tensor.contiguous().numpy().tobytes())
        folder = self.path / f"blocks-{_digest({**identity, 'winners': winners.hexdigest()})}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConvscopeError(
                f"folder {str(self.path)!r} for unfinished work ({error.strerror or error})",
                "a folder that can be made beside the gallery's",
                "choose another place for the gallery",
            ) from error
        return folder

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """Yield a folder for the gallery's files; it takes the gallery's place if the block ends well.

        Raises:
            ConvscopeError: they can't be written; the disk may be full. What is done stays.
        """
        folder = self.path / _WHOLE
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        try:
            folder.mkdir(parents=True)
            yield folder
            with whole_folder(self.out) as final:
                for file in sorted(folder.iterdir()):
                    shutil.move(file, final)
        except (OSError, SafetensorError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConvscopeError(
                f"gallery {str(self.out)!r} can't be written ({reason})",
                "room for its pictures and numbers",
                f"what is done is kept in {str(self.path)!r}: make room and start again",
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete it unless something is done: no file of a scan or of a block is in it."""
        if not any(path.is_file() and not path.name.startswith(".") for path in self.path.rglob("*")):
            self.remove()


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
