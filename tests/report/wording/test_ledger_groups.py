import pytest

from convscope.fold.ledger import Ledger, LedgerEntry
from convscope.report.wording.ledger_groups import blocks, by_reason, gone, left, names, words


def entry(address, verdict="folded", reason="", **fields):
    return LedgerEntry(address, verdict, reason=reason, **fields)


def test_every_entry_is_in_one_of_the_two_parts():
    entries = tuple(entry(f"{v}#1", v) for v in ("kept", "folded", "partial", "merged"))
    ledger = Ledger(entries)
    assert [e.verdict for e in left(ledger)] == ["kept", "partial"]
    assert [e.verdict for e in gone(ledger)] == ["folded", "merged"]


def test_reasons_differ_by_words_not_by_places():
    entries = [
        entry("a.bn#1", "partial", "add at a.b#1:add.3 is read by a.c#1"),
        entry("a.bn#1", "kept", "add at a.b#1:add.3 is read by a.c#1"),
        entry("b.bn#1", "kept", "cat at b.b#1:cat.3 is read by a.c#1"),
        entry("c.bn#1", "kept", "add at layer3.17.b#2:add.12 is read by x#1"),
        entry("d.bn#1", "kept", "add at a.b#1:add.3 is read by a.c#1", remedy="another network"),
        entry("e.bn#1", "kept", "running_var goes down to -3.5e-05"),
        entry("f.bn#1", "kept", "running_var goes down to -1"),
        entry("g.bn#1", "kept", "running_var goes down to -2"),
    ]
    groups = [[e.address for e in group] for group in by_reason(entries, words)]
    assert groups[0] == ["e.bn#1", "f.bn#1", "g.bn#1"]
    assert groups[1] == ["a.bn#1", "c.bn#1"]
    assert sorted(groups[2:4]) == [["b.bn#1"], ["d.bn#1"]]
    assert groups[4:] == [["a.bn#1"]]


@pytest.mark.parametrize("most", [1, 3, 7, 20, 1000])
def test_blocks_hold_every_entry_once_and_are_few(most):
    entries = [entry(f"layer{i}.{j}.bn{k}#1", max_error=i + j / 10) for i in (1, 2, 3) for j in range(3)
               for k in (1, 2)]  # fmt: skip
    found = blocks(entries, most)
    assert len(found) <= most
    assert [e for block in found for e in block.entries] == entries
    assert max(block.largest("max_error") for block in found) == 3.2
    assert all(block.largest("magnification") is None for block in found)


def test_blocks_are_as_small_as_they_may_be():
    entries = [entry(f"layer{i}.{j}.bn{k}#1") for i in (1, 2) for j in range(3) for k in (1, 2)]
    assert [b.path for b in blocks(entries, 11)] == [f"layer{i}.{j}" for i in (1, 2) for j in range(3)]
    assert [b.path for b in blocks(entries, 5)] == ["layer1", "layer2"]
    assert [b.path for b in blocks(entries, 1)] == ["the whole network"]
    assert [b.path for b in blocks([entry("self#1:batch_norm.3")], 1)] == ["self#1:batch_norm.3"]


def test_few_names_are_all_told_and_many_by_what_they_have_in_common():
    assert names(f"a.{i}#1" for i in range(8)) == ", ".join(f"a.{i}#1" for i in range(8))
    many = [*(f"block2.layer{i}.norm1#1" for i in range(9)), "head3.norm#1", "head3.norm#2"]
    assert names(many) == "block2.layer*.norm1#1 (9 times), head3.norm#* (2 times)"
    assert names([f"a{i}#1" for i in range(8)] + ["b5#1"]) == "a*#1 (8 times), b5#1"
