"""``convscope train``: a network from scratch."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.progress import TrainingBar
from convscope.cli.show import show

if TYPE_CHECKING:
    from convscope.data import ImageData
    from convscope.networks import Loaded


def train(
    network: Modules,
    /,
    *,
    data: str,
    options: NetworkOptions = NetworkOptions(),
    out: str = "run",
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 0.01,
    optimizer: str = "sgd-momentum",
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    warmup_epochs: float = 0.0,
    seed: int = 0,
    checkpoint_every: int = 0,
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Train a network from scratch on a data set.

    Args:
        data: photos, digits or a folder with a subfolder for each class.
        out: Folder of the run: log, checkpoint, best and final weights.
        epochs: Passes over the training images.
        batch_size: Images in one optimizer step.
        learning_rate: Its highest value.
        optimizer: sgd-momentum or adamw.
        weight_decay: Of weights; never of biases and normalisation parameters.
        schedule: cosine, step or constant.
        warmup_epochs: Epochs over which the rate climbs first.
        seed: Of initial weights, of the images' places and order.
        checkpoint_every: Steps between checkpoints inside an epoch; 0: after each epoch only.
        resume: Go on from the checkpoint in the run's folder.
    """
    from convscope.train import TrainConfig
    from convscope.train import train as reading

    config = TrainConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,  # type: ignore[arg-type]
        weight_decay=weight_decay,
        schedule=schedule,  # type: ignore[arg-type]
        warmup_epochs=warmup_epochs,
        seed=seed,
        checkpoint_every=checkpoint_every,
    )
    loaded, images = _fitted(network, options, data, seed)
    run = reading(loaded, images, out=out, config=config, resume=resume, progress=TrainingBar())
    show(run, as_json=json)


def _fitted(network: str, options: NetworkOptions, data: str, seed: int) -> tuple["Loaded", "ImageData"]:
    """The network with a score for each class of the data, and the data in the network's size."""
    import torch

    from convscope.cli.images import image_shape, tell_left_out
    from convscope.core.preserved import preserved_rng
    from convscope.data import load_data

    with preserved_rng():
        channels, height, width = image_shape(options.load_modules(network))
        images = load_data(data, size=(height, width), channels=channels, seed=seed)
        tell_left_out(images)
        torch.manual_seed(seed)
        return options.load_modules(network, num_classes=len(images.classes)), images
