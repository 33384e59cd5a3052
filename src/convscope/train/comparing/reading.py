"""A comparison as it was written into its folder: nothing is trained, measured or judged again."""

import dataclasses
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from convscope.core.errors import ConvscopeError
from convscope.train.comparing.result import Comparison
from convscope.train.comparing.running import read_json
from convscope.train.comparing.table import RUNS

RESULT = "comparison.json"
_TOLD = {"convscope", "torch", "python"}  # of what the versions are, and the page says


def read_comparison(path: str | Path) -> Comparison:
    """Return the comparison that lies in a folder, as it was when it was written.

    :func:`~convscope.train.comparing.request.compare` reads the runs themselves, and judges again.

    Args:
        path: the comparison's folder; it may have been moved.

    Raises:
        ConvscopeError: no comparison has been written there, or by another version.
    """
    folder = Path(path)
    found = comparison_from(folder / RESULT)
    arms = tuple(
        dataclasses.replace(
            arm, runs=tuple(dataclasses.replace(run, folder=_moved(run.folder, folder)) for run in arm.runs)
        )
        for arm in found.arms
    )
    return dataclasses.replace(found, folder=str(folder), arms=arms)


def comparison_from(file: Path) -> Comparison:
    """Return the comparison that a JSON file holds.

    Raises:
        ConvscopeError: there is no such file, or it is another version's.
    """
    content = read_json(file)
    if content is None:
        raise ConvscopeError(
            f"no {file.name} in {str(file.parent)!r}",
            "the folder of a comparison",
            "let convscope compare finish it",
        )
    if content.pop("schema_version", None) != Comparison.schema_version:
        raise _unreadable(file, "another version")
    try:
        found: Comparison = _decoded(Comparison, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(file, str(error)) from error
    if not found.made.versions.keys() >= _TOLD:
        raise _unreadable(file, "versions are missing")
    return found


def _unreadable(file: Path, why: str) -> ConvscopeError:
    return ConvscopeError(
        f"{str(file)!r} isn't a comparison of this version ({why})",
        "what convscope compare wrote",
        "run convscope compare on the folder again: it reads what is finished",
    )


def _moved(run: str, folder: Path) -> str:
    """A run's folder, OUT/runs/ARM/SEED, in the folder where the comparison lies now."""
    return str(Path(folder, RUNS, *Path(run).parts[-2:]))


def _decoded(kind: Any, value: Any) -> Any:
    """A value of a type of ours from what it is in JSON."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _decoded(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _decoded(next(part for part in parts if part is not types.NoneType), value)
    if origin is tuple:
        return tuple(_decoded(parts[0], item) for item in value)
    if origin is Mapping:
        return {key: _decoded(parts[1], item) for key, item in value.items()}
    if origin is Literal and value not in parts:
        raise ValueError(f"{value!r}")
    if kind in (int, str, bool) and type(value) is not kind:
        raise ValueError(f"{value!r}")
    if kind is float:
        return math.nan if value is None else float(value)
    return value
