"""Bad inputs of one kind, made by Hypothesis until so many have been refused as docs/reliability.md states.

The same inputs are made on every machine. ``CONVSCOPE_FUZZ_SEED`` set to another number makes others;
``CONVSCOPE_FUZZ_TIMES`` makes so many times as many.
"""

import math
import os
import re
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.strategies import SearchStrategy

from fuzz.trial import Case, Workplace

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
SEED = int(os.environ.get("CONVSCOPE_FUZZ_SEED", "0"))
TIMES = float(os.environ.get("CONVSCOPE_FUZZ_TIMES", "1"))
QUICK = 0.06
"""Share of a kind's inputs that ``make test`` tries."""
_ROUNDS = 12


def stated() -> dict[str, int]:
    """How many inputs of each kind the page states, by the file of tests that makes them."""
    rows = re.findall(
        r"^\|[^|]*\| `(test_\w+)\.py` \| ([\d,]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: int(number.replace(",", "")) for name, number in rows}


def refused(kind: str, cases: SearchStrategy[Case], place: Workplace, share: float) -> int:
    """Try inputs until a share of the stated number of different ones has been refused, and return how many.

    Inputs that turn out to be good, and those that were tried before, don't count.

    Args:
        kind: the name of the file of tests.
        cases: what makes the inputs.
        place: where they are tried.
        share: of the number that the page states.
    """
    wanted = math.ceil(stated()[kind] * share * (TIMES if share == 1 else 1))
    found: set[tuple[object, ...]] = set()
    for number in range(_ROUNDS):
        if len(found) >= wanted:
            break

        @seed(_ROUNDS * SEED + number)
        @settings(
            max_examples=max(10, wanted - len(found)),
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(cases)
        def tried(case: Case) -> None:
            if case.key not in found and place.refuses(case):
                found.add(case.key)

        # Constants that Hypothesis finds in loaded modules would make inputs depend on what ran before.
        with mock.patch.object(HypothesisProvider, "_maybe_draw_constant", return_value=None):
            tried()
    assert len(found) >= wanted, f"only {len(found)} of {wanted} inputs of {kind} were bad ones"
    return len(found)
