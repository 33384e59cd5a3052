"""What a step finds on the device, against PyTorch's own order of moving a model."""

from torch import nn

from cases import NestedNet
from convscope.cost.memory.schedule import schedule_of
from convscope.cost.memory.standing import host_storages, loading_order
from convscope.tape import TrainingPlan, record


def test_loading_is_in_the_order_of_module_apply():
    """``model.to(device)`` goes through ``Module._apply``: here it writes down what it is given."""
    model = NestedNet()
    found = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    order = []
    model._apply(lambda tensor: order.append(found.get(id(tensor))) or tensor)
    tape = record(model, (3, 2, 4, 4))
    loaded = [tape.storages[index].name for index in loading_order(tape)]
    assert loaded == [*filter(None, order), "input0"]


def test_fused_kernels_keep_adams_counters_on_the_device():
    tape = record(nn.Linear(8, 4), (2, 8), TrainingPlan("adam", foreach="fused"))
    states = [s.index for s in tape.storages if s.role == "optimizer-state"]
    assert [schedule_of(tape).sizes[block] for block in states] == [4, 128, 128, 4, 16, 16]


def test_what_stays_in_host_memory():
    """Adam's counters, and the number that it adds to them; on the CPU everything is in one memory."""
    net, shape, plan = nn.Linear(8, 4), (2, 8), TrainingPlan("adam")
    tape = record(net, shape, plan)
    hosts = [tape.storages[index] for index in sorted(host_storages(tape))]
    counters = [(s.role, s.name) for s in hosts if s.role == "optimizer-state"]
    assert counters == [("optimizer-state", "weight"), ("optimizer-state", "bias")]
    assert {s.nbytes for s in hosts} == {4}
    assert host_storages(record(net, shape, plan, device="cpu")) == set()
