"""Whether a checkpoint belongs to the run and the network that it is loaded for."""

from pathlib import Path
from typing import Any

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.train.keeping.position import Identity

_NAMED = 3
"""Differences that a message names."""


def check_identity(path: Path, stored: Identity, wanted: Identity) -> None:
    """Check that a checkpoint is of the run that is to go on.

    Raises:
        ConvscopeError: it is of another one; what differs is named.
    """
    theirs, ours = ({**vars(identity), **identity.config} for identity in (stored, wanted))
    differing = sorted(
        name
        for name in theirs.keys() | ours.keys()
        if name != "config" and theirs.get(name) != ours.get(name)
    )
    # Weights speak for themselves: a network may have another name as long as its tensors fit.
    differing = [name for name in differing if name != "network"]
    if stored.frozen is None:
        differing = [name for name in differing if name != "frozen"]
    if differing:
        raise ConvscopeError(
            f"checkpoint {str(path)!r} is of another run: "
            + ", ".join(f"{name} was {_short(theirs.get(name))}" for name in differing),
            ", ".join(f"{name} {_short(ours.get(name))}" for name in differing),
            "resume with the run's own settings and data, or choose another output folder",
        )


def check_fits(path: Path, stored: dict[str, Tensor], own: dict[str, Tensor], part: str = "") -> None:
    """Check that stored tensors have the names, shapes and dtypes of those that they are to replace.

    Args:
        path: of the checkpoint.
        stored: its tensors.
        own: those that are there.
        part: what they are the state of, for the message; the network if it is empty.

    Raises:
        ConvscopeError: they don't fit; the first differences are named.
    """
    problems = [f"it lacks {name}" for name in own if name not in stored]
    problems += [f"it has {name} too many" for name in stored if name not in own]
    problems += [
        f"{name} in it is {_form(stored[name])}, not {_form(own[name])}"
        for name in own
        if name in stored and _form(stored[name]) != _form(own[name])
    ]
    if problems:
        more = len(problems) - _NAMED
        shown = ", ".join(problems[:_NAMED]) + (f" and {more} more differences" if more > 0 else "")
        raise ConvscopeError(
            f"checkpoint {str(path)!r} doesn't fit the network{part and f' in its {part}'}: {shown}",
            "the network that the run trained",
            "give that network, or choose another output folder",
        )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'×'.join(map(str, tensor.shape)) or 'scalar'}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
