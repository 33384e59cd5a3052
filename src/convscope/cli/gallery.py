"""``convscope gallery``: the images that excite every unit most."""

from convscope.cli.images import data_for
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import note, show


def gallery(
    network: Modules,
    /,
    *,
    data: str,
    options: NetworkOptions = NetworkOptions(),
    layers: str = "all",
    top: int = 9,
    rule: str = "deconvnet",
    out: str = "gallery",
    json: Json = False,
) -> None:
    """Find the images that excite every unit most, and project each unit back to them.

    Args:
        data: photos, digits or a folder of pictures.
        layers: all, or paths of convolutions separated by commas.
        top: Images for each unit.
        rule: What ReLUs do on the way back: deconvnet, guided or gradient.
        out: The folder to write.
    """
    from convscope.sight import gallery as reading

    loaded = options.load_modules(network)
    images = data_for(loaded, data)
    wanted = layers if layers == "all" else tuple(layers.split(","))
    result = reading(loaded.model, images, layers=wanted, top=top, out=out, rule=rule)  # type: ignore[arg-type]
    note(f"gallery written to {out}")
    show(result, as_json=json)
