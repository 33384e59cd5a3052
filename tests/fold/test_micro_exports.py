"""Folded micro cases under torch.export and torch.jit.script, wherever the network itself goes through."""

import copy
import warnings

import pytest
import torch

from fold.micro.oracle import first_dtype, outputs_of
from fold.micro.table import CASES, done, every_case


@pytest.mark.slow
@every_case
def test_folded_model_exports_where_the_network_does(name):
    case, result = CASES[name], done(name)
    x = torch.randn(case.shape, dtype=first_dtype(result.net))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.export.export(result.net, (x,))
        except Exception:
            pytest.skip("the network doesn't export")
        exported = torch.export.export(result.folded.model, (x,)).module()
    expected, given = outputs_of(result.folded.model, x.clone()), outputs_of(exported, x.clone())
    for y, y0 in zip(given, expected, strict=True):
        torch.testing.assert_close(y, y0)


@pytest.mark.slow
@every_case
def test_folded_model_scripts_where_the_network_does(name):
    case, result = CASES[name], done(name)
    x = torch.randn(case.shape, dtype=first_dtype(result.net))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.jit.script(copy.deepcopy(result.net))(x.clone())
        except Exception:
            pytest.skip("the network doesn't script")
        scripted = torch.jit.script(copy.deepcopy(result.folded.model))
    expected, given = outputs_of(result.folded.model, x.clone()), outputs_of(scripted, x.clone())
    for y, y0 in zip(given, expected, strict=True):
        torch.testing.assert_close(y, y0)
