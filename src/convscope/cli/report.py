"""``convscope report``: the whole anatomy on one page."""

from dataclasses import fields
from typing import Annotated

from cyclopts import Parameter

from convscope.cli.options import Json, Modules, Norm
from convscope.cli.progress import StageLines
from convscope.cli.show import show
from convscope.core.errors import ConvscopeError


def report(
    network: Modules = "zfnet",
    /,
    *,
    data: str = "photos",
    norm: Norm = None,
    weights: str | None = None,
    out: str = "report",
    size: int | None = None,
    width: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    per_class: int | None = None,
    seed: int | None = None,
    train: Annotated[bool | None, Parameter(negative="--no-train")] = None,
    input: Annotated[str | None, Parameter(show=False)] = None,
    json: Json = False,
) -> None:
    """Measure everything about a network and write one page that opens offline.

    Args:
        data: photos, digits, mnist5k, torchvision:NAME, hf:FOLDER or a folder of pictures.
        norm: Normalisation of alexnet and zfnet.
        weights: Weights to load; the network is then not trained.
        out: Folder of the page.
        size: Side of the images in pixels, which are square here (there is no --input); 96 where alexnet and
            zfnet are trained here.
        width: Factor on the widths of alexnet and zfnet where they are trained here; 0.25.
        epochs: Passes over the training images; 12.
        batch_size: Images in a training step; 50.
        learning_rate: The highest one; 0.01.
        per_class: At most so many images a class.
        seed: Of weights, images and their order; 0.
        train: Whether to train; default: unless weights are given. A file.py:callable that is to be trained
            is called with num_classes, the data's number of classes.
    """
    if input is not None:
        raise ConvscopeError(
            f"--input {input}", "--size: images of a report are square", "write --size 224 or the like"
        )
    from convscope.report import ReportConfig
    from convscope.report import report as reading

    words = {"size": size, "width": width, "epochs": epochs, "batch_size": batch_size}
    words |= {"learning_rate": learning_rate, "per_class": per_class, "seed": seed, "train": train}
    given = {name: word for name, word in words.items() if word is not None}
    assert given.keys() <= {field.name for field in fields(ReportConfig)}
    config = ReportConfig(**given)  # type: ignore[arg-type]
    with StageLines() as watcher:
        found = reading(network, data, norm, out, weights=weights, config=config, progress=watcher)
    show(found, as_json=json)
