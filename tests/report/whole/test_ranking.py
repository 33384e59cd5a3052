from convscope.core.finding import Evidence, Finding
from convscope.report.whole.ranking import READINGS, rank


def finding(fault, severity="info", address="a"):
    return Finding(fault, severity, address, (Evidence("x", 1, "1"),), "because 1")


def test_severity_goes_first_whatever_the_reading():
    found = rank(
        {
            "checkup": [finding("fact")],
            "cost": [finding("broken", "error")],
            "stem": [finding("odd", "warning")],
        }
    )
    assert [r.finding.fault for r in found] == ["broken", "odd", "fact"]
    assert [r.rank for r in found] == [1, 2, 3]


def test_readings_take_turns_among_equals():
    found = rank(
        {
            "cost": [finding(f"cost{i}") for i in range(9)],
            "fold": [finding("fold")],
            "training": [finding("gap")],
        }
    )
    assert [r.finding.fault for r in found] == ["gap", "fold", "cost0", "cost1", "cost2"]


def test_the_same_fault_in_many_places_is_one_entry_that_says_so():
    found = rank(
        {"checkup": [finding("stale", "error", f"bn{i}") for i in range(7)] + [finding("dead", "error")]}
    )
    assert [(r.finding.fault, r.finding.address, r.alike) for r in found] == [
        ("stale", "bn0", 6),
        ("dead", "a", 0),
    ]
    assert "6 more like it" in found[0].reason
    assert "more like it" not in found[1].reason


def test_the_same_fault_in_two_severities_is_two_entries():
    found = rank({"checkup": [finding("stale", "error"), finding("stale", "advice")]})
    assert [(r.finding.severity, r.alike) for r in found] == [("error", 0), ("advice", 0)]


def test_nothing_found_is_no_entry_and_all_readings_are_known():
    assert rank({}) == ()
    assert len(rank({name: [finding(name)] for name in READINGS}, most=99)) == len(READINGS)


def test_the_order_does_not_depend_on_the_order_of_the_readings():
    readings = {name: [finding(name, "warning"), finding(name + "2")] for name in READINGS}
    assert rank(readings) == rank(dict(reversed(readings.items())))
