"""What an evolution was asked for: checked, and kept in its folder so that only the same goes on there."""

import json
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.core.files import check_replaceable, whole_file
from convscope.sight.evolving.look import Asked

_FILE = "evolution.json"


class Settings:
    """The settings of one evolution and the file that keeps them.

    Args:
        folder: of the evolution.
        asked: what is to be looked at.
    """

    def __init__(self, folder: Path, asked: Asked) -> None:
        self._folder = folder
        units = asked.units
        self._values = {
            "layers": asked.layers,
            "units": units if isinstance(units, int) else {name: list(each) for name, each in units.items()},
            "rule": asked.rule,
            "images": [asked.images.length, asked.images.fingerprint()],
        }

    def keep(self) -> None:
        """Write them into the folder."""
        with whole_file(self._folder / _FILE) as temporary:
            temporary.write_text(json.dumps(self._values), encoding="utf-8")

    def check_folder(self) -> None:
        """Refuse a folder with other files, or of an evolution with other settings.

        Raises:
            ConvscopeError: it is one of these, or its settings can't be read.
        """
        path = self._folder / _FILE
        own = {entry.name for entry in self._folder.glob("*")} if path.exists() else set()
        check_replaceable(self._folder, own, "evolution")
        if not path.exists():
            return
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConvscopeError(
                f"{str(path)!r}, which can't be read ({error})", "the settings of an evolution",
                "choose another folder",
            ) from error  # fmt: skip
        now = json.loads(json.dumps(self._values))
        other = sorted(name for name in now if not isinstance(kept, dict) or kept.get(name) != now[name])
        if other:
            raise ConvscopeError(
                f"folder {str(self._folder)!r} of an evolution with other {' and '.join(other)}",
                "the same settings, or a new folder",
                "choose another folder",
            )


def check_units(units: int | Mapping[str, Sequence[int]]) -> None:
    """Refuse what isn't a number of units, or channels by a layer's name.

    Raises:
        ConvscopeError: it isn't.
    """
    if isinstance(units, Mapping):
        lists = [each for each in units.values() if isinstance(each, Sequence)]
        whole = [unit for each in lists for unit in each]
        right = bool(whole) and len(lists) == len(units) and all(type(unit) is int for unit in whole)
    else:
        right = type(units) is int and units >= 1
    if not right:
        raise ConvscopeError(
            f"units={units!r}",
            "how many of each layer, from 1, or channels by the layer's name",
            "4 is usual",
        )


def checked_epochs(epochs: Sequence[int]) -> tuple[int, ...]:
    """Return the epochs to look after, ascending.

    Raises:
        ConvscopeError: there are none, or not all are whole numbers from 1.
    """
    if not isinstance(epochs, Sequence) or not epochs or not all(type(e) is int and e >= 1 for e in epochs):
        raise ConvscopeError(
            f"epochs={epochs!r}", "whole numbers from 1", "leave them out for Zeiler and Fergus's"
        )
    return tuple(sorted(set(epochs)))


def checked_epoch(epoch: int) -> int:
    """Return the number of finished epochs.

    Raises:
        ConvscopeError: it isn't a whole number from 1.
    """
    if not isinstance(epoch, Integral) or isinstance(epoch, bool) or epoch < 1:
        raise ConvscopeError(
            f"epoch={epoch!r}",
            "the number of finished epochs, from 1",
            "count from 1: after_epoch(model, epoch + 1) where the loop counts from 0",
        )
    return int(epoch)
