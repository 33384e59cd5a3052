"""Write the pages of finished experiments: ``python docs/experiments.py FOLDER...``.

Each folder is one that ``convscope compare NAME --out FOLDER`` has finished. It is only read; nothing is
trained. `docs/experiments/` gets NAME.md, NAME.json and the figures, and a line for each claim in index.md.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.report.wording.formats import MISSING, number, percent, seconds
from convscope.report.wording.intervals import bounded, form_of, span, written
from convscope.train import read_comparison
from convscope.train.comparing import Comparison, Verdict
from convscope.train.comparing.reading import comparison_from
from convscope.train.comparing.result import ArmResult
from convscope.train.comparing.statistics import Interval, interval
from experiment_figures import figures

FOLDER = Path(__file__).with_name("experiments")
MOST_BYTES = 200_000
_PATH = re.compile(r"""(?<![\w/.×:<])/(?:[^\s/'",;:)]+/)*([^\s/'",;:)]+)""")


def main(folders: Sequence[str | Path], out: Path = FOLDER) -> None:
    """Write the pages of some comparisons, and the index of all that lie beside them."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        found = _finished(folder)
        drawings = dict(figures(found))
        for old in out.glob(f"{found.name}-*.svg"):
            old.unlink()
        for name, (picture, _) in drawings.items():
            _write(out / f"{found.name}-{name}.svg", picture)
        _write(out / f"{found.name}.json", kept(found))
        captions = {name: caption for name, (_, caption) in drawings.items()}
        _write(out / f"{found.name}.md", without_paths(page(found, captions)))
    every = [comparison_from(file) for file in sorted(out.glob("*.json"))]
    _write(out / "index.md", without_paths(index(every)))


def _finished(folder: str | Path) -> Comparison:
    found = read_comparison(folder)
    if not found.is_complete:
        raise ConvscopeError(
            f"{str(folder)!r} with runs that haven't ended", "a finished comparison", "compare again to go on"
        )
    if not found.verdicts:
        raise ConvscopeError(f"{str(folder)!r} without claims", "an experiment", "give a preset's folder")
    return found


def page(found: Comparison, captions: dict[str, str]) -> str:
    """Return the page of an experiment as Markdown."""
    parts = [
        f"# {found.name}",
        f"**{found.question}**",
        "## Protocol, laid down before the runs",
        found.protocol,
        "## Claims: published beside ours",
        _claims(found),
        *(f"- *{_plain(v.claim.statement)}* **{v.verdict}**: {_plain(v.sentence)}." for v in found.verdicts),
        "Intervals are 95 % t intervals over seeds; of a bound, the end that it is about. p is of exact "
        "one-sided sign-flip permutation tests, of sameness the larger of the two. Claims are judged one by "
        "one, without a correction for their number.",
        "## What can and can't be concluded",
        found.scale,
        *(f"- {line}" for line in dict.fromkeys(_concluded(found))),
        "## Arms",
        _arms(found),
        _target(found),
        *_measured(found),
        "## Figures",
        *(f"![{caption}]({found.name}-{name}.svg)\n\n{caption}" for name, caption in captions.items()),
        "## How it was made",
        f"```bash\n{_command(found)}\n```",
        _made(found),
        "Sources: " + "; ".join(f"{_plain(p.figure)} ({_plain(p.source)})" for p in found.published) + ".",
        f"[Every number as JSON]({found.name}.json) · [all experiments](index.md)",
    ]
    if found.notes:
        parts += ["## Notes", "\n".join(f"- {_plain(note)}" for note in found.notes)]
    return _joined(parts) + "\n"


def _joined(parts: Sequence[str]) -> str:
    """Parts with an empty line between them, but for the points of one list."""
    shown = [part for part in parts if part]
    text = shown[0]
    for before, part in pairwise(shown):
        text += ("\n" if before.startswith("- ") and part.startswith("- ") else "\n\n") + part
    return text


def _concluded(found: Comparison) -> Iterator[str]:
    for verdict in found.verdicts:
        said = verdict.claim.concludes.replace(found.scale, "").strip()
        if said:
            yield f"{_plain(verdict.claim.name)}: {_plain(said)}"


def _claims(found: Comparison) -> str:
    rows = []
    for verdict in found.verdicts:
        published = verdict.claim.published
        here, ends = _here(verdict)
        p = MISSING if verdict.p is None else f"{verdict.p:.3f}"
        rows.append(
            (
                verdict.claim.statement,
                published.figure if published else MISSING,
                here,
                ends,
                p,
                str(verdict.num_seeds),
                f"**{verdict.verdict}**",
            )
        )
    return _table(("Claim", "Published", "Here", "95 %", "p, one-sided", "Seeds", "Verdict"), rows)


def _here(verdict: Verdict) -> tuple[str, str]:
    measure = verdict.claim.measure
    form = form_of(measure.quantity, measure.scale)
    return bounded(verdict.interval, form, verdict.bound), span(verdict.interval, form, verdict.bound)


def _arms(found: Comparison) -> str:
    return _table(
        ("Arm", "Final error", "95 %", "Best error", "Gap", "Steps to target", "Reached", "Diverged"),
        [_arm(arm) for arm in found.arms],
    )


def _arm(arm: ArmResult) -> tuple[str, ...]:
    reached = arm.reached
    steps = "never" if not reached.num_reached else MISSING
    return (
        arm.name + (f" ({arm.num_failed} failed)" if arm.num_failed else ""),
        percent(arm.final_error.mean) if arm.final_error else MISSING,
        span(arm.final_error, "percent"),
        percent(arm.best_error.mean) if arm.best_error else MISSING,
        written(arm.gap, "points"),
        steps if reached.median is None else number(reached.median),
        f"{reached.num_reached} of {reached.num_runs}",
        str(arm.num_diverged),
    )


def _target(found: Comparison) -> str:
    if found.target is None:
        return ""
    whence = "given" if found.target_is_given else f"what {found.baseline!r} reaches in half of its seeds"
    return (
        f"Target: {percent(found.target)} of validation images wrong ({whence}). Steps are the median over "
        "seeds. A diverged run counts as guessing, and as never reaching the target. Gap: final error minus "
        "training error, as training measured it."
    )


def _measured(found: Comparison) -> list[str]:
    """A table of the extra measures: a row for each number, a column for each arm."""
    names = dict.fromkeys(key for arm in found.arms for run in arm.runs for key in run.measures or ())
    if not names:
        return []
    rows = [(name, *(_mean(arm, name) for arm in found.arms)) for name in names]
    return [
        "Measured besides, mean over seeds with its 95 % interval:",
        _table(("", *(arm.name for arm in found.arms)), rows),
    ]


def _mean(arm: ArmResult, name: str) -> str:
    numbers = [(run.measures or {}).get(name) for run in arm.runs]
    found: Interval | None = interval([each for each in numbers if each is not None and each == each])
    if found is None:
        return MISSING
    if found.low is None or found.high is None:
        return f"{found.mean:.4g}"
    return f"{found.mean:.4g} ({found.low:.4g} to {found.high:.4g})"


def _command(found: Comparison) -> str:
    command = found.made.command
    return command if command.startswith("convscope ") else f"convscope compare {found.name}"


def _made(found: Comparison) -> str:
    made = found.made
    spent = sum(run.seconds for arm in found.arms for run in arm.runs)
    versions = f"convscope {made.versions.get('convscope')}, PyTorch {made.versions.get('torch')}"
    python = made.versions.get("python")
    rows = (
        ("Machine", made.machine),
        (
            "Training in all",
            f"{seconds(spent)}, {made.processes} side by side, {_counted(made.threads, 'thread')} each",
        ),
        ("Versions", f"{versions}, Python {python}"),
        ("Written", made.written),
        (
            "Data and seeds",
            f"{_data(found)}, one split for all runs; seeds {', '.join(map(str, found.seeds))}",
        ),
    )
    return _table(("", ""), rows)


def _data(found: Comparison) -> str:
    if found.num_train is None or found.num_validation is None:
        return found.data
    numbers = number(found.num_train), number(found.num_validation)
    return f"{found.data}, {numbers[0]} images to train on and {numbers[1]} to validate"


def index(every: Sequence[Comparison]) -> str:
    """Return a line for each claim of all experiments as Markdown."""
    rows = []
    for found in every:
        for place, verdict in enumerate(found.verdicts):
            here, ends = _here(verdict)
            published = verdict.claim.published
            first = place == 0
            again = not first and published == found.verdicts[place - 1].claim.published
            rows.append(
                (
                    f"[{found.name}]({found.name}.md)" if first else "",
                    found.question if first else "",
                    verdict.claim.statement,
                    "" if again else published.figure if published else MISSING,
                    here if ends == MISSING else f"{here} ({ends})",
                    f"**{verdict.verdict}**",
                )
            )
    verdicts = [verdict.verdict for found in every for verdict in found.verdicts]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
    tried = f"{_counted(len(every), 'experiment')}, {_counted(len(verdicts), 'claim')}: {counts}."
    return _joined(
        [
            "# The notes' claims, tried",
            f"{tried} Every protocol was laid down before its results; sign and interval are reported "
            "whatever they are. Intervals (95 %) are over seeds on one split of small data: they say whether "
            "a sign holds there, not how large an effect is on ImageNet. Claims are judged one by one: of "
            "twenty true zeros, one is expected to look like more.",
            _table(("Experiment", "Question", "Claim", "Published", "Here (95 %)", "Verdict"), rows),
            "`convscope compare --list` lists them, `convscope compare NAME` runs one again, and "
            "`python docs/experiments.py FOLDER` writes its page. "
            "[How trainings are compared](../comparing.md).",
        ]
    ) + "\n"  # fmt: skip


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def kept(found: Comparison) -> str:
    """Return a comparison as JSON, without this machine's paths, and without curves if it would be large."""
    content = found.to_dict()
    content["folder"] = found.name
    for arm in content["arms"]:
        for run in arm["runs"]:
            run["folder"] = "/".join(Path(run["folder"]).parts[-3:])
    text = _json(content)
    for lighten in (_without_losses, _without_percentiles, _without_curves):
        if len(text.encode()) > MOST_BYTES:
            lighten(content)
            text = _json(content)
    return text


def _without_losses(content: dict[str, Any]) -> None:
    content["curves"] = [curve for curve in content["curves"] if curve["quantity"] == "validation_error"]


def _without_percentiles(content: dict[str, Any]) -> None:
    for arm in content["arms"]:
        arm["percentiles"] = []


def _without_curves(content: dict[str, Any]) -> None:
    content["curves"] = []


def _json(content: dict[str, Any]) -> str:
    stripped = _each_text(content)
    return json.dumps(stripped, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _each_text(value: Any) -> Any:
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, dict):
        return {key: _each_text(item) for key, item in value.items()}
    return [_each_text(item) for item in value] if isinstance(value, list) else value


def without_paths(text: str) -> str:
    """Return a text with absolute paths cut down to their last part.

    Example:
        >>> without_paths("convscope compare bn-speed --out /srv/runs/speed, 11x11/4 and 1 / 2")
        'convscope compare bn-speed --out speed, 11x11/4 and 1 / 2'
    """
    return _PATH.sub(r"\1", text)


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    print(f"docs/experiments/{path.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="of finished comparisons")
    try:
        main(parser.parse_args().folders)
    except ConvscopeError as error:
        raise SystemExit(f"docs/experiments.py: {error}") from error
