"""``project`` against the oracle on 63 networks of timm and torchvision, in float64, by every rule."""

import pytest
import torch
from bench.sight_networks import NETWORKS, build, spot

from convscope.core.errors import ConvscopeError
from convscope.sight import project
from sight.oracle import layers
from sight.oracle_gates import NoRuleError
from sight.unjudged import unjudged
from zoo import staged

RULES = ("deconvnet", "guided", "gated", "gradient")
TOLERANCE = 1e-12
# What is unlike in their activations, gates, norms and pools; the others come with `make zoo`.
BRIEF = [
    "tv/alexnet", "tv/googlenet", "tv/mobilenet_v3_small", "tv/shufflenet_v2_x0_5", "tv/squeezenet1_1",
    "convnext_atto", "convnextv2_atto", "cs3darknet_focus_s", "edgenext_xx_small", "efficientvit_b0",
    "ese_vovnet19b_slim", "ghostnet_050", "lambda_resnet26t", "mobilevit_xxs", "poolformer_s12",
    "regnety_002", "resnest14d", "rexnet_100", "skresnet18", "starnet_s050",
]  # fmt: skip
# By the deepest rule that passes what lies on the way; whatever isn't here is passed by all.
ONLY_GATED = {
    "tv/convnext_tiny", "tv/efficientnet_b0", "tv/mobilenet_v2", "tv/mobilenet_v3_small", "convnext_atto",
    "convnextv2_atto", "cs3darknet_focus_s", "cspresnet50", "dpn48b", "eca_nfnet_l0", "edgenext_xx_small",
    "efficientnet_lite0", "fasternet_t0", "fastvit_t8", "gcresnet33ts", "hardcorenas_a",
    "inception_next_atto", "lcnet_035", "mixnet_s", "mobilevit_xxs", "poolformer_s12", "regnetz_005",
    "repvit_m0_9", "rexnet_100", "test_maxvit", "tf_efficientnet_b0", "tresnet_m", "visformer_tiny",
}  # fmt: skip
# Products of two values made of the image neither of which is a gate: linear attention, q · k, x · y.
ONLY_GRADIENT = {"efficientvit_b0", "lambda_resnet26t", "mambaout_femto", "starnet_s050"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", staged(NETWORKS, BRIEF))
def test_a_network_is_projected_as_by_the_oracle(name):
    network, image = build(name)
    found = spot(network, image)
    refused = {"deconvnet", "guided"} if name in ONLY_GATED | ONLY_GRADIENT else set()
    refused |= {"gated"} if name in ONLY_GRADIENT else set()
    for rule in RULES:
        answer = layers(network, image, [found.layer], rule)[found.layer]
        asked = (network, image, found.layer, found.unit, rule, found.position)
        if rule in refused:
            with pytest.raises(NoRuleError):
                answer.project(found.unit, found.position)
            with unjudged(), pytest.raises(ConvscopeError, match="rule"):
                project(*asked)
            continue
        expected = answer.project(found.unit, found.position).permute(1, 2, 0)
        with unjudged():
            given = project(*asked).image
        assert torch.count_nonzero(expected) > 0
        assert (given - expected).abs().max() <= TOLERANCE * expected.abs().max(), rule


@pytest.mark.whole_zoo
def test_there_are_at_least_forty_networks():
    assert len(set(NETWORKS) - ONLY_GATED - ONLY_GRADIENT) >= 25
    assert len(set(NETWORKS) - ONLY_GRADIENT) >= 40
    assert set(BRIEF) | ONLY_GATED | ONLY_GRADIENT <= set(NETWORKS)
