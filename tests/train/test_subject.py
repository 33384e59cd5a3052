import pytest
import torch
from torch.utils.data import TensorDataset

from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.networks import load
from convscope.train.subject import image_sets, picture_side, subject_of
from train.toy import ToyData, toy_model

TINY = {"width": 0.05, "num_classes": 10, "input_shape": (1, 67, 71)}


def test_images_by_reference_have_the_networks_input_size():
    loaded = load("alexnet", **TINY)
    for network in (loaded, loaded.model):
        data = image_sets("digits", network)
        assert data.input_shape == (1, 67, 71)
    own = ToyData()
    assert image_sets(own, toy_model()) is own
    with pytest.raises(ConvscopeError, match="'digits' for a Sequential that doesn't say its input size"):
        image_sets("digits", toy_model())
    with pytest.raises(ConvscopeError, match="unknown data set 'digit'"):
        image_sets("digit", loaded)


def test_a_loaded_network_keeps_its_name_and_tells_how_images_were_prepared():
    loaded = load("zfnet", **TINY)
    data = load_data("digits", size=(67, 71), channels=1)
    subject = subject_of(loaded, data, 0)
    assert subject.model is loaded.model
    assert subject.name == "zfnet"
    assert subject.extras.class_names == data.classes
    assert subject.extras.preprocessing.mean == data.mean
    assert subject.extras.preprocessing.size == (67, 71)
    assert subject_of(loaded.model, data, 0).name == type(loaded.model).__name__
    assert subject_of(loaded, ToyData(), 0).extras.preprocessing == loaded.preprocessing


@pytest.mark.slow
def test_a_referenced_network_depends_on_the_seed_alone():
    data = ToyData()
    data.validation.images = torch.zeros(17, 3, 67, 67)
    state = torch.get_rng_state()
    one, same, other = (subject_of("zfnet", data, seed).model.state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    first = next(name for name in one if name.endswith("weight"))
    assert one[first].shape[1:] != ()
    assert torch.equal(one[first], same[first])
    assert not torch.equal(one[first], other[first])


def test_pictures_are_larger_than_the_windows_that_are_cut_of_them():
    loaded = load("alexnet", **TINY)
    data = image_sets("digits", loaded, crop=67)
    assert data.input_shape == (1, 80, 80)
    subject = subject_of(loaded, data, 0, crop=67)
    assert subject.extras.preprocessing.size == (67, 67)
    # What the file says leads back to pictures of 80 pixels.
    assert int(67 / subject.extras.preprocessing.crop_pct + 1e-6) == 80
    assert [picture_side(crop) for crop in (224, 227, 8, 16)] == [256, 256, 9, 18]


@pytest.mark.slow
def test_a_referenced_network_is_built_for_the_windows():
    data = load_data("digits", size=80, channels=3, per_class=2)
    assert subject_of("alexnet", data, 0, crop=72).model.plan.input_shape == (3, 72, 72)


def test_data_sets_of_pytorch_are_fitted_to_the_network():
    labels = torch.arange(40) % 4
    pictures = TensorDataset((50 * labels).to(torch.uint8)[:, None, None, None].expand(40, 1, 20, 20), labels)
    loaded = load("alexnet", **TINY)
    data = image_sets(pictures, loaded)
    assert data.input_shape == (1, 67, 71)
    assert len(data.train) + len(data.validation) == 40
    with pytest.raises(ConvscopeError, match="data of a TensorDataset for a Sequential that doesn't say"):
        image_sets(pictures, toy_model())
    with pytest.raises(ConvscopeError):
        image_sets(42, loaded)
