"""``convscope networks``: what can be loaded by name."""

from dataclasses import replace

from convscope.cli.options import Json
from convscope.cli.show import note, show
from convscope.core.nearest import nearest


def networks(matching: str = "", /, *, json: Json = False) -> None:
    """List the networks that can be loaded by name.

    Args:
        matching: Show only names that contain this text.
    """
    from convscope.networks import catalogue, names

    listed = catalogue()
    own = tuple(network for network in listed.own if matching in network.reference)
    zoos = tuple(replace(zoo, names=tuple(n for n in zoo.names if matching in n)) for zoo in listed.zoos)
    show(replace(listed, own=own, zoos=zoos), as_json=json)
    if not own and not any(zoo.names for zoo in zoos):
        near = nearest(matching, names(), "`convscope networks` lists all")
        note(f"no network's name contains {matching!r}; {near}", always=True)
