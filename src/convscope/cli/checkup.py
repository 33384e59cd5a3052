"""``convscope checkup``: whether the network's batch norms are healthy."""

from convscope.cli.images import data_for
from convscope.cli.options import Json, Modules, NetworkOptions
from convscope.cli.show import show


def checkup(
    network: Modules,
    /,
    *,
    options: NetworkOptions = NetworkOptions(),
    data: str | None = None,
    batch_size: int = 32,
    json: Json = False,
) -> None:
    """Look for faults of batch norm, each with its evidence and a remedy.

    Args:
        data: photos, digits or a folder of pictures: what running statistics are compared with. Without
            it, only what the network itself tells is checked.
        batch_size: Images a batch.
    """
    from convscope.checkup import checkup as reading

    loaded = options.load_modules(network)
    if data is None:
        show(reading(loaded.model, loaded.inputs), as_json=json)
        return
    images = data_for(loaded, data)
    show(reading(loaded.model, images.batches("train", batch_size)), as_json=json)
