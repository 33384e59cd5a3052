"""Extra measures of a finished run, kept beside it so that each is made once."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from convscope.core.preserved import preserved_rng
from convscope.train.comparing.experiment import ExtraMeasure
from convscope.train.comparing.running import read_json, write_json
from convscope.train.comparing.tasks import told

FOLDER = "measures"


def measures_of(folder: Path, measures: Sequence[ExtraMeasure]) -> tuple[dict[str, float], list[str]]:
    """Return the numbers of a run's extra measures, and what couldn't be measured and why.

    Args:
        folder: of a finished run.
        measures: what to measure; what is known already is read.
    """
    numbers: dict[str, float] = {}
    problems = []
    for measure in measures:
        try:
            found = _known(folder, measure)
            found = _made(folder, measure) if found is None else found
        except Exception as error:  # one measure that fails takes nothing else with it
            problems.append(f"{measure.name}: {told(error).replace(str(folder), folder.name)}")
            continue
        numbers |= {f"{measure.name}.{key}": value for key, value in found.items()}
    return numbers, problems


def _known(folder: Path, measure: ExtraMeasure) -> Mapping[str, float] | None:
    content = read_json(_file(folder, measure))
    if content is None or content.get("version") != measure.version:
        return None
    return {key: math.nan if value is None else value for key, value in content["numbers"].items()}


def _made(folder: Path, measure: ExtraMeasure) -> Mapping[str, float]:
    with preserved_rng():
        found = {key: float(value) for key, value in measure.function(folder).items()}
    shown = {key: value if math.isfinite(value) else None for key, value in found.items()}
    write_json(_file(folder, measure), {"version": measure.version, "numbers": shown})
    return found


def _file(folder: Path, measure: ExtraMeasure) -> Path:
    return folder / FOLDER / f"{measure.name}.json"
