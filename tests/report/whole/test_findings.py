from dataclasses import replace

from convscope.fold.ledger import Ledger, LedgerEntry
from convscope.report.whole.findings import findings_of, fold_findings


def test_a_fold_counts_and_a_batch_norm_that_stays_is_advice(folded):
    found = fold_findings(folded)
    assert [(f.fault, f.severity) for f in found] == [("fold", "info"), ("not-folded", "advice")]
    assert "1 of 3 batch norms" in found[0].why
    assert [e.value for e in found[0].evidence] == [1, 3.4e-16, 1.25, 1.21, 1.31, 1.02]
    assert "2 of 3 batch norms still run" in found[1].why
    assert "Its input is read by 2 operators." in found[1].why
    assert found[1].remedy.startswith("One operator")


def test_without_a_twin_and_a_remedy_there_is_less_to_say(folded):
    entries = tuple(replace(entry, remedy="") for entry in folded.ledger.entries)
    speed = replace(folded.speed, twin=None, ratio_to_twin=None, no_twin="it has none")
    found = fold_findings(replace(folded, ledger=Ledger(entries), speed=speed))
    assert [e.value for e in found[0].evidence] == [1, 3.4e-16, 1.25, 1.21, 1.31]
    assert found[1].remedy == "The ledger says for each why it stayed."


def test_without_batch_norms_there_is_nothing_to_say(folded):
    assert fold_findings(replace(folded, ledger=Ledger(()))) == ()


def test_without_a_measurement_no_speed_is_claimed(folded):
    found = fold_findings(
        replace(folded, speed=None, ledger=Ledger((LedgerEntry("bn#1", "folded", "conv#1"),)))
    )
    assert len(found) == 1
    assert "times as fast" not in found[0].why


def test_every_reading_is_heard(report):
    found = findings_of(report)
    assert {name for name, findings in found.items() if findings} == {
        "checkup", "training", "fold", "stem", "gallery", "cost",
    }  # fmt: skip


def test_readings_that_are_missing_have_no_findings(report):
    bare = replace(report, training=None, checkup=None, folded=None, stem=None, gallery=None, published=None)
    assert {name for name, findings in findings_of(bare).items() if findings} == {"cost"}


def test_a_speed_that_could_be_chance_is_not_claimed(folded):
    noisy = replace(folded.speed, speedup=1.08, speedup_low=0.9, speedup_high=1.66)
    slower = replace(folded.speed, speedup=0.8, speedup_low=0.7, speedup_high=0.9)
    assert "doesn't stand out" in fold_findings(replace(folded, speed=noisy))[0].why
    assert "slower" in fold_findings(replace(folded, speed=slower))[0].why
    assert "1.25 times as fast" in fold_findings(folded)[0].why
