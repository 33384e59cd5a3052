"""``convscope.train``: from what was asked for to a finished run."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.train.config import TrainConfig, with_settings
from convscope.train.feeding.batches import ImageSets, SeededImages
from convscope.train.keeping.folder import RunFolder, free_folder, run_from_log
from convscope.train.keeping.journal import Journal
from convscope.train.keeping.log import Log, read_log, truncate_log
from convscope.train.run import Run
from convscope.train.running.engine import agreed, lent, running_engine
from convscope.train.running.loop import Training
from convscope.train.running.preflight import check_data, check_forward, check_model
from convscope.train.subject import Images, Network, Subject, image_sets, subject_of
from convscope.train.telling.progress import NoProgress, Progress

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
    **settings: Any,
) -> Run:
    """Train a network to classify images, and return how it went.

    The model is trained in place: afterwards its parameters and buffers are the trained ones (those of the
    moment of divergence if the run diverged), its gradients are gone, and its modes and device are as before.
    Meanwhile every module is in training mode, also one that was in evaluation mode.
    Random number generators are as before, too: what is random in the run follows from ``seed`` alone, and on
    CPU the same seed gives the same weights bit for bit, also when the run was interrupted and resumed.
    On several processes (``torchrun``, ``accelerate launch``), ``out`` is a folder that all of them see, and
    batch norm normalises each process's share of the batch.

    Args:
        model: a network that returns class scores ``(N, K)``, or a mapping or tuple with them; what
            :func:`convscope.load` returned; or a reference such as ``"zfnet"``, which is built for the
            data's classes and image size (the trained network is then in ``best.safetensors``).
        data: an object with ``.train`` and ``.validation`` (float CHW images and labels), ``.classes`` and
            ``.name``, such as :func:`convscope.data.load_data` returns; or a reference such as ``"photos"``
            or a folder, if the network says the size of its input.
        out: the run's folder: ``log.jsonl``, ``checkpoint.safetensors`` (to resume from),
            ``best.safetensors`` and ``final.safetensors`` (weights). Default: a new folder in ``runs/``.
        config: the settings; default :class:`TrainConfig`.
        resume: go on from the checkpoint in ``out``, if there is one. Without it, a folder that holds a
            run is refused, so that no work is lost. ``epochs`` may be more than before; a cosine then
            follows the new length.
        progress: is told the course of the run, on the main process.
        **settings: single settings that replace those of ``config``: ``epochs=3``.

    Returns:
        The run. A loss that isn't finite ends the run early: ``diverged`` then says where, and the last
        good checkpoint stays.

    Raises:
        ConvscopeError: accelerate isn't installed; a setting, the data, the network or the checkpoint isn't
            usable; ``out`` can't be written or holds a run already.

    Example::

        run = cs.train("zfnet", "photos", out="runs/zfnet", epochs=3)
        run.epochs[-1].validation_accuracy
    """
    config = with_settings(config or TrainConfig(), settings)
    if resume and out is None:
        raise ConvscopeError("resume=True without out", "the folder of the run to resume", "give out=FOLDER")
    images = image_sets(data, model)
    check_data(images)
    subject = subject_of(model, images, config.seed)
    check_model(subject.model)
    with (
        preserved_rng(),
        running_engine(config) as accelerator,
        lent(subject.model, accelerator) as prepared,
    ):
        seen = SeededImages(images.validation, "validation", len(images.classes), config.seed)
        check_forward(subject.model, seen, config, accelerator)
        folder = _folder(out, subject, images, accelerator)
        if folder.holds_run and not resume:
            raise ConvscopeError(
                f"output {str(folder.path)!r} holds a run already",
                "a new folder, or the wish to go on with that run",
                "resume it (resume=True, --resume), choose another folder, or delete that one",
            )
        training = Training(subject, prepared, images, config, accelerator, folder)
        return _carried_out(training, progress if accelerator.is_main_process and progress else NoProgress())


def _folder(
    out: str | Path | None, subject: Subject, data: ImageSets, accelerator: "Accelerator"
) -> RunFolder:
    path = out if out is not None else free_folder(subject.name, data.name)
    return RunFolder(Path(agreed(str(path), accelerator)))


def _carried_out(training: Training, progress: Progress) -> Run:
    """Open the run's files, train, and close them, whatever happens."""
    folder, accelerator = training.folder, training.accelerator
    log = _earlier_log(training) if folder.holds_run else Log()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.remove_leftovers()
    journal = Journal(folder, accelerator, log)
    try:
        journal.start(_facts(training))
        progress.start(training.total_steps, training.position.step, training.config.epochs)
        try:
            diverged = training.run(journal, progress)
        finally:
            progress.stop()
        if diverged is None:
            training.save_weights("final")
        journal.end(diverged)
        accelerator.wait_for_everyone()
    finally:
        journal.close()
    return run_from_log(folder, journal.log)


def _earlier_log(training: Training) -> Log:
    """Load the checkpoint, and return the log up to it; the rest is cut off."""
    training.load()
    path, position = training.folder.log, training.position
    log = read_log(path) if path.exists() else Log()
    training.accelerator.wait_for_everyone()
    if training.accelerator.is_main_process:
        truncate_log(path, position.step, position.epoch)
    return Log(
        start=log.start,
        steps=[record for record in log.steps if record.step <= position.step],
        epochs=[record for record in log.epochs if record.epoch <= position.epoch],
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
        "processes": training.accelerator.num_processes,
        "device": str(training.accelerator.device),
        "from_step": training.position.step,
        "torch": torch.__version__,
    }
