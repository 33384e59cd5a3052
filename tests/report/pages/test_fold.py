"""The fold's part of the page: what stayed, grouped by why, before what went."""

import re
from dataclasses import replace

import pytest

from convscope.fold.ledger import Ledger, LedgerEntry
from convscope.report.pages.report import page_html


@pytest.fixture
def section(report):
    """Return a function that gives the HTML of the section for some ledger entries and other fields."""

    def made(entries=None, **fields):
        folded = replace(report.folded, **fields)
        if entries is not None:
            folded = replace(folded, ledger=Ledger(tuple(entries)))
        html = page_html(replace(report, folded=folded))
        return re.search(r'<section id="fold".*?</section>', html, re.DOTALL)[0]

    return made


def kept(number, remedy="train with positive gammas"):
    reason = f"layer{number}.relu#1 passes a positive scale only"
    return LedgerEntry(f"layer{number}.bn#1", "kept", reason=reason, remedy=remedy)


def went(number, reason=""):
    return LedgerEntry(f"layer{number}.bn#1", "folded", f"layer{number}.conv#1", reason, 1e-16, 2.0)


def test_like_reasons_are_one_entry_with_every_name(section):
    html = section([*(kept(i) for i in range(12)), kept(12, remedy="another")])
    assert html.count('class="finding stayed"') == 2
    assert html.count("passes a positive scale only") == 2
    assert html.count("train with positive gammas") == 1
    for number in range(13):
        assert f">layer{number}.bn#1<" in html
    assert "and the others like these" in html
    assert "Gone" not in html


@pytest.mark.parametrize(("count", "is_open"), [(24, True), (25, False)])
def test_a_long_table_of_what_went_is_closed_at_first(section, count, is_open):
    html = section([went(i) for i in range(count)])
    assert ("<details open><summary><h3>Gone</h3>" in html) == is_open
    assert html.count("<tr>") >= count
    assert "Still there" not in html


def test_remarks_have_a_column_where_there_are_some(section):
    assert "Remark" not in section([went(0), kept(1)])
    html = section([went(0), went(1, "weights grew much")])
    assert "Remark" in html
    assert "weights grew much" in html


def test_what_stayed_comes_first_and_hostile_remedies_are_text(section, hostile):
    html = section()
    assert html.index("Still there") < html.index("Gone")
    assert hostile not in html
    assert "One operator &lt;/script&gt;" in html
    assert re.search(r"partial</span></span> <code>.*?bn3#1", html)
    assert re.search(r"its shift can&#39;t go</span>; into <code>.*?conv3#1", html)


def test_the_twin_or_why_there_is_none(section, report):
    assert "the time of a twin that never had a batch norm" in section()
    speed = replace(report.folded.speed, twin=None, ratio_to_twin=None, no_twin="bn is a function")
    html = section(speed=speed)
    assert "There is no twin without batch norm to compare with: " in html
    assert "bn is a function" in html
    assert "the time of a twin" not in html


def test_the_proof_s_verdict_is_in_the_first_sentence(section, report):
    proof = report.folded.proof
    assert "The outputs are the same: they differ by at most" in section()
    assert "<b>The outputs are not the same.</b>" in section(proof=replace(proof, passed=False))
    assert "Nothing was changed." in section(proof=replace(proof, trials=()))


def test_where_nothing_was_folded_no_proof_is_needed(section, report):
    proof = replace(report.folded.proof, trials=(), method="none needed: nothing was folded")
    html = section([kept(1)], proof=proof)
    assert "none needed: nothing was folded" in html
    assert "Allowed" not in html


def test_a_network_without_batch_norm_is_one_sentence(section, report):
    proof = replace(report.folded.proof, trials=())
    html = section([], proof=proof, speed=None)
    assert "This network has no batch norm." in html
    for word in ("Proof", "Speed", "Still there", "Gone", "folded away"):
        assert word not in html


def test_columns_are_explained_below_the_table(section):
    html = section([went(0)])
    after = html.partition("</table>")[2].partition("</table>")[2]
    assert "Weights ×: the largest factor |γ| / √(var + ε) on a channel’s weights" in after
    assert "Difference: relative, in double precision, at this place" in after


def test_merged_branches_explain_why_the_twin_may_be_slower(section):
    words = "which the twin still has"
    assert words not in section([went(0)])
    assert words in section([went(0), replace(went(1), verdict="merged")])
