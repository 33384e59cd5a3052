"""Blocks of Python that show no output run; other tests here run those that show it, and compare it."""

import re
import sys
from collections import OrderedDict
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import convscope
import convscope as cs
import convscope.fold
from convscope.checkup.judging.faults import registry
from convscope.cost.arithmetic import elementwise, flops
from docs import reader
from docs.commands import DOCS, PAGES, ROOT

README = ROOT / "README.md"
TABLES = (elementwise._OPERATIONS._rules, flops._MACS._rules, flops._BACKWARD._rules, registry._RULES)
ELSEWHERE = {
    "Trainer(": "tests/checkup/watching/test_lightning.py",
    "Experiment(": "tests/docs/test_comparing.py",
}
"""What needs more, or is judged beside this file: where."""
SHORTER = {
    "seeds=5,": "seeds=2, processes=0,",
    '"epochs": 10': '"epochs": 1',
    '"width": 0.25': '"width": 0.02',
    "batch=32": "batch=2",
}
"""What is replaced, so that a comparison and a proof don't take minutes."""


def _blocks(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [code for code in blocks if ">>>" not in code and not any(mark in code for mark in ELSEWHERE)]


BLOCKS = [
    pytest.param(
        page, code, id=f"{page.relative_to(ROOT).as_posix()}, {number}", marks=[pytest.mark.slow] * slow
    )
    for page in PAGES
    for number, code in enumerate(_blocks(page), start=1)
    for slow in [any(mark in code for mark in ("resnet50", "compare("))]
]


@pytest.fixture(autouse=True)
def rules_as_they_were():
    """Some blocks register a rule."""
    before = [dict(table) for table in TABLES]
    yield
    for table, held in zip(TABLES, before, strict=True):
        table.clear()
        table.update(held)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """The names that the pages take for granted."""
    monkeypatch.chdir(tmp_path)
    net = ModuleType("net")
    exec(reader.NETWORK, net.__dict__)
    monkeypatch.setitem(sys.modules, "net", net)
    model, _ = net.build()
    pixels, labels = torch.randn(64, 3, 20, 20), torch.arange(64) % 4
    loader = DataLoader(TensorDataset(pixels, labels), batch_size=16, shuffle=True)
    return {
        "cs": cs, "model": model, "inputs": (16, 3, 20, 20), "plan": cs.TrainingPlan(), "loader": loader,
        "images": pixels, "other_domain": loader, "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
        "labels": labels, "torch": torch, "train": _train,
    }  # fmt: skip


def _train(model, optimizer, loader):
    for pixels, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(pixels), labels).backward()
        optimizer.step()


@pytest.mark.parametrize(("page", "code"), BLOCKS)
def test_a_block_runs(page, code, given, capsys):
    for old, new in SHORTER.items():
        code = code.replace(old, new)
    exec(compile(code, str(page), "exec"), given)
    for name, tested in list(given.items()):
        if name.startswith("test_"):
            tested()
    if page == README:  # whose comment says how many batch norms are folded
        assert re.search(r"^53 \d\.\d+e-\d+$", capsys.readouterr().out, re.MULTILINE)


def test_there_are_such_blocks():
    pages = {each.values[0].relative_to(ROOT).as_posix() for each in BLOCKS}
    assert pages == {"README.md"} | {
        f"docs/{page}.md" for page in ("checkup", "comparing", "flops", "gate", "memory", "normalisation")
    }
    assert len(BLOCKS) == 11


def test_where_another_block_is_run_it_is():
    texts = [page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")]
    for mark, place in ELSEWHERE.items():
        assert any(mark in text for text in texts)
        assert mark in (ROOT / place).read_text(encoding="utf-8")


CALLS = re.findall(r"`([^`|]+)` \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
LONG = ("cs.train(", "cs.compare(", "cs.report(", "convscope.report.report_pair(")
"""What trains: tests/train and tests/report call it with less."""
RUN = [call for call in CALLS if "..." not in call and not call.startswith(("with ", "convscope ", *LONG))]


def _named():
    """A network that has the modules which the README's calls name."""
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    features = nn.Sequential(OrderedDict(relu2=nn.ReLU()))
    return nn.Sequential(OrderedDict(backbone=backbone, features=features, head=head))


@pytest.mark.parametrize("call", RUN)
def test_a_call_of_the_readmes_table_runs(call, given):
    names = {**given, "convscope": convscope, "model": _named(), "image": given["images"][0], "epoch": 1}
    if "compare_galleries" in call:
        for folder in ("before", "after"):
            cs.gallery(names["model"], names["images"], out=folder)
    assert eval(call, names) is not None or "after_epoch" in call


def test_there_are_such_calls():
    assert len(CALLS) > 28
    assert len(RUN) > 20
