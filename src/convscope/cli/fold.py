"""``convscope fold``: the network without its batch norms."""

from typing import Annotated

from cyclopts import Parameter

from convscope.cli.options import Json, Network, NetworkOptions
from convscope.cli.show import note, show


def fold(
    network: Network,
    /,
    *,
    options: NetworkOptions = NetworkOptions(),
    measure: Annotated[bool, Parameter(negative="")] = False,
    repeats: int = 20,
    out: str | None = None,
    json: Json = False,
) -> None:
    """Move test-time batch norm into the layers around it, prove it, and say where each one went.

    Args:
        measure: Time the network before and after on this machine.
        repeats: Timed forward passes of each.
        out: Write the folded weights to this safetensors file.
    """
    from convscope.fold import fold as reading

    loaded = options.load(network)
    folded = reading(loaded.model.eval(), loaded.inputs, measure=measure, repeats=repeats)
    if out is not None:
        from convscope.networks import Extras, save_weights

        save_weights(folded.model, out, Extras(loaded.preprocessing, loaded.class_names or None))
        note(f"folded weights written to {out}")
    show(folded, as_json=json)
