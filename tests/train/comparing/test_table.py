"""Arms from choices: names, folders, identities, and what is refused."""

import pytest

from convscope.core.errors import ConvscopeError
from convscope.train import TrainConfig
from convscope.train.comparing import Arm, Table, table_of
from convscope.train.comparing.table import as_seeds


def test_names_say_what_was_chosen():
    table = table_of(
        "zfnet", "digits",
        {"norm": ["none", "group"], "nesterov": [True, False], "clip_grad_norm": ["none", 1.0]},
    )  # fmt: skip
    assert table.arms[0].name == "no norm, nesterov, no clip grad norm"
    assert table.arms[-1].name == "group, no nesterov, clip grad norm 1"
    assert table.arms[0].config.clip_grad_norm is None
    assert table.arms[-1].folder == "group-no-nesterov-clip-grad-norm-1"


def test_the_first_seed_comes_first_so_that_pairs_become_whole_early():
    table = table_of("zfnet", "digits", {"norm": ["none", "batch"]}, seeds=[3, 5])
    assert [(run.arm.name, run.seed) for run in table.runs("x")] == [
        ("no norm", 3), ("batch", 3), ("no norm", 5), ("batch", 5),
    ]  # fmt: skip


def test_an_arm_stays_itself_whatever_decides_no_weights():
    plain = Arm("a", "zfnet", {"hidden": (3, 4)}, TrainConfig())
    other = Arm("a", "zfnet", {"hidden": [3, 4]}, TrainConfig(seed=4, num_workers=2, log_every=3))
    assert plain.identity() == other.identity()
    assert plain.identity() != Arm("a", "zfnet", {"hidden": (3, 4)}, TrainConfig(epochs=3)).identity()


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"lerning_rate": [1]}, "did you mean 'learning_rate'"),
        ({"seed": [1, 2]}, "seeds=5"),
        ({"learning_rate": 0.1}, "a list of different values"),
        ({"epochs": [0]}, "whole number from 1"),
        ({"network": [3]}, "a reference such as"),
        ({"norm": ["none", "bach"]}, "zfnet: norm='bach'; expected one of .*; did you mean 'batch'"),
        ({"stem": ["7x7/2", "11x11"]}, "did you mean '11x11/4'"),
        ({"optimizer": ["sgd", "adm"]}, "optimizer='adm'; expected one of .*; did you mean 'adam'"),
    ],
)
def test_impossible_choices(choices, said):
    with pytest.raises(ConvscopeError, match=said):
        table_of("zfnet", "digits", choices)


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ({"learning_rate": 0.3}, {}, r"learning_rate both as a choice \(0.1, 0.2\) and as setting .*=0.3"),
        ({}, {"norm": "lrn"}, r"norm both as a choice \(none, batch\) and as option norm=lrn"),
    ],
)
def test_what_is_chosen_cant_also_be_the_same_in_all_arms(settings, options, said):
    choices = {"norm": ["none", "batch"], "learning_rate": [0.1, 0.2]}
    with pytest.raises(ConvscopeError, match=f"{said}; expected .*; take one of them out"):
        table_of("zfnet", "digits", choices, settings=settings, options=options)


def test_a_network_beside_a_choice_of_others_would_be_dropped_and_is_refused():
    choices = {"network": ["alexnet", "timm:resnet18"]}
    said = "network 'zfnet' beside the choice network=alexnet, timm:resnet18; expected .*; add zfnet to the"
    with pytest.raises(ConvscopeError, match=said):
        table_of("zfnet", "digits", choices)
    for network in ("", "alexnet"):
        names = [arm.network for arm in table_of(network, "digits", choices).arms]
        assert names == choices["network"]


def test_a_misspelt_setting_isnt_taken_for_an_option_of_a_foreign_network():
    with pytest.raises(ConvscopeError, match="did you mean 'learning_rate'"):
        table_of("timm:resnet18", "digits", {"learning_rte": [0.1, 0.2]})
    assert table_of("timm:resnet18", "digits", {"drop_rate": [0.1]}).arms[0].options == {"drop_rate": 0.1}


@pytest.mark.parametrize("seeds", [0, -1, True, "5", [], [1, 1], [-1], [0.5]])
def test_impossible_seeds(seeds):
    with pytest.raises(ConvscopeError, match="five seeds or more"):
        as_seeds(seeds)


def test_impossible_tables():
    arm = Arm("a", "zfnet")
    with pytest.raises(ConvscopeError, match="two arms"):
        Table("digits", (arm, arm))
    with pytest.raises(ConvscopeError, match="would share the folder 'a'"):
        Table("digits", (arm, Arm("a!", "zfnet")))
    with pytest.raises(ConvscopeError, match="'b'"):
        Table("digits", (arm,), baseline="b")
    with pytest.raises(ConvscopeError, match="without arms"):
        Table("digits", ())


def test_folders_stay_inside_and_fit_a_file_system():
    for name in ("../../etc", "/abs", "..", "a/b", "λ → 日本", "x" * 400, "日" * 200):
        folder = Arm(name, "zfnet").folder
        assert "/" not in folder
        assert not folder.startswith(".")
        assert 0 < len(folder.encode()) <= 200
    assert Arm("x" * 400, "zfnet").folder != Arm("x" * 401, "zfnet").folder


@pytest.mark.parametrize("names", [("a b", "a-b"), ("A", "a"), ("💥", "🙂")])
def test_arms_that_would_share_a_folder_are_told_by_both_names(names):
    with pytest.raises(ConvscopeError) as caught:
        Table("digits", tuple(Arm(name, "zfnet") for name in names))
    assert all(repr(name) in str(caught.value) for name in names)


def test_close_rates_have_names_of_their_own():
    arms = table_of("zfnet", "digits", {"learning_rate": [0.1, 0.1000001]}).arms
    assert [arm.name for arm in arms] == ["lr 0.1", "lr 0.1000001"]
