"""The network's graph against graphs drawn by hand: nodes, edges, groups, and sums of the table."""

import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from convscope.checkup import checkup
from convscope.cost import cost_of, measure
from convscope.data import load_data
from convscope.report import report as report_on
from convscope.report.graph.network import MOST_AT_START, SUMMED, graph_of
from convscope.report.pages.graph import graph_marks, listed
from convscope.report.pages.report import page_html
from convscope.report.whole.result import Report
from convscope.report.wording.formats import FORMATS
from convscope.tape import TrainingPlan, record
from report.graphs import Listed, Residual, Twice, chain, read, with_graph

PLAN = TrainingPlan()
NETWORKS = {
    "residual": (Residual, (2, 4, 8, 8)),
    "twice": (Twice, (2, 3, 8, 8)),
    "listed": (Listed, (2, 4, 8, 8)),
    "conv alone": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
    "chain of 500": (lambda: chain(500), (2, 4, 8, 8)),
}


def edges(graph):
    """The edges as (source's address, target's address), in order of the targets."""
    found = [(edge.target, edge.source, edge) for edge in graph.edges]
    return [
        (graph.nodes[s].address, graph.nodes[t].address) for t, s, _ in sorted(found, key=lambda e: e[:2])
    ]


def seen(graph, group=-1):
    """The nodes that are seen at first."""
    children = graph.children()
    if group in children and (group < 0 or group in graph.opened):
        return [each for child in children[group] for each in seen(graph, child)]
    return [group]


def at(graph, address):
    return next(node for node in graph.nodes if node.address == address)


def test_a_chain_has_an_edge_from_each_layer_to_the_next():
    _, graph = read(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)), (2, 3, 8, 8))
    assert [(node.address, node.kind, node.name) for node in graph.nodes] == [
        ("input", "input", "input"),
        ("0#1", "layer", "0"),
        ("1#1", "layer", "1"),
        ("2#1", "layer", "2"),
    ]
    assert edges(graph) == [("input", "0#1"), ("0#1", "1#1"), ("1#1", "2#1")]
    assert [edge.shapes for edge in graph.edges] == [((2, 3, 8, 8),), ((2, 8, 6, 6),), ((2, 8, 6, 6),)]


def test_additions_concatenations_and_functions_are_nodes_views_are_edges():
    _, graph = read(Residual(), (2, 4, 8, 8))
    assert edges(graph) == [
        ("input", "conv#1"),
        ("conv#1", "bn#1"),
        ("input", "self#1:add_.1"),
        ("bn#1", "self#1:add_.1"),
        ("input", "self#1:cat.1"),
        ("self#1:add_.1", "self#1:cat.1"),
        ("self#1:cat.1", "self#1:convolution.1"),
        ("self#1:convolution.1", "fc#1"),
    ]
    last = next(edge for edge in graph.edges if graph.nodes[edge.target].address == "fc#1")
    assert last.shapes == ((2, 72),)  # as it is read, behind the view
    assert [node.name for node in graph.nodes] == ["input", "conv", "bn", "add", "cat", "convolution", "fc"]


def test_a_module_that_is_called_twice_has_two_nodes():
    _, graph = read(Twice(), (2, 3, 8, 8))
    groups = [(node.address, node.num_layers) for node in graph.nodes if node.kind == "module"]
    assert groups == [("body#1", 2), ("body#2", 2), ("head#1", 3)]
    assert ("body.1#1", "body.0#2") in edges(graph)
    assert [at(graph, f"body.0#{call}").name for call in (1, 2)] == ["body.0", "body.0 (call 2)"]
    assert [at(graph, f"body#{call}").params for call in (1, 2)] == [
        4 * 4 * 9 + 4,
        0,
    ]  # shared ones count once


class Recurrent(nn.Module):
    """A norm that is called twice, and a state that is kept in a buffer and read by the second call."""

    def __init__(self):
        super().__init__()
        self.norm, self.cell = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.register_buffer("state", torch.zeros(2, 4, 8, 8))

    def forward(self, x):
        self.state.copy_(self.cell(self.norm(x)).detach())
        return self.cell(self.norm(x.relu())) + self.state


def test_what_a_norm_keeps_of_its_batches_is_no_edge_but_a_state_is():
    _, graph = read(Recurrent(), (2, 4, 8, 8))
    assert ("norm#1", "norm#2") not in edges(graph)
    assert ("cell#1", "self#1:add.1") in edges(graph)


def test_containers_that_are_not_called_are_groups_of_their_own():
    _, graph = read(Listed(), (2, 4, 8, 8))
    tree = [
        (node.address, node.kind, graph.nodes[node.parent].address)
        for node in graph.nodes
        if node.parent >= 0
    ]
    assert tree[:3] == [("stages.0#1", "module", "stages"), ("stages.0.0#1", "layer", "stages.0#1"),
                        ("stages.0.1#1", "layer", "stages.0#1")]  # fmt: skip
    assert at(graph, "stages").kind == "list"
    assert at(graph, "stages").num_layers == 9
    assert at(graph, "stages").output_shape == (2, 4, 8, 8)


def test_several_inputs_and_a_layer_that_reads_two_values_of_one():
    class Pair(nn.Module):
        def forward(self, a, b):
            first, second = torch.relu(torch.cat([a, b], 1)).chunk(2, 1)
            return first * second

    _, graph = read(Pair(), (torch.zeros(2, 3), torch.zeros(2, 5)))
    assert [node.address for node in graph.nodes if node.kind == "input"] == ["input 1", "input 2"]
    into_cat = {edge.shapes for edge in graph.edges if graph.nodes[edge.target].name == "cat"}
    assert into_cat == {((2, 3),), ((2, 5),)}
    (product,) = [edge for edge in graph.edges if graph.nodes[edge.target].name == "mul"]
    assert product.shapes == ((2, 4), (2, 4))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("plan", [None, PLAN], ids=["inference", "training"])
def test_every_row_is_one_layer_and_sums_are_the_table_s(name, plan):
    make, shape = NETWORKS[name]
    cost, graph = read(make(), shape, plan)
    rows = [node.row for node in graph.nodes if node.row is not None]
    assert sorted(rows) == list(range(len(cost.rows)))
    for node in graph.nodes:
        if node.row is not None:
            assert node.address == cost.rows[node.row].address
    outermost = [graph.nodes[each] for each in graph.children()[-1]]
    for field in SUMMED:
        assert sum(getattr(node, field) for node in outermost) == getattr(cost.totals, field)
        for group, inside in graph.children().items():
            if group >= 0:
                together = sum(getattr(graph.nodes[each], field) for each in inside)
                assert getattr(graph.nodes[group], field) == together
    assert len({node.address for node in graph.nodes}) == len(graph.nodes)


@pytest.mark.parametrize("name", NETWORKS)
def test_edges_go_from_what_ran_earlier_to_what_ran_later(name):
    make, shape = NETWORKS[name]
    _, graph = read(make(), shape, PLAN)
    for edge in graph.edges:
        assert edge.source < edge.target
        assert graph.nodes[edge.source].kind in ("layer", "input")
        assert graph.nodes[edge.target].kind == "layer"


def test_a_network_of_500_layers_is_in_runs_and_few_nodes_are_seen():
    _, graph = read(chain(500), (2, 4, 8, 8), PLAN)
    children = graph.children()
    assert max(map(len, children.values())) <= 60
    assert len(seen(graph)) <= MOST_AT_START
    runs = [node for node in graph.nodes if node.kind == "run"]
    assert sum(node.num_layers for node in runs) == 500
    assert runs[0].address == "0#1 … 20#1"
    assert len(graph.edges) == 502  # the input, 499 from layer to layer, and two into the loss


def test_levels_are_opened_while_60_nodes_are_enough():
    deep = nn.Sequential(
        *[nn.Sequential(*[nn.Sequential(nn.ReLU(), nn.ReLU()) for _ in range(5)]) for _ in range(8)]
    )
    _, graph = read(deep, (2, 4))
    assert len(seen(graph)) == 1 + 8 * 5  # 81 with the next level
    flat = nn.Sequential(*[nn.Sequential(*[nn.ReLU() for _ in range(30)]) for _ in range(3)])
    _, graph = read(flat, (2, 4))
    assert len(seen(graph)) == 1 + 30 + 1 + 1  # where a level is too much but little is seen: one group


def test_a_module_whose_name_looks_like_an_address_is_no_harm():
    model = nn.Sequential()
    model.add_module("a#2:relu", nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
    model.add_module("b#1", nn.ReLU())
    _, graph = read(model, (2, 3, 4, 4))
    assert [node.address for node in graph.nodes][1] == "a#2:relu#1"
    assert len(graph.edges) == 3


def test_times_are_there_where_they_were_measured():
    model, shape = Twice(), (2, 3, 8, 8)
    tape = record(model, shape, PLAN)
    cost = cost_of(tape, PLAN)
    assert {node.seconds for node in graph_of(tape, cost).nodes} == {None}
    timed = replace(cost, timings=measure(model, shape, PLAN, repeats=2))
    graph = graph_of(tape, timed)
    seconds = {row.address: row.seconds for row in timed.timings.rows}
    assert at(graph, "stem#1").seconds == seconds["stem#1"] > 0
    assert at(graph, "body#2").seconds == seconds["body.0#2"] + seconds["body.1#2"]


def test_what_the_check_up_found_is_at_its_node_and_at_those_around(report):
    torch.manual_seed(0)
    model = Listed()
    model.stages[1][1].momentum = 0.0
    found = replace(with_graph(report, model, (2, 4, 8, 8)), checkup=checkup(model), gallery=None)
    marks = graph_marks(found)
    nodes = {node.address: position for position, node in enumerate(found.graph.nodes)}
    about = {number for number, each in enumerate(found.checkup.findings) if each.address == "stages.1.1#1"}
    assert about
    for address in ("stages.1.1#1", "stages.1#1", "stages"):
        assert about <= set(marks["findings"][nodes[address]])
    assert not about & set(marks["findings"].get(nodes["stages.0#1"], []))
    assert [len(marks["norms"][nodes[address]]) for address in ("stages.1.1#1", "stages")] == [1, 3]
    assert nodes["stem#1"] not in marks["norms"]


def test_the_gallery_s_layers_are_at_the_layers_that_made_them(report):
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 4, 3))
    model.add_module("conv2", nn.Conv2d(4, 4, 3))
    found = with_graph(report, model, (2, 3, 8, 8))
    marks = graph_marks(found)
    assert {found.graph.nodes[node].address: layers for node, layers in marks["sight"].items()} == {
        "conv1#1": [0],
        "conv2#1": [1],
    }


def test_the_page_has_the_graph_s_json_and_a_list_written_from_it(report):
    found = with_graph(report, Listed(), (2, 4, 8, 8))
    html = page_html(found)
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["graph"] == json.loads(json.dumps(found.to_dict()["graph"]))
    section = html.split('<section id="graph"')[1].split("</section>")[0]
    written = re.findall(r'data-field="graph\.nodes\.(\d+)\.macs" data-format="(\w+)"[^>]*>([^<]*)<', section)
    assert len(written) == 1 + 1 + 3 + 3  # the stem, the list, its three modules and their convolutions
    for position, form, text in written:
        assert text == FORMATS[form](found.graph.nodes[int(position)].macs)
    assert 'href="#graph"' in html


def test_a_report_without_a_graph_has_no_section(report):
    assert Report.__dataclass_fields__["graph"].default is None
    html = page_html(report)
    assert 'id="graph"' not in html
    assert 'href="#graph"' not in html
    assert "var dagre" not in html
    assert "laid out by" not in html


def test_the_list_of_a_large_network_has_its_groups_only():
    _, graph = read(chain(500), (2, 4, 8, 8))
    shown = [graph.nodes[each].kind for inside in listed(graph).values() for each in inside]
    assert set(shown) == {"run"}


def test_hostile_names_make_no_elements(report, hostile):
    name = hostile.replace(".", "")
    model = nn.Sequential()
    model.add_module(name, nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
    html = page_html(with_graph(report, model, (2, 3, 8, 8)))
    assert "<img src=x" not in html
    assert (
        name
        in json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])["graph"]["nodes"][1]["name"]
    )


def test_the_page_of_500_layers_stays_below_three_megabytes(report):
    found = with_graph(report, chain(500), (2, 4, 8, 8))
    assert len(page_html(found).encode()) < 3 * 2**20


def test_a_report_holds_the_graph_of_the_network_that_it_is_about(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10))
    data = load_data("digits", size=12, per_class=2)
    found = report_on(model, data, out=tmp_path / "report", batch_size=4, repeats=2, top=1)
    expected = read(model, (4, 3, 12, 12), PLAN)
    assert found.graph == expected[1]
    assert found.cost.rows == expected[0].rows
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert '<section id="graph"' in html
    assert json.loads((tmp_path / "report" / "report.json").read_text())["graph"]["opened"] == [6]  # the loss
