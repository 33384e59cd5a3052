"""One run of a table, in this process: its network, its images, its training, and what became of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.data import ImageData, load_data
from convscope.networks import Loaded, load
from convscope.train.comparing.pairing import fingerprints, paired_draws
from convscope.train.comparing.table import Arm, PlannedRun
from convscope.train.keeping.folder import read_run
from convscope.train.request import train
from convscope.train.run import Run
from convscope.train.telling.progress import Progress

State = Literal["waiting", "started", "finished", "diverged", "failed"]
FAILURE = "failure.json"
START = "start.json"


@dataclass(frozen=True)
class Feed:
    """Which images the runs of a table see.

    Attributes:
        data: their reference.
        image_size: height and width; None: the network's input.
    """

    data: str
    image_size: tuple[int, int] | None = None


def carry_out(planned: PlannedRun, feed: Feed, progress: Progress | None = None) -> Run:
    """Train one run of a table, or go on with it, and return it.

    Raises:
        ConvscopeError: the network, the data or the training isn't possible.
    """
    arm, folder = planned.arm, planned.folder
    images = images_for(arm, feed)
    loaded = network_for(arm, images, planned.seed)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / START).exists():
        write_json(folder / START, fingerprints(loaded.model))
    (folder / FAILURE).unlink(missing_ok=True)
    config = replace(arm.config, seed=planned.seed)
    return train(loaded, images, out=folder, config=config, resume=True, progress=progress)


def images_for(arm: Arm, feed: Feed) -> ImageData:
    """Return the images that an arm trains on; the split doesn't depend on the run's seed.

    Raises:
        ConvscopeError: there is no such data, or the network takes no images.
    """
    with paired_draws(0):
        inputs = load(arm.network, **arm.options).inputs
    shape = tuple(getattr(inputs, "shape", inputs)) if not isinstance(inputs, dict | list) else ()
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape):
        raise ConvscopeError(
            f"{arm.network} doesn't take a batch of images",
            "a network with an input of channels, height and width",
            "set the option input_shape, such as '3x64x64'",
        )
    _, channels, height, width = shape
    return _loaded_images(feed.data, feed.image_size or (height, width), channels)


class DataRefusedError(ConvscopeError):
    """The images can't be had, whichever arm is to train on them."""


@lru_cache(maxsize=1)
def _loaded_images(data: str, size: tuple[int, int], channels: int) -> ImageData:
    try:
        return load_data(data, size=size, channels=channels)
    except ConvscopeError as error:
        raise DataRefusedError(error.given, error.expected, error.action) from error


def network_for(arm: Arm, images: ImageData, seed: int) -> Loaded:
    """Return an arm's network with a score for each class, its weights drawn from the seed.

    Raises:
        ConvscopeError: it can't be built with these options.
    """
    with paired_draws(seed):
        return load(arm.network, num_classes=len(images.classes), **arm.options)


def state_of(folder: Path) -> State:
    """Return what became of a run, from its files.

    Raises:
        ConvscopeError: its log is damaged.
    """
    if not (folder / "log.jsonl").exists():
        return "failed" if (folder / FAILURE).exists() else "waiting"
    if (folder / FAILURE).exists():
        return "failed"
    run = read_run(folder)
    if run.diverged is not None:
        return "diverged"
    return "finished" if run.weights is not None else "started"


def note_failure(folder: Path, reason: str) -> None:
    """Leave a word in the run's folder about why it couldn't be trained."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FAILURE, {"error": reason})


def failure_of(folder: Path) -> str | None:
    """Return why a run couldn't be trained; None if nothing went wrong."""
    content = read_json(folder / FAILURE)
    return None if content is None else str(content.get("error", ""))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds; None if there is none.

    Raises:
        ConvscopeError: it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConvscopeError(
            f"{str(path)!r} can't be read ({error})", "a JSON file", "restore or delete it"
        ) from error
    if not isinstance(content, dict):
        raise ConvscopeError(f"{str(path)!r} holds no object", "a JSON object", "restore or delete it")
    return content
