"""What a planted fault is: how it is put in, where it must be found, and what takes it away."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import convscope as cs
from convscope.checkup import Checkup


@dataclass
class Subject:
    """What a check-up is given.

    Attributes:
        model: the network.
        data, loss, optimizer, reference: as in :func:`convscope.checkup.checkup`.
        train: a user's loop, run under ``cs.watch`` instead of a check-up of the model alone.
    """

    model: nn.Module
    data: Any = None
    loss: Any = None
    optimizer: Any = None
    reference: Any = None
    train: Callable[[], None] | None = None


@dataclass(frozen=True)
class Planted:
    """One fault in one network.

    Attributes:
        number: in the catalogue of 34; 0 for a fault that isn't in it.
        fault: the id that its finding must carry.
        network: name of the architecture.
        healthy: makes the subject before the fault is put in; mustn't have the finding.
        plant: puts the fault into a healthy subject and returns it.
        address: the finding's address must start with this.
        remedy: the finding's remedy must contain this.
        mend: does what the remedy says; after it the finding must be gone.
        expects: ids of further findings that follow from the fault, none of which is a false alarm.
    """

    number: int
    fault: str
    network: str
    healthy: Callable[[], Subject]
    plant: Callable[[Subject], Subject]
    address: str
    remedy: str
    mend: Callable[[Subject], Subject]
    expects: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.number}-{self.fault}-{self.network}"


def examine(subject: Subject) -> Checkup:
    """Return the check-up of a subject, or what watching its loop shows."""
    if subject.train is None:
        return cs.checkup(subject.model, subject.data, subject.loss, subject.optimizer, subject.reference)
    with cs.watch(subject.model, subject.optimizer) as log:
        subject.train()
    return log.checkup()
