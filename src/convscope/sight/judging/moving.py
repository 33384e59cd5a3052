"""Whether a unit can move at all while gates and statistics are held."""

from convscope.core.address import parse_address
from convscope.sight.projecting.below import Below


def moves_while_held(below: Below, address: str) -> bool:
    """Return whether the image reaches a unit by any way that isn't held.

    A squeeze-and-excitation gate, read itself, is what a run uses in the place of its own: whatever is masked
    in the image, the unit stays as it was, and what it drops by says nothing.

    Args:
        below: the roles of the network's operators, and what is held of them.
        address: where the unit is read.
    """
    tape, dependent = below.tape, below.origins.dependent
    call = tape.find(parse_address(address))
    value = call.outputs[0] if call is not None else None
    assert value is not None
    makers = {point: tape.find(parse_address(point.address)) for point in below.hold_points}
    held = {maker.outputs[point.output] for point, maker in makers.items() if maker is not None}
    pending, seen, images = [value], set[int](), set(tape.inputs)
    while pending:
        value = pending.pop()
        if value in images:
            return True
        if value in seen or value in held or value not in dependent:
            continue
        seen.add(value)
        producer = tape.producer(value)
        pending += producer.inputs if producer is not None else ()
    return False
