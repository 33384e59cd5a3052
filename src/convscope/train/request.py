"""``convscope.train``: from what was asked for to a finished run."""

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convscope.core.allocator import memory_kept
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.norm import lean
from convscope.train.config import TrainConfig, with_settings
from convscope.train.feeding.batches import ImageSets, SeededImages
from convscope.train.feeding.feed import Feed
from convscope.train.keeping.folder import RunFolder, free_folder, run_from_log
from convscope.train.keeping.journal import Journal
from convscope.train.keeping.log import Log, read_log, truncate_log
from convscope.train.keeping.session import only_session
from convscope.train.run import Run
from convscope.train.running.callbacks import Callbacks
from convscope.train.running.engine import agreed, lent, running_engine
from convscope.train.running.loop import Training
from convscope.train.running.norms import norms_of_run
from convscope.train.running.preflight import check_data, check_forward, check_model, check_processes
from convscope.train.subject import Images, Network, Subject, image_sets, subject_of
from convscope.train.telling.forecast import Forecast
from convscope.train.telling.memory import Workload, forecast_run, image_shape
from convscope.train.telling.place import Place
from convscope.train.telling.progress import NoProgress, Progress
from convscope.train.telling.room import require_room
from convscope.train.telling.timed import Timed
from convscope.train.telling.trackers import Trackers, check_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator


def train(
    model: Network,
    data: Images,
    *,
    out: str | Path | None = None,
    config: TrainConfig | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    callbacks: Iterable[Any] = (),
    trackers: Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Train a network to classify images, and return how it went.

    The model is trained in place: afterwards its parameters and buffers are the trained ones (if the run
    diverged, those before the step that did), its gradients are gone, and its modes and device are as before.
    Meanwhile every module is in training mode, also one that was in evaluation mode, but for layers frozen
    by :func:`convscope.norm.freeze`; parameters with ``requires_grad=False`` stay as they are.
    Random number generators are as before, too: what is random in the run follows from ``seed`` alone, and on
    CPU the same seed gives the same weights bit for bit, also when the run was interrupted and resumed.
    Ctrl-C and SIGTERM end the run after the running step, with a checkpoint and a line that says how to go
    on; a second Ctrl-C ends it at once.
    On several processes (``torchrun``, ``accelerate launch``), ``out`` is a folder that all of them see, and
    batch norm normalises each process's share of the batch, unless ``sync_batch_norm`` is set.

    Args:
        model: a network that returns class scores ``(N, K)``, or a mapping or tuple with them; what
            :func:`convscope.load` returned; or a reference such as ``"zfnet"``, which is built for the
            data's classes and image size (the trained network is then in ``best.safetensors``).
        data: an object with ``.train`` and ``.validation`` (float CHW images and labels), ``.classes`` and
            ``.name``, such as :func:`convscope.data.load_data` returns; or a reference such as ``"photos"``
            or a folder, if the network says the size of its input.
        out: the run's folder: ``log.jsonl``, ``checkpoint.safetensors`` (to resume from),
            ``best.safetensors`` and ``final.safetensors`` (weights), with ``ema_decay``
            ``average.safetensors`` (that of the last epoch), with ``keep_epochs`` ``epoch-N.safetensors``.
            Default: a new folder in ``runs/``.
        config: the settings; default :class:`TrainConfig`.
        resume: go on from the checkpoint in ``out``, if there is one. Without it, a folder that holds a
            run is refused, so that no work is lost. ``epochs`` may be more than before; a cosine then
            follows the new length.
        progress: is told the course of the run, on the main process.
        callbacks: objects with ``after_step(model, step)``, ``after_epoch(model, epoch)`` or both, such as
            :class:`convscope.sight.Evolution`: called on every process with the network itself, as it is at
            that moment, before the checkpoint of that moment is written; counted from 1 over the whole run.
            An exception in one ends the run, which can be resumed from its last checkpoint.
        trackers: experiment trackers that are told the losses, by accelerate's names: ``("tensorboard",)``
            writes to ``OUT/tensorboard`` (:mod:`convscope.train.telling.trackers`).
        **settings: single settings that replace those of ``config``: ``epochs=3``.

    Returns:
        The run. A loss, a weight or a running statistic that isn't finite ends the run early: ``diverged``
        then says where that began, and the last good checkpoint stays.

    Raises:
        ConvscopeError: accelerate isn't installed; a setting, the data, the network or the checkpoint isn't
            usable; ``out`` can't be written or holds a run already.

    Example::

        run = cs.train("zfnet", "photos", out="runs/zfnet", epochs=3)
        run.epochs[-1].validation_accuracy
    """
    config = with_settings(config or TrainConfig(), settings)
    told_of_moments = Callbacks(callbacks)
    if resume and out is None:
        raise ConvscopeError("resume=True without out", "the folder of the run to resume", "give out=FOLDER")
    images = image_sets(data, model, config.crop)
    check_data(images)
    subject = subject_of(model, images, config.seed, config.crop)
    check_model(subject.model, config)
    with (
        preserved_rng(),
        running_engine(config) as accelerator,
        norms_of_run(subject.model, config),
        lean(subject.model) if config.lean else nullcontext(),
        lent(subject.model, accelerator) as prepared,
    ):
        seen = Feed(images, config).images("validation")
        scores = check_forward(subject.model, seen, config, accelerator)
        folder = _folder(out, subject, images, accelerator)
        check_trackers(trackers)
        resumes = _resumes(folder, resume, accelerator)
        training = Training(subject, prepared, images, config, accelerator, folder)
        told = progress if accelerator.is_main_process and progress else NoProgress()
        training.scores = scores
        forecast = _forecast(training, seen)
        foretold = Timed(told, forecast, accelerator.device)
        with only_session(folder, accelerator), training.stopping.listening(training), _memory_kept(forecast):
            journal = _opened(training, trackers, resumes=resumes)
            return _carried_out(training, journal, foretold, told_of_moments)


def _memory_kept(forecast: Forecast) -> AbstractContextManager[None]:
    """Freed memory stays with the process from one step to the next, where a run on a CPU has room for it."""
    if forecast.device != "cpu" or forecast.fits != "yes":
        return nullcontext()
    return memory_kept(forecast.peak_bytes, forecast.available_bytes)


def _resumes(folder: RunFolder, resume: bool, accelerator: "Accelerator") -> bool:
    """Whether there is a run to go on with, as the main process sees it before it writes anything."""
    held = "run" if folder.holds_run else "log" if folder.log.exists() else ""
    held = agreed(held, accelerator)
    if held == "run" and not resume:
        raise ConvscopeError(
            f"output {str(folder.path)!r} holds a run already",
            "a new folder, or the wish to go on with that run",
            "resume it (resume=True, --resume), choose another folder, or delete that one",
        )
    if held == "log":
        raise ConvscopeError(
            f"output {str(folder.path)!r} holds the log of a run but no checkpoint",
            f"{folder.checkpoint.name} beside it, or neither",
            "restore the checkpoint, choose another folder, or delete that one",
        )
    return held == "run"


def _folder(
    out: str | Path | None, subject: Subject, data: ImageSets, accelerator: "Accelerator"
) -> RunFolder:
    path = out if out is not None else free_folder(subject.name, data.name)
    return RunFolder(Path(agreed(str(path), accelerator)))


def _forecast(training: Training, seen: SeededImages) -> Forecast:
    """Return what the run will take; refuse it if that is more memory than there is."""
    config, data, accelerator = training.config, training.data, training.accelerator
    work = Workload(image_shape(seen, config), len(data.train), len(data.validation), training.total_steps)
    forecast = forecast_run(training.model, work, config, Place.of(accelerator))
    require_room(forecast, config, accelerator)
    return dataclasses.replace(forecast, scores=training.scores)


def _opened(training: Training, trackers: Sequence[str], *, resumes: bool) -> Journal:
    """Go to where the run is, and open its log; a new run begins with a checkpoint of its initial weights."""
    folder, accelerator = training.folder, training.accelerator
    if resumes:
        log = _earlier_log(training)
    else:
        log = Log()
        training.save()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.remove_leftovers()
    journal = Journal(folder, accelerator, log)
    if trackers and accelerator.is_main_process:
        journal.trackers = Trackers(trackers, accelerator, folder, _facts(training))
    return journal


def _carried_out(training: Training, journal: Journal, progress: Progress, callbacks: Callbacks) -> Run:
    """Train, and close the run's files, whatever happens."""
    folder, accelerator = training.folder, training.accelerator
    try:
        journal.start(_facts(training))
        progress.start(training.total_steps, training.position.step, training.config.epochs)
        try:
            diverged = training.run(journal, progress, callbacks)
        finally:
            progress.stop()
        if diverged is None:
            training.save_weights(folder.final)
        journal.end(diverged)
        accelerator.wait_for_everyone()
    finally:
        journal.close()
    return run_from_log(folder, journal.log)


def _earlier_log(training: Training) -> Log:
    """Load the checkpoint, and return the log up to it; the rest is cut off."""
    path, num_processes = training.folder.log, training.accelerator.num_processes
    log = read_log(path) if path.exists() else Log()
    training.load()
    check_processes(training.model, training.config, log.start.get("processes", num_processes), num_processes)
    position = training.position
    training.accelerator.wait_for_everyone()
    if training.accelerator.is_main_process:
        truncate_log(path, position.step, position.epoch)
    return Log(
        start=log.start,
        steps=[record for record in log.steps if record.step <= position.step],
        epochs=[record for record in log.epochs if record.epoch <= position.epoch],
        measurements=[record for record in log.measurements if record.step <= position.step],
        percentiles={e: rows for e, rows in log.percentiles.items() if e <= position.epoch},
    )


def _facts(training: Training) -> dict[str, Any]:
    identity = training.identity
    return {
        "network": identity.network,
        "data": identity.data,
        "classes": identity.classes,
        "config": dataclasses.asdict(training.config),
        "num_train": identity.num_images,
        "num_validation": len(training.data.validation),
        "scores": training.scores,
        "processes": training.accelerator.num_processes,
        "device": str(training.accelerator.device),
        "from_step": training.position.step,
        "torch": torch.__version__,
    }
