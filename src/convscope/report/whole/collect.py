"""From a network and images to a report: everything is measured here, in order, and put on one page.

A part that can't be had (no data for it, a network it doesn't apply to) is left out with its reason; an
input that is wrong ends the report before anything is trained. All files are written to a temporary folder,
which takes its name when the report is whole.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from convscope import __version__
from convscope.checkup import Checkup, checkup, expected
from convscope.checkup.judging.start import never_ran
from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_folder
from convscope.core.preserved import preserved_structure
from convscope.cost import Cost, cost, cost_of
from convscope.cost.batch.least import least_memory
from convscope.data import ImageData
from convscope.fold import Folded, fold, measure_speed
from convscope.networks import load
from convscope.report.graph.network import graph_of
from convscope.report.whole.findings import findings_of
from convscope.report.whole.folder import check_folder, relocated, write_report
from convscope.report.whole.learning import Learned, learn
from convscope.report.whole.ranking import rank
from convscope.report.whole.request import ReportConfig, Stages, Watcher, with_settings
from convscope.report.whole.result import Part, Report
from convscope.report.whole.subject import Asked, Met, meet
from convscope.report.wording.dates import written_now
from convscope.sight import Gallery, GalleryOptions, ImageSource, Origin, Stem, gallery, stem
from convscope.sight.picturing.options import Course
from convscope.tape import TrainingPlan, record

PUBLISHED_BATCH = 128
_CHECKED_IMAGES = 1000
_LEAST_FOR_EACH_PLACE = 10
STAGES = (
    "reading the images",
    "training with the normalisation",
    "training without it",
    "reading the cost",
    "checking the batch norms",
    "folding and timing",
    "looking at the first layer",
    "finding every unit's images",
    "writing the page",
)
_LOOKS = {"scan": "looking at all images", "projections": "projecting the strongest"}
_UNTOUCHED = (
    "What follows from running statistics isn't judged: they are those that the batch norms were built with, "
    "as no batch has been seen yet. Train the network, or give its weights."
)
_T = TypeVar("_T")


# Seven parameters: these are the words of the command line, and all have defaults.
def report(
    network: str | nn.Module = "zfnet",
    data: str | Path | ImageData = "photos",
    norm: str | None = None,
    out: str | Path = "report/",
    *,
    weights: str | Path | None = None,
    config: ReportConfig | None = None,
    progress: Watcher | None = None,
    **settings: Any,
) -> Report:
    """Return the whole anatomy of a network, and write it as a page that opens offline.

    AlexNet and ZFNet are trained here twice, with the normalisation and without, and the trained network is
    looked at; another network, a module, or one with a file of weights, is looked at as it is, unless
    ``train=True``. A module given comes back as it was (trained, if that was asked for).

    Args:
        network: a reference (see :func:`convscope.networks.load`) or a module.
        data: a reference (see :func:`convscope.data.load_data`) or images.
        norm: normalisation of AlexNet or ZFNet; default ``"batch"`` where they are trained here.
        out: the folder; the page is its ``index.html``. An older report there is replaced.
        weights: a file of weights.
        config: the settings; default :class:`ReportConfig`.
        progress: is told how far it is.
        **settings: single settings that replace those of ``config``: ``epochs=3``.

    Raises:
        ConvscopeError: the folder can't be written or holds something else; the network, the weights or the
            data can't be had or don't fit one another.

    Example:
        >>> found = report("zfnet", data="photos", out="report/", epochs=2)  # doctest: +SKIP
        >>> [ranked.finding.why for ranked in found.findings]  # doctest: +SKIP
    """
    started = time.perf_counter()
    asked = Asked(network, data, norm, weights, with_settings(config, settings))
    final = Path(out)
    check_folder(final)
    with whole_folder(final) as folder:
        stages = Stages(STAGES, progress)
        stages.begin("reading the images")
        found = _Collecting(asked, meet(asked), folder, stages).collected()
        found = relocated(found, folder, final)
        stages.begin("writing the page")
        found = replace(found, seconds=time.perf_counter() - started)
        write_report(found, folder)
    return found


class _Collecting:
    """The measurements of one report, in order; what isn't possible is noted with its reason."""

    def __init__(self, asked: Asked, met: Met, folder: Path, stages: Stages) -> None:
        self.asked, self.met, self.folder, self.stages = asked, met, folder, stages
        self.model, self.images, self.config = met.model, met.images, asked.config
        self.missing: list[Part] = []

    def collected(self) -> Report:
        """Return the report, without its page."""
        learned = self._learned()
        if learned is not None and learned.diverged:
            self.missing += [Part(name, learned.diverged) for name in ("checkup", "fold", "stem", "gallery")]
            readings: dict[str, Any] = dict.fromkeys(("checkup", "folded", "stem", "gallery"))
            readings |= {**self._cost(), "published": self._published()}
        else:
            readings = self._readings()
        report = Report(
            subject=self.met.subject(self.asked),
            training=learned.effect if learned else None,
            findings=(),
            missing=tuple(self.missing),
            page=str(self.folder / "index.html"),
            folder=str(self.folder),
            seconds=0.0,
            versions={
                "convscope": __version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
            written=written_now(),
            **readings,
        )
        return replace(report, findings=rank(findings_of(report)))

    def _readings(self) -> dict[str, Any]:
        self.stages.begin("reading the cost")
        readings: dict[str, Any] = {**self._cost(), "published": self._published()}
        self.stages.begin("checking the batch norms")
        readings["checkup"] = self._part("checkup", self._checkup)
        with preserved_structure(self.model):
            self.model.eval()
            self.stages.begin("folding and timing")
            readings["folded"] = self._part("fold", self._folded)
            self.stages.begin("looking at the first layer")
            readings["stem"] = self._part("stem", self._stem)
            self.stages.begin("finding every unit's images")
            readings["gallery"] = self._part("gallery", self._gallery)
        return readings

    def _part(self, name: str, measure: Callable[[], _T]) -> _T | None:
        """What ``measure`` returns; None, with its reason noted, if it can't be measured on this network."""
        try:
            return measure()
        except ConvscopeError as error:
            self.missing.append(Part(name, f"{error}."))
            return None

    def _learned(self) -> Learned | None:
        if not self.asked.trains:
            self.missing.append(
                Part("training", f"Nothing was trained here; its weights are {self.met.weights}.")
            )
            return None
        learned = learn(self.asked, self.met, self.folder / "runs", self.stages)
        if learned.no_twin:
            self.missing.append(Part("twin", learned.no_twin))
        return learned

    def _batch(self) -> tuple[int, ...]:
        return (self.config.batch_size, *self.met.input_shape)

    def _cost(self) -> dict[str, Any]:
        plan = TrainingPlan()
        tape = record(self.model, self._batch(), plan)
        found = cost_of(tape, plan, network=type(self.model).__name__)
        return {"cost": found, "least_memory": least_memory(tape), "graph": graph_of(tape, found)}

    def _published(self) -> Cost | None:
        if not self.asked.is_own:
            return None
        with torch.device("meta"):
            loaded = load(self.asked.name, batch=PUBLISHED_BATCH)
        return cost(loaded.model, loaded.inputs)

    def _checkup(self) -> Checkup:
        # Running statistics are meant to be those of the training images.
        step = max(1, len(self.images.train) // _CHECKED_IMAGES)
        images = Subset(self.images.train, range(0, len(self.images.train), step))
        batches = DataLoader(
            images,
            self.config.batch_size,
            shuffle=True,  # images come class by class; a batch of one class has other statistics
            drop_last=len(images) >= self.config.batch_size,
            generator=torch.Generator().manual_seed(self.config.seed),
        )
        if not never_ran(self.model):
            return checkup(self.model, batches)
        self.missing.append(Part("statistics", _UNTOUCHED))
        with expected("young-statistics", "stale-statistics", "train-eval-gap"):
            return checkup(self.model, batches)

    def _folded(self) -> Folded:
        folded = fold(self.model, self._batch())
        if all(entry.verdict == "kept" for entry in folded.ledger.entries):
            return folded  # the same network twice: its speeds would differ by chance
        speed = measure_speed(self.model, folded.model, self._batch(), self.config.repeats)
        return replace(folded, speed=speed)

    def _stem(self) -> Stem:
        return stem(self.model, self._source())

    def _gallery(self) -> Gallery:
        made_of = Origin.now(self.asked.name, self.met.weights, self.images.name)
        options = GalleryOptions(progress=self._tell, origin=made_of)
        return gallery(
            self.model, self._source(), top=self.config.top, out=self.folder / "gallery", options=options
        )

    def _tell(self, course: Course) -> None:
        share = course.done / course.total if course.total else 0.0
        self.stages.tell(_LOOKS[course.stage], share)

    def _source(self) -> ImageSource:
        """The validation images, or all where these are few, called by their classes."""
        images = self.images.validation
        if len(images) < _LEAST_FOR_EACH_PLACE * self.config.top:
            images = self.images.split("all")
        names = [f"{self.images.classes[images.label(i)]}, no. {i}" for i in range(len(images))]
        return ImageSource(images, self.images.mean, self.images.std, names)
