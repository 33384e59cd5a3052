"""Arms of an experiment by what was chosen for them."""

from collections.abc import Sequence
from typing import Any

from convscope.train.comparing.table import Arm


def names_where(arms: Sequence[Arm], **chosen: Any) -> tuple[str, ...]:
    """Return the names of the arms that have these options and settings, in order.

    Example:
        >>> names_where([Arm("a", "zfnet", {"norm": "batch"}), Arm("b", "zfnet")], norm="batch")
        ('a',)
    """
    return tuple(
        arm.name
        for arm in arms
        if all(
            arm.options.get(name, getattr(arm.config, name, None)) == value for name, value in chosen.items()
        )
    )
