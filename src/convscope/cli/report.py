"""``convscope report``: the whole anatomy on one page."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convscope.cli.options import Json, Modules, Norm
from convscope.cli.progress import StageLines
from convscope.cli.show import show
from convscope.cli.weights import check_file
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.core.result import Result


def report(
    network: Modules = "zfnet",
    second: Modules | None = None,
    /,
    *,
    data: str = "photos",
    norm: Norm = None,
    weights: Annotated[list[str] | None, Parameter(negative="", metavar="FILE")] = None,
    partial_weights: Annotated[bool, Parameter(negative="")] = False,
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

    Of two networks, or of one with two files of weights, a page says what differs; nothing is trained then.
    In place of a network stands the folder of a report as well.

    Args:
        data: photos, digits, mnist5k, torchvision:NAME, hf:FOLDER or a folder of pictures.
        norm: Normalisation of alexnet, zfnet, or a callable that takes norm; trained here, such a network
            gets a twin without it.
        weights: Weights to load; the network is then not trained. Twice: of the two networks.
        partial_weights: Take weights that lack parameters or running statistics, which stay as the network
            was built.
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
            is called with num_classes, the data's number of classes, if it takes that.
    """
    if input is not None:
        raise ConvscopeError(
            f"--input {input}", "--size: images of a report are square", "write --size 224 or the like"
        )
    from convscope.report import ReportConfig, report_pair
    from convscope.report import report as reading

    words = {"size": size, "width": width, "epochs": epochs, "batch_size": batch_size}
    words |= {"learning_rate": learning_rate, "per_class": per_class, "seed": seed, "train": train}
    given = {name: word for name, word in words.items() if word is not None}
    assert given.keys() <= {field.name for field in fields(ReportConfig)}
    config = ReportConfig(**given)  # type: ignore[arg-type]
    files = weights or []
    for name, of in zip((network, second or network), files, strict=False):
        check_file(name, of, partial=partial_weights, **({"norm": norm} if norm else {}))
    with StageLines() as watcher:
        if second is None and len(files) < 2:
            file = files[0] if files else None
            found: Result = reading(network, data, norm, out, weights=file, config=config, progress=watcher)
        else:
            networks, both = _pair(network, second, files)
            found = report_pair(networks, data, norm, out, weights=both, config=config, progress=watcher)
    show(found, as_json=json)


def _pair(
    network: str, second: str | None, weights: list[str]
) -> tuple[tuple[str, str], tuple[str | None, str | None]]:
    """Two networks with a file of weights each, or none; one network may have two files."""
    if len(weights) > 2:
        raise ConvscopeError(f"{len(weights)} files of weights", "two at most", "compare two at a time")
    if len(weights) == 1:
        raise ConvscopeError(
            f"two networks with one file of weights, {weights[0]!r}",
            "a file for each, or none",
            "give --weights twice",
        )
    first_file, second_file = weights or (None, None)
    return (network, second or network), (first_file, second_file)
