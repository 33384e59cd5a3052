import json

from torch import nn

import convscope as cs
from convscope.fold import Ledger, LedgerEntry, fold


def test_counts():
    entries = [
        LedgerEntry(str(i), verdict)
        for i, verdict in enumerate(("folded", "kept", "merged", "partial", "kept"))
    ]
    ledger = Ledger(tuple(entries))
    assert (ledger.folded, ledger.merged, ledger.partial, ledger.kept) == (1, 1, 1, 2)


def test_json_has_everything_but_the_model():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.BatchNorm2d(4), nn.Sigmoid())
    data = json.loads(fold(net.eval(), (2, 3, 6, 5)).to_json())
    assert data["schema_version"] == 1
    assert "model" not in data
    assert (data["ledger"]["folded"], data["ledger"]["kept"]) == (1, 1)
    assert data["ledger"]["entries"][0]["into"] == "0#1"
    assert data["ledger"]["entries"][1]["max_error"] is None
    assert data["proof"]["passed"] is True
    assert data["max_error"] == data["proof"]["errors"][0]["max_error"] < 1e-12


def test_the_room_is_its_verb():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    assert cs.fold(net, (1, 3, 6, 5)).ledger.folded == 1
    assert cs.fold.Ledger is Ledger
