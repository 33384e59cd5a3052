"""``convscope stem``: the first layer, diagnosed."""

from convscope.cli.images import data_for
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import show


def stem(
    network: Modules,
    /,
    *,
    data: str,
    options: NetworkOptions = NetworkOptions(),
    json: Json = False,
) -> None:
    """Diagnose the first convolution: dead and dominant filters, and energy beyond the new Nyquist frequency.

    Args:
        data: photos, digits or a folder of pictures.
    """
    from convscope.sight import stem as reading

    loaded = options.load_modules(network)
    images = data_for(loaded, data)
    show(reading(loaded.model, images), as_json=json)
