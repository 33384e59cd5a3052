"""Seeds for places: what is random somewhere follows from one seed and from where it is."""

import hashlib


def derived_seed(seed: int, *place: str | int) -> int:
    """Return a seed below 2**63 for one place, unrelated to those of other places.

    It is the start of BLAKE2b over the seed and the place.

    Example:
        >>> derived_seed(0, "order", 1) == derived_seed(0, "order", 2)
        False
    """
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
