"""The folder of a report: whether it may be written, and what is in it.

``index.html`` is the page, ``report.json`` everything on it, ``first-layer.png`` the filters of the first
layer, ``gallery/`` the units' pictures, ``runs/`` the training runs with their logs and weights.
"""

import json
from dataclasses import replace
from pathlib import Path

from convscope.core.files import check_replaceable
from convscope.core.paths import is_file
from convscope.report.pages.report import write_page
from convscope.report.pictures.first_layer import FILE, png_of
from convscope.report.whole.norm_effect import NormEffect
from convscope.report.whole.result import Report
from convscope.train import Run

PAGE, JSON = "index.html", "report.json"


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an older report, which the new one would replace.

    Raises:
        ConvscopeError: it holds other things.
    """
    own = (PAGE, JSON, FILE, "gallery", "runs") if is_file(folder / JSON) else ()
    check_replaceable(folder, own, "report")


def write_report(report: Report, folder: Path) -> None:
    """Write the page, the JSON and the picture of the first layer of a report into a folder."""
    write_page(report, folder / PAGE)
    if report.stem is not None:
        (folder / FILE).write_bytes(png_of(report.stem.grid))
    (folder / JSON).write_text(report.to_json(indent=1), encoding="utf-8")


def relocated(report: Report, written: Path, final: Path) -> Report:
    """Return a report whose paths say where its files will lie, not where they were written.

    Args:
        report: with paths inside ``written``.
        written: the temporary folder; a gallery's own files in it are changed too.
        final: the folder that takes its place.
    """
    old, new = str(written), str(final)
    gallery = report.gallery
    if gallery is not None:
        gallery = replace(gallery, folder=gallery.folder.replace(old, new))
        for name in (gallery.index, gallery.script):
            _replace_text(
                written / "gallery" / name,
                json.dumps(report.gallery and report.gallery.folder),
                json.dumps(gallery.folder),
            )
    return replace(
        report,
        gallery=gallery,
        training=_relocated_runs(report.training, old, new) if report.training else None,
        page=report.page.replace(old, new),
        folder=new,
    )


def _relocated_runs(effect: NormEffect, old: str, new: str) -> NormEffect:
    def path(text: str | None) -> str | None:
        return text.replace(old, new) if text is not None else None

    def moved(run: Run) -> Run:
        return replace(
            run,
            checkpoint=path(run.checkpoint),
            weights=path(run.weights),
            best_weights=path(run.best_weights),
        )

    twin = effect.twin
    return replace(effect, run=moved(effect.run), twin=moved(twin) if twin else None)


def _replace_text(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
