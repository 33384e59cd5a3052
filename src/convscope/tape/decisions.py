"""What a network's code asks its tensors, and what a recording answers.

Control flow that depends on data shows as numbers that Python code reads out of tensors: ``if x.sum() > 0``
reads a truth value, ``x.item()`` a number, ``torch.equal`` compares two tensors. A simulation knows none of
them; what it answers decides which path the recording takes.

Limits: in a real run, numbers that leave through ``.numpy()`` or ``.tolist()`` aren't seen (a simulation sees
the latter, and fails at the former), nor are results whose shapes depend on data. Randomness and counters
kept in Python aren't questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from convscope.core.errors import ConvscopeError

Number = bool | int | float
Source = Literal["data", "assumed", "given"]
READS_NUMBER = "_local_scalar_dense"
ASKING = frozenset({READS_NUMBER, "equal", "allclose"})
"""Names of the operators that tell Python a number or a truth value."""
MOST_QUESTIONS = 10_000


@dataclass(frozen=True)
class Question:
    """One number or truth value that a network's code read out of its tensors.

    Attributes:
        where: address of the module call whose code asked; ``"self"`` outside of all.
        op: ``"_local_scalar_dense"`` (``.item()``, ``if tensor``, ``int(tensor)``), ``"equal"`` or
            ``"allclose"``.
        dtype: of what was asked; ``torch.bool`` for comparisons.
        answer: what the code was told.
        source: ``"data"`` in a real run, ``"given"`` by :class:`Decisions`, else ``"assumed"``.
        values: indices of the values that were read, as in ``Tape.values``. Only a comparison is an operator
            call of the tape, too; a value that ``.item()`` reads has no consumer for it.
        num_calls: how many operator calls had run before.
    """

    where: str
    op: str
    dtype: torch.dtype
    answer: Number
    source: Source
    values: tuple[int, ...]
    num_calls: int

    @property
    def is_boolean(self) -> bool:
        """Whether it has two answers only."""
        return self.dtype is torch.bool

    @property
    def assumption(self) -> str | None:
        """What a recording assumed by its answer, in one sentence; None if the data said so."""
        if self.source == "data":
            return None
        if self.op == READS_NUMBER:
            return f"{self.where} reads a number out of a tensor (.item()); {self.answer!r} was assumed"
        return f"{self.where} compares two tensors (torch.{self.op}); {self.answer!r} was assumed"


class Decisions:
    """What one recording after another answers, and what it was asked.

    Args:
        answers: to the questions, in the order of asking; None, and whatever comes after the last: what the
            data say in a real run, else False, 1 or 1.0.
        most: questions after which a recording is broken off, since a loop may wait for another answer.

    Attributes:
        asked: the questions of the last recording, also if it failed.
        num_calls: how many operator calls the last recording wrote down, also if it failed.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> class Doubles(nn.Module):
        ...     def forward(self, x):
        ...         return x * 2 if x.sum() > 0 else x
        >>> decisions = Decisions((True,))
        >>> [call.op for call in record(Doubles(), (2, 3), decisions=decisions).calls]
        ['sum', 'gt', 'mul']
        >>> [(question.where, question.answer) for question in decisions.asked]
        [('self#1', True)]
    """

    def __init__(self, answers: Sequence[Number | None] = (), *, most: int = MOST_QUESTIONS) -> None:
        self.answers, self.most = tuple(answers), most
        self.asked: list[Question] = []
        self.num_calls = 0

    def begin(self) -> None:
        """Forget the last recording."""
        self.asked, self.num_calls = [], 0

    def answer(self, where: str, dtype: torch.dtype, data: Number | None) -> tuple[Number, Source]:
        """Return the answer to the next question, and where it is from.

        Args:
            where: see :class:`Question`.
            dtype: see :class:`Question`.
            data: what the data say, in a real run.

        Raises:
            ConvscopeError: it is one question too many.
        """
        number = len(self.asked)
        if number >= self.most:
            raise ConvscopeError(
                f"{where} reads numbers out of tensors, with {self.most} others read before",
                "a loop that ends with the answers that are assumed (False, 1 or 1.0)",
                "give others: record(..., decisions=Decisions((True,))), or record it for real",
            )
        given = self.answers[number] if number < len(self.answers) else None
        if given is not None:
            return like(dtype, given), "given"
        return (stand_in(dtype), "assumed") if data is None else (data, "data")

    def require_all_used(self) -> None:
        """Check that no answer was left over.

        Raises:
            ConvscopeError: fewer questions were asked.
        """
        if len(self.asked) < len(self.answers):
            raise ConvscopeError(
                f"{len(self.answers)} answers to a network that asks {len(self.asked)} questions",
                "at most one answer a question",
                "see Tape.questions for those that it asks",
            )


def stand_in(dtype: torch.dtype) -> Number:
    """Return what stands for a number that only a real run knows: False, 1.0 or 1."""
    return False if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1


def like(dtype: torch.dtype, number: Number) -> Number:
    """Return a number as a tensor of this dtype would tell it."""
    return bool(number) if dtype is torch.bool else float(number) if dtype.is_floating_point else int(number)
