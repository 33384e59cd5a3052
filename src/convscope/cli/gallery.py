"""``convscope gallery``: the images that excite every unit most."""

from pathlib import Path
from typing import Any

from convscope.cli.fresh import tell_fresh
from convscope.cli.images import source_for, tell_damaged
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import note, show
from convscope.core.paths import is_file


def gallery(
    network: Modules,
    /,
    *,
    data: str,
    options: NetworkOptions = NetworkOptions(),
    limit: int | None = None,
    layers: str = "all",
    top: int = 9,
    rule: str | None = None,
    judge: str = "all",
    out: str = "gallery",
    json: Json = False,
) -> None:
    """Find the images that excite every unit most, and project each unit back to them.

    Args:
        data: photos, digits, mnist5k, torchvision:NAME, a folder of pictures, tar files such as
            "shards/{000..009}.tar", or a folder that Hugging Face's datasets saved. Of a folder with train
            and validation in it, the latter.
        limit: Look at so many images at most, evenly spaced.
        layers: all, or paths of convolutions, or of modules that return maps, separated by commas.
        top: Images for each unit.
        rule: How activations are passed on the way back: deconvnet, guided, gated or gradient; one that suits
            the network if left out.
        judge: Of how many units of a layer scores are measured: all, or a number; 0 for none, which is two
            to three times as fast in deep networks.
        out: The folder to write; an older gallery in it is replaced. What is done is kept in a folder
            of that name with .partial until it is whole; an interrupted command goes on from there. Under
            torchrun, all processes share the work.
    """
    from convscope.cli.progress import LookBar
    from convscope.cli.sharing import sharing
    from convscope.sight import GalleryOptions, Origin
    from convscope.sight import gallery as reading
    from convscope.sight.picturing.folder import INDEX

    loaded = options.load_modules(network)
    images = source_for(loaded, data, limit)
    older = ", in the place of an older one" if is_file(Path(out) / INDEX) else ""
    origin = Origin.now(network, options.weights or "none given: as the network was built", data)
    wanted = layers if layers == "all" else tuple(layers.split(","))
    with sharing() as is_first, LookBar(shown=is_first) as bar:
        result = reading(
            loaded.model,
            images,
            layers=wanted,  # type: ignore[arg-type]
            top=top,
            out=out,
            rule=rule,  # type: ignore[arg-type]
            options=GalleryOptions(judge=_number(judge), progress=bar, origin=origin),
        )
    if is_first:
        tell_damaged(result.damaged)
        note(f"gallery written to {out}{older}: open index.html in it")
        tell_fresh(loaded)
        show(result, as_json=json)


def _number(judge: str) -> Any:
    """A number where the text is one; GalleryOptions says what is wrong with other texts."""
    return int(judge) if judge.isdecimal() else judge
