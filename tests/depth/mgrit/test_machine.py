"""A machine has times and sizes that can be; everything has a default."""

import math

import pytest

from mgnet.depth.mgrit.machine import Machine


def test_by_default_time_is_counted_in_layers_and_messages_are_free():
    machine = Machine()
    assert machine.latency + machine.state_bytes / machine.bandwidth == 0.0
    assert (machine.layer_seconds, machine.backward_ratio) == (1.0, 2.0)
    assert machine.bandwidth == math.inf and machine.layer_bytes == 0.0


@pytest.mark.parametrize(
    "fields",
    [
        {"layer_seconds": 0.0},
        {"latency": -1.0},
        {"bandwidth": 0.0},
        {"backward_ratio": 0.0},
        {"state_bytes": -1.0},
        {"layer_bytes": float("nan")},
    ],
)
def test_a_machine_has_positive_times_and_sizes(fields):
    with pytest.raises(ValueError, match=f"Machine got .*{next(iter(fields))}"):
        Machine(**fields)
