"""A search through the answers that a network can be given: one recording for every answer turned.

Breadth first: no answer is turned (False, 1, 1.0), then every one of those, then every one that these lead
to. A run that fails has no outputs to preserve if the network's own code raised; otherwise where it leads
stays unknown. An unknown path is the same as a recorded one up to the question at which they part.
"""

import dis
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.tape import Device, Tape, record
from convscope.tape.decisions import Decisions, Number, Question

_MOST_QUESTIONS, _MOST_FOR_REAL = 200, 2000
_INTEGERS, _FLOATS = (0, 3), (0.0, -2.5)
_RAISE = dis.opmap["RAISE_VARARGS"]


@dataclass(frozen=True)
class _Run:
    """One recording, or an attempt at one."""

    tape: Tape | None
    error: ConvscopeError | None
    asked: tuple[Question, ...]
    num_calls: int
    real: bool

    @property
    def is_unknown(self) -> bool:
        """Whether it failed where the network itself may not."""
        return self.error is not None and not _raised_by_network(self.error)


@dataclass(frozen=True)
class _Unknown:
    """A path that wasn't recorded: its first answers, and how many operator calls of it were seen, if any."""

    answers: tuple[Number, ...]
    num_calls: int = 0


class Turns:
    """Records a network again and again, with other answers.

    Args:
        model: the network.
        device: whose operators to imitate.
        most: recordings on simulated tensors.
    """

    def __init__(self, model: nn.Module, device: Device, most: int) -> None:
        self._model, self._device, self._most = model, device, most
        self._runs: list[_Run] = []
        self._untried: tuple[tuple[Number, ...], ...] = ()

    @property
    def any_recorded(self) -> bool:
        """Whether some path came to its end."""
        return any(run.tape is not None for run in self._runs)

    @property
    def needs_data(self) -> bool:
        """Whether simulations don't tell all: numbers were asked for, or none came to its end."""
        return bool(self._numbers()) or not self.any_recorded

    def simulate(self, inputs: Any) -> None:
        """Record on simulated tensors, turning one answer after another, truth values before numbers."""
        truths, numbers = deque[tuple[Number, ...]]([()]), deque[tuple[Number, ...]]()
        while (truths or numbers) and len(self._runs) < self._most:
            answers = (truths or numbers).popleft()
            run = self._recorded(inputs, Decisions(answers, most=_MOST_QUESTIONS))
            given = tuple(question.answer for question in run.asked)
            for number, question in enumerate(run.asked[len(answers) :], len(answers)):
                queue = truths if question.is_boolean else numbers
                queue.extend((*given[:number], other) for other in _others(question))
        self._untried = (*truths, *numbers)

    def run_for_real(self, *inputs: Any) -> None:
        """Run the network on real inputs, after the simulations."""
        for each in inputs:
            self._recorded(each, Decisions(most=_MOST_FOR_REAL), real=True)
            if not self.any_recorded:
                return

    def distinct(self) -> Iterator[tuple[Tape, int | None]]:
        """Yield the distinct recordings, each with the number of its calls before unknown paths may part.

        Raises:
            ConvscopeError: there is none.
        """
        runs = [run for run in self._runs if run.tape is not None]
        if not runs:
            error = self._runs[0].error
            assert error is not None
            raise error
        open_at = [self._open_questions(run) for run in runs]
        for unknown in self._unknowns():
            parted = [_parted(run, unknown) for run in runs]
            nearest = max(range(len(runs)), key=lambda number: parted[number])
            open_at[nearest].append(parted[nearest])
        found: dict[Any, tuple[Tape, list[int]]] = {}
        for run, at in zip(runs, open_at, strict=True):
            assert run.tape is not None
            steps = _steps(run.tape) if len(runs) > 1 else None
            found.setdefault(steps, (run.tape, []))[1].extend(at)
        yield from ((tape, min(at, default=None)) for tape, at in found.values())

    def doubt(self) -> str:
        """Return why there may be other paths; empty if there are none."""
        numbers = self._numbers()
        if numbers:
            return f"{' and '.join([*numbers][:2])} reads numbers out of tensors, which may decide what runs"
        if self._untried:
            where = next(run.asked[-1].where for run in self._runs if run.asked)
            return f"{where} asks more of its tensors than {len(self._runs)} recordings can answer both ways"
        failed = next((run.error for run in self._runs if run.is_unknown and not run.real), None)
        return "" if failed is None else failed.given

    def notes(self) -> tuple[str, ...]:
        """Return what was tried and failed, one sentence each."""
        return tuple(dict.fromkeys(_note(run) for run in self._runs if run.error is not None))

    def _recorded(self, inputs: Any, decisions: Decisions, *, real: bool = False) -> _Run:
        tape, error = None, None
        try:
            tape = record(self._model, inputs, device=self._device, real=real, decisions=decisions)
        except ConvscopeError as failure:
            error = failure
        run = _Run(tape, error, tuple(decisions.asked), decisions.num_calls, real)
        self._runs.append(run)
        return run

    def _numbers(self) -> dict[str, None]:
        """Where numbers were asked for in simulations, which see it all."""
        simulated = (run for run in self._runs if not run.real)
        return {
            question.where: None for run in simulated for question in run.asked if not question.is_boolean
        }

    def _unknowns(self) -> Iterator[_Unknown]:
        yield from map(_Unknown, self._untried)
        for run in self._runs:
            if run.is_unknown:
                yield _Unknown(tuple(question.answer for question in run.asked), run.num_calls)

    def _open_questions(self, run: _Run) -> list[int]:
        """Where a recorded path leaves questions open: at numbers, and at all that no simulation came to."""
        unseen = run.real and self._runs[0].is_unknown
        return [question.num_calls for question in run.asked if unseen or not question.is_boolean]


def _parted(run: _Run, unknown: _Unknown) -> int:
    """How many calls of a recorded path an unknown one shares."""
    for question, answer in zip(run.asked, unknown.answers, strict=False):
        if question.answer != answer:
            return question.num_calls
    return unknown.num_calls


def _steps(tape: Tape) -> Any:
    """What makes two recordings one path: operators, their arguments, modules, who reads and keeps what."""
    calls = tuple((str(call.address), repr(call.arguments), call.outputs) for call in tape.calls)
    modules = tuple((str(call.address), call.inputs, call.outputs) for call in tape.modules)
    read = tuple(question.values for question in tape.questions)
    deaths = tuple(storage.death for storage in tape.storages)
    return calls, modules, read, deaths, tape.outputs


def _others(question: Question) -> tuple[Number, ...]:
    """Answers to try in place of the one that was given."""
    if question.is_boolean:
        return (not question.answer,)
    return tuple(
        other
        for other in (_FLOATS if question.dtype.is_floating_point else _INTEGERS)
        if other != question.answer
    )


def _note(run: _Run) -> str:
    assert run.error is not None
    if run.real:
        return f"run for real, it fails: {run.error.given}"
    answers = ", ".join(repr(question.answer) for question in run.asked[:8]) or "nothing asked"
    return f"with answers {answers}, it fails: {run.error.given}"


def _raised_by_network(error: ConvscopeError) -> bool:
    """Whether a network's own code raised on purpose, not PyTorch in it."""
    cause = error.__cause__
    traceback = None if cause is None or cause.__context__ is not None else cause.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    own = traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] != "torch"
    return own and traceback.tb_frame.f_code.co_code[traceback.tb_lasti] == _RAISE
