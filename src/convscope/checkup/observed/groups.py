"""One call of a group norm, by shape."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupCall:
    """One call of a group norm or instance norm, as the tape has it.

    Attributes:
        address: of the call.
        path: of its module.
        num_groups: groups.
        values_per_group: values that one group's statistics are of: (C / groups) × positions.
    """

    address: str
    path: str
    num_groups: int
    values_per_group: int
