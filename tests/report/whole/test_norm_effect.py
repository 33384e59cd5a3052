from dataclasses import replace

from convscope.report.whole.norm_effect import norm_effect
from convscope.train.run import Divergence


def test_numbers_are_those_of_the_runs(make_run):
    found = norm_effect("batch", make_run("a", (0.3, 0.9, 0.8)), make_run("b", (0.1, 0.4, 0.35)), 500)
    assert (found.accuracy, found.twin_accuracy) == (0.8, 0.35)
    assert (found.best_accuracy, found.twin_best_accuracy) == (0.9, 0.4)
    assert found.epochs_to_twin == 2


def test_the_finding_counts_images(make_run):
    found = norm_effect("batch", make_run("a", (0.9,)), make_run("b", (0.4,)), 500).findings
    assert [f.fault for f in found] == ["normalisation-effect"]
    assert "250 images more" in found[0].why
    assert [e.value for e in found[0].evidence] == [0.9, 0.4, 1]


def test_a_normalisation_that_did_worse_is_not_praised(make_run):
    found = norm_effect("batch", make_run("a", (0.4,)), make_run("b", (0.9,)), 100)
    assert "50 images fewer" in found.findings[0].why
    assert "as good as" not in found.findings[0].why
    assert found.epochs_to_twin is None


def test_a_run_alone_claims_nothing(make_run):
    found = norm_effect("none", make_run("a", (0.4,)), None, 100)
    assert found.findings == ()
    assert found.twin_accuracy is None


def test_divergence_is_a_warning_and_a_run_without_epochs_has_no_accuracy(make_run):
    diverged = Divergence(3, 1, float("nan"), 0.5)
    found = norm_effect("batch", make_run("a", ()), make_run("b", (), diverged), 100)
    assert [(f.fault, f.severity) for f in found.findings] == [("diverged", "warning")]
    assert "Without batch norm" in found.findings[0].why
    assert found.accuracy is None


def test_overfitting_is_named_with_its_losses(make_run):
    run = make_run("a", (0.7,))
    fitted = replace(run, epochs=(replace(run.epochs[0], train_loss=0.05, validation_loss=1.57),))
    (found,) = norm_effect("batch", fitted, None, 100).findings
    assert (found.fault, found.severity) == ("overfitting", "advice")
    assert [e.value for e in found.evidence] == [0.05, 1.57]
    even = replace(run, epochs=(replace(run.epochs[0], train_loss=1.2, validation_loss=1.57),))
    assert norm_effect("batch", even, None, 100).findings == ()
