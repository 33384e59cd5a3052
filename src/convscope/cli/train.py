"""``convscope train``: a network from scratch, by a recipe, or fine-tuned."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.progress import TrainingBar
from convscope.cli.show import note, show
from convscope.cli.train_flags import (
    FreshOptions,
    ImageOptions,
    LearningOptions,
    RunningOptions,
    config_of,
    with_batch,
)
from convscope.cli.weights import lacking
from convscope.core.errors import ConvscopeError
from convscope.core.paths import exists

if TYPE_CHECKING:
    from convscope.data import ImageData
    from convscope.networks import Loaded
    from convscope.train import TrainConfig
    from convscope.train.recipes import Recipe


def train(
    network: Modules,
    /,
    *,
    data: str,
    recipe: str | None = None,
    options: FreshOptions = FreshOptions(),
    new_head: Annotated[bool, Parameter(negative="")] = False,
    learning: LearningOptions = LearningOptions(),
    images: ImageOptions = ImageOptions(),
    running: RunningOptions = RunningOptions(),
    out: str = "run",
    trackers: str | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Train a network on a data set, from scratch or from weights.

    Under torchrun or accelerate launch, all processes share the work.

    Args:
        data: photos, digits, mnist5k, a folder with a subfolder for each class, torchvision:NAME, hf:FOLDER.
        recipe: Settings of alexnet, zfnet or modern, as published; single flags replace its values.
        new_head: With --weights: a fresh classifier for the data's classes on the trained layers.
        out: Folder of the run: log, checkpoint, best and final weights.
        trackers: Also tell the run's figures to tensorboard, or to others that accelerate knows; with commas
            between them.
        resume: Go on from the checkpoint in the run's folder.
    """
    from convscope.train import train as reading

    learning = with_batch(learning, options.batch)
    wish = _Wish(network, data, replace(options, batch=None), new_head, recipe)
    loaded, sets, config = wish.prepared(learning, images, running)
    told: dict[str, Any] = {"trackers": tuple(trackers.split(","))} if trackers else {}
    if _is_first():
        _tell(out, len(sets.train), config, resume=resume)
    bar = TrainingBar()
    with _interruptible(out):
        run = reading(loaded, sets, out=out, config=config, resume=resume, progress=bar, **told)
    if _is_first():
        if bar.num_steps == 0 and run.diverged is None:
            note(f"the run in {out} had ended before: nothing was trained")
        show(run, as_json=json)


def _tell(out: str, num_images: int, config: "TrainConfig", *, resume: bool) -> None:
    """Say what a wish comes to that isn't what its words seem to say."""
    if resume and not exists(Path(out) / "log.jsonl"):
        note(f"no run in {out} to resume: it begins there")
    if num_images < config.batch_size:
        note(f"fewer images than a batch of {config.batch_size:,}: each step takes all {num_images:,}")


@dataclass(frozen=True)
class _Wish:
    """What is to be trained on what."""

    network: str
    data: str
    options: NetworkOptions
    new_head: bool
    recipe: str | None

    def prepared(
        self, learning: LearningOptions, images: ImageOptions, running: RunningOptions
    ) -> tuple["Loaded", "ImageData", "TrainConfig"]:
        """The network with a score for each class, the data in the network's size, and the settings."""
        import torch

        from convscope.cli.images import image_shape
        from convscope.core.preserved import preserved_rng

        chosen = self._recipe()
        with preserved_rng():
            defaults = self._defaults(chosen, images.crop)
            shape = image_shape(replace(self.options, weights=None).load_modules(self.network, **defaults))
            config = config_of(chosen, learning, images, running, min(shape[1:]))
            if config.crop is not None and shape[1:] != (config.crop, config.crop) and self.options.input:
                raise ConvscopeError(
                    f"--crop {config.crop} with --input {self.options.input}",
                    "windows of the network's input size",
                    "leave one of them out",
                )
            sets = self._images(shape, chosen, config, images.picture_size)
            torch.manual_seed(config.seed)
            loaded = self._loaded(len(sets.classes), defaults)
            return loaded, self._normalised(sets, loaded, chosen), config

    def _recipe(self) -> "Recipe | None":
        from convscope.train.recipes import recipe

        if self.new_head and self.options.weights is None:
            raise ConvscopeError("--new-head without --weights", "trained layers", "add --weights FILE")
        chosen = None if self.recipe is None else recipe(self.recipe)
        if (
            chosen is not None
            and chosen.network is not None
            and not self._is_published(chosen)
            and _is_first()
        ):
            width = "" if self.options.width is None else f" at width {self.options.width:g}"
            note(
                f"recipe {chosen.name}: its first weights and scale of pixels are for {chosen.network} "
                f"at full width; {self.network}{width} gets its settings alone"
            )
        return chosen

    def _is_published(self, chosen: "Recipe | None") -> bool:
        """Whether this is the network that a recipe is of: a narrower one hardly learns from its weights."""
        return chosen is not None and chosen.network == self.network and self.options.width in (None, 1.0)

    def _defaults(self, chosen: "Recipe | None", crop: int | None) -> dict[str, Any]:
        """Options of the network where the command line is silent: the recipe's, or those of the weights."""
        from convscope.train.new_head import saved_options

        defaults = dict(chosen.options) if chosen is not None and chosen.network == self.network else {}
        if not self._is_published(chosen):
            defaults.pop("init", None)
        if self.options.weights is not None:
            defaults |= saved_options(self.network, self.options.weights)
        if crop is not None and self.options.input is None:
            defaults["input_shape"] = (self._channels(defaults), crop, crop)
        return defaults

    def _channels(self, defaults: dict[str, Any]) -> int:
        from convscope.cli.images import image_shape

        if "input_shape" in defaults:
            return int(defaults["input_shape"][0])
        return image_shape(replace(self.options, weights=None).load_modules(self.network, **defaults))[0]

    def _images(
        self, shape: tuple[int, int, int], chosen: "Recipe | None", config: "TrainConfig", side: int | None
    ) -> "ImageData":
        from convscope.cli.images import tell_left_out
        from convscope.data import load_data
        from convscope.train.subject import picture_side

        channels, *size = shape
        wanted = (size[0], size[1])
        if side is not None:
            wanted = (side, side)
        elif config.crop is not None:
            is_recipes = chosen is not None and config.crop == chosen.config.crop
            side = chosen.picture_size if chosen and is_recipes else picture_side(config.crop)
            wanted = (side, side)
        sets = load_data(self.data, size=wanted, channels=channels, seed=config.seed)
        if _is_first():
            tell_left_out(sets)
        return sets

    def _loaded(self, num_classes: int, defaults: dict[str, Any]) -> "Loaded":
        from convscope.train.new_head import with_trained_body

        weights = self.options.weights
        if self.new_head and weights is not None:
            fresh = replace(self.options, weights=None)
            loaded = fresh.load_modules(self.network, num_classes=num_classes, **defaults)
            trained = with_trained_body(loaded, weights, self.options.num_classes or num_classes)
            if trained.weights is not None and trained.weights.unfilled and not self.options.partial_weights:
                raise lacking(trained.weights, self.network)
            return trained
        try:
            return self.options.load_modules(self.network, num_classes=num_classes, **defaults)
        except ConvscopeError as error:
            if "classes in the file" not in error.action:
                raise
            action = f"add --new-head: a fresh classifier for the {num_classes} classes of {self.data}"
            raise ConvscopeError(error.given, error.expected, action) from error

    def _normalised(self, sets: "ImageData", loaded: "Loaded", chosen: "Recipe | None") -> "ImageData":
        """Images as trained weights want them, as the recipe's network does, or with their own deviation."""
        from convscope.cli.images import is_known

        known = loaded.preprocessing
        if self.options.weights is not None and known is not None and is_known(loaded):
            return sets.normalised_with(known.mean, known.std)
        if chosen is not None and self._is_published(chosen):
            return chosen.prepared(sets)
        return sets


@contextmanager
def _interruptible(out: str) -> Iterator[None]:
    """Say, on Ctrl-C, how the run in ``out`` goes on; exit with 130."""
    try:
        yield
    except KeyboardInterrupt as stop:
        # A training that stopped by itself, with a checkpoint, has said so.
        if _is_first() and not stop.args:
            print(f"convscope: interrupted; {_way_on(Path(out))}", file=sys.stderr)
        sys.exit(130)


def _way_on(folder: Path) -> str:
    is_kept = (folder / "checkpoint.safetensors").exists()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "go on with the same command" + (" and --resume" if is_kept else "")
    words = [word for word in sys.argv[1:] if word != "--resume"]
    program = ["python", "-m", "convscope"] if sys.argv[0].endswith("__main__.py") else ["convscope"]
    command = shlex.join([*program, *words, *(["--resume"] if is_kept else [])])
    if is_kept:
        return f"go on from the last checkpoint with: {command}"
    return f"nothing was kept before the first checkpoint; begin again with: {command}"


def _is_first() -> bool:
    """Whether this process is the one that prints."""
    return int(os.environ.get("RANK", "0")) == 0
