"""Leaving inference mode, and coming back to it."""

import pytest
import torch

from convscope.core.inference import outside_inference_mode


def test_inside_and_after():
    with torch.inference_mode():
        with outside_inference_mode():
            x = torch.ones(2, requires_grad=True)
            assert (x * 2).requires_grad
        assert torch.is_inference_mode_enabled()
        with pytest.raises(OSError), outside_inference_mode():
            raise OSError
        assert torch.is_inference_mode_enabled()


def test_elsewhere_gradients_stay_off():
    with torch.no_grad(), outside_inference_mode():
        assert not torch.is_grad_enabled()
