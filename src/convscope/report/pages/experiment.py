"""A comparison of trainings as one page that opens offline: claims, arms, curves, and how it was made."""

import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from convscope.core.result import renders_page
from convscope.report.charts.experiment import experiment_charts
from convscope.report.pages.environment import page_environment
from convscope.report.pages.fields import Fields, script_json
from convscope.report.pages.offline import chart_scripts, policy, static_text
from convscope.report.wording.experiment_settings import compared, facts_of, heading, last_part, listed
from convscope.report.wording.intervals import bounded, caution, form_of, kind_of_p, span, written
from convscope.train.comparing import Comparison, Verdict
from convscope.train.comparing.result import Difference

_STYLES = """
.experiment .verdict h2 { font-size: 1rem; color: var(--ink); font-weight: 600; }
@media (max-width: 40rem) { .experiment .verdicts { grid-template-columns: minmax(0, 1fr); } }
.experiment .verdict .big { font-size: 1.25rem; }
.experiment .verdict p + p { margin-top: .5rem; }
.experiment .verdict .figure-here { font-variant-numeric: tabular-nums; }
.experiment td.nowrap { white-space: nowrap; }
.experiment tbody th { min-width: 7rem; }
.experiment pre { white-space: pre-wrap; overflow-wrap: anywhere; font: .88em/1.5 var(--mono); }
.experiment .figure { margin-bottom: 0; }
.experiment .chart > details { margin: 0; }
.experiment .protocol { max-width: 46em; white-space: pre-line; }
.experiment .vega-bindings { font-size: .88em; color: var(--soft); display: flex; flex-wrap: wrap;
  gap: .2rem 1.2rem; }
"""
_WORDS = {"supported": "good", "contradicted": "bad"}


@renders_page(Comparison)
def experiment_html(found: Comparison) -> str:
    """Return the page of a comparison, for the folder in which its runs lie.

    Every number on it is written from the JSON that it holds.
    """
    plain = _movable(found)
    data: dict[str, Any] = {
        "comparison": plain,
        "missing": [],
        "written": {
            "heading": found.name if found.question else heading(found),
            "facts": [{"name": name.capitalize(), "value": value} for name, value in facts_of(found)],
            "own": [
                {"arm": name, "value": listed(own) or "the defaults"}
                for name, own in compared(found.arms).own.items()
                if len(found.arms) > 1
            ],
            "caution": caution(found),
            "verdicts": [_verdict(verdict) for verdict in found.verdicts],
            "differences": [_difference(difference) for difference in found.differences],
            "errors": [span(arm.final_error, "percent") for arm in found.arms],
            "gaps": [written(arm.gap, "points") for arm in found.arms],
            "seconds": sum(run.seconds for arm in found.arms for run in arm.runs),
        },
    }
    scripts = chart_scripts()
    specs = experiment_charts(plain)
    return (
        page_environment(Fields(data))
        .get_template("experiment_page.html.j2")
        .render(
            css=Markup(static_text("page.css") + _STYLES),
            policy=policy(scripts),
            scripts=[Markup(script) for script in scripts],
            data=script_json(data),
            charts=specs,
            charts_json=script_json(specs),
            percentiles=[name for name in specs if name.startswith("percentiles-")],
        )
    )


def _movable(found: Comparison) -> dict[str, Any]:
    """A comparison as plain values whose folders are relative to it: a page may be moved with its folder.

    Of references with a path the last part is kept.
    """
    plain = found.to_dict()
    plain["data"] = last_part(plain["data"])
    for arm in plain["arms"]:
        arm["network"] = last_part(arm["network"])
        for run in arm["runs"]:
            run["folder"] = Path(os.path.relpath(run["folder"], found.folder)).as_posix()
    del plain["folder"]
    return plain


def _verdict(verdict: Verdict) -> dict[str, str]:
    measure = verdict.claim.measure
    form = form_of(measure.quantity, measure.scale)
    return {
        "mean": bounded(verdict.interval, form, verdict.bound),
        "span": span(verdict.interval, form, verdict.bound),
        "p": kind_of_p(verdict),
        "word": _WORDS.get(verdict.verdict, "warn"),
    }


def _difference(difference: Difference) -> dict[str, str]:
    form = form_of(difference.quantity, difference.scale)
    return {
        "mean": bounded(difference.interval, form, difference.bound),
        "span": span(difference.interval, form, difference.bound),
    }
