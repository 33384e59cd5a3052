"""Two networks, two checkpoints or two stems side by side: two reports and what differs.

Each is a report's folder, or a network of which a report is made first, as it is: nothing is trained.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from convscope import __version__
from convscope.core.errors import ConvscopeError
from convscope.core.files import check_replaceable, replaced_together, whole_file
from convscope.core.paths import is_file
from convscope.core.result import Result
from convscope.data import ImageData
from convscope.report.side_by_side.curves import Curve, curves
from convscope.report.side_by_side.differences import (
    Difference,
    LayerDifference,
    Told,
    differences,
    layer_differences,
    only_in,
)
from convscope.report.whole.collect import report
from convscope.report.whole.folder import JSON, PAGE
from convscope.report.whole.request import ReportConfig, Watcher
from convscope.report.wording.dates import written_now
from convscope.sight import compare_galleries

GALLERIES = "galleries.html"
_SIDES = ("first", "second")


@dataclass(frozen=True)
class ReportPair(Result):
    """What differs between two reports.

    Attributes:
        names: of the networks, and of their weights where the networks are the same.
        reports: the reports' folders.
        differences: numbers that at least one of them has.
        layers: calls that differ, those of most MACs first.
        num_same_layers: calls that cost the same in both.
        only_first, only_second: findings that only one of them has.
        galleries: page that puts their units side by side; empty if there is none.
        no_galleries: why there is none; empty if there is one.
        page: of the comparison.
        curves: how both learnt; empty unless both were trained for their reports.
        versions: of what the comparison was written with.
        written: day and time.
    """

    names: tuple[str, str]
    reports: tuple[str, str]
    differences: tuple[Difference, ...]
    layers: tuple[LayerDifference, ...]
    num_same_layers: int
    only_first: tuple[Told, ...]
    only_second: tuple[Told, ...]
    galleries: str
    no_galleries: str
    page: str
    curves: tuple[Curve, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    written: str = ""


def report_pair(
    networks: Sequence[str | Path | nn.Module],
    data: str | Path | ImageData = "photos",
    norm: str | None = None,
    out: str | Path = "report/",
    *,
    weights: Sequence[str | Path | None] = (None, None),
    config: ReportConfig | None = None,
    progress: Watcher | None = None,
) -> ReportPair:
    """Return what differs between two networks, and write it as a page that opens offline.

    Args:
        networks: two, each a reference, a module, or a report's folder, which is read as it is.
        data: see :func:`convscope.report.report`.
        norm: likewise, of both.
        out: the folder: the page is its ``index.html``, reports that had to be made are ``first/`` and
            ``second/``.
        weights: of each network; None: fresh ones.
        config: of reports that have to be made; nothing is trained for them.
        progress: is told how far they are.

    Raises:
        ConvscopeError: not two networks; ``out`` holds something else; a report can't be made or read.
    """
    if len(networks) != 2 or len(weights) != 2:
        raise ConvscopeError(
            f"{len(networks)} networks with {len(weights)} files of weights",
            "two networks, each with its weights or none",
            "name two, or one network twice with two files",
        )
    folder = Path(out)
    own = (PAGE, JSON, GALLERIES, *_SIDES) if is_file(folder / JSON) else ()
    check_replaceable(folder, own, "report")
    found_in = [_folder_of_report(network) for network in networks]
    settings = replace(config or ReportConfig(), train=False)
    places = []
    with replaced_together(folder, *_replaced(folder, found_in)):
        for network, file, given, side in zip(networks, weights, found_in, _SIDES, strict=True):
            if given is not None:
                places.append(given)
                continue
            name = network if isinstance(network, nn.Module) else str(network)
            place = folder / side
            report(name, data, norm, place, weights=file, config=settings, progress=progress)
            places.append(place)
        try:
            found = _compared(places, folder)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ConvscopeError(
                f"reports {str(places[0])!r} and {str(places[1])!r} can't be compared ({error!r})",
                f"two whole reports of this version, each with its {JSON}",
                "make them again",
            ) from error
        return _written(found, folder)


def _folder_of_report(network: str | Path | nn.Module) -> Path | None:
    """The folder, if that is what was given."""
    if isinstance(network, nn.Module) or not is_file(Path(network) / JSON):
        return None
    return Path(network)


def _replaced(folder: Path, found_in: Sequence[Path | None]) -> list[str]:
    """What the pair may replace in its folder: all but reports that are read; refused if it must."""
    folder = folder.resolve()
    places = [place.resolve() for place in found_in if place is not None]
    made = [folder / side for side, place in zip(_SIDES, found_in, strict=True) if place is None]
    for place in places:
        if place == folder or any(place.is_relative_to(side) for side in made):
            raise ConvscopeError(
                f"output {str(folder)!r}, where a new report would replace {str(place)!r}, which is compared",
                "a folder apart from the reports",
                "choose another one",
            )
    own = (PAGE, JSON, GALLERIES, *_SIDES)
    return [name for name in own if not any(place.is_relative_to(folder / name) for place in places)]


def _compared(places: Sequence[Path], folder: Path) -> ReportPair:
    plain = [_read(place) for place in places]
    layers, same = layer_differences(*plain)
    found = ReportPair(
        names=_names(plain),
        reports=(str(places[0]), str(places[1])),
        differences=tuple(differences(*plain)),
        layers=tuple(layers),
        num_same_layers=same,
        only_first=tuple(only_in(plain[0], plain[1])),
        only_second=tuple(only_in(plain[1], plain[0])),
        galleries="",
        no_galleries="",
        page=str(folder / PAGE),
        curves=curves(plain),
        versions={"convscope": __version__},
        written=written_now(),
    )
    galleries, no_galleries = _galleries(places, folder)
    return replace(found, galleries=galleries, no_galleries=no_galleries)


def _read(place: Path) -> Mapping[str, Any]:
    path = place / JSON
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict) or "rows" not in (plain.get("cost") or {}):
            raise ValueError("no report")
    except (OSError, ValueError, RecursionError) as error:
        raise ConvscopeError(
            f"{str(path)!r} can't be read as a report ({error})", "the folder of a report", "make it again"
        ) from error
    return plain


def _names(plain: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    names = [str(each["subject"]["network"]) for each in plain]
    if names[0] == names[1]:
        weights = [str(each["subject"]["weights"]).removeprefix("those of ") for each in plain]
        names = [f"{name}, {of}" for name, of in zip(names, weights, strict=True)]
    return names[0], names[1]


def _galleries(places: Sequence[Path], folder: Path) -> tuple[str, str]:
    """The page of both galleries, or why there is none."""
    from convscope.report.pages.gallery_comparison import write_gallery_comparison

    folder.mkdir(parents=True, exist_ok=True)
    page = folder / GALLERIES
    with suppress(FileNotFoundError):
        page.unlink()
    try:
        found = compare_galleries(*(place / "gallery" for place in places))
        return str(write_gallery_comparison(found, page)), ""
    except ConvscopeError as error:
        return "", f"{error}."


def _written(found: ReportPair, folder: Path) -> ReportPair:
    from convscope.report.pages.pair import pair_html

    for name, text in ((JSON, found.to_json(indent=1)), (PAGE, pair_html(found))):
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return found
