"""Law: a generator goes on with the same numbers, or its state is refused."""

import numpy as np
import pytest
import torch

from mgnet.checkpoint.generators import check_torch_state, restore_state, state_of

BITS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("drawn", [0, 1, 5])
def test_numpy_goes_on(bits, drawn):
    one, other = (np.random.Generator(bits(seed)) for seed in (1, 2))
    one.integers(9, size=drawn, dtype=np.uint32)
    restore_state(other, state_of(one, "rows"), "rows")
    assert (one.integers(2**60, size=9) == other.integers(2**60, size=9)).all()


@pytest.mark.parametrize("drawn", [0, 1, 2, 622, 623, 624, 625, 1300])
def test_torch_goes_on(drawn):
    one, other = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    torch.randint(9, (drawn,), generator=one)
    restore_state(other, state_of(one, "rows"), "rows")
    assert torch.equal(torch.rand(9, generator=one), torch.rand(9, generator=other))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state[:-1],
        lambda state: state.double(),
        lambda state: state.tolist(),
        lambda state: torch.zeros_like(state),
        lambda state: torch.full_like(state, 255),
        # Numbers left, and the place of the next one, each within its bounds.
        lambda state: torch.cat([state[:16], torch.tensor([2, 2], dtype=torch.uint8), state[18:]]),
    ],
)
def test_what_is_no_state_of_torch_is_refused(damage):
    generator = torch.Generator().manual_seed(1)
    torch.rand(9, generator=generator)
    told, before = state_of(generator, "rows"), generator.get_state()
    told["state"] = damage(told["state"])
    with pytest.raises(ValueError, match="torch .cpu. is damaged, or of another kind"):
        restore_state(generator, told, "rows")
    assert torch.equal(generator.get_state(), before)
    with pytest.raises(ValueError):
        check_torch_state(told["state"])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("change", [-1, 2**200, "x", None, 1.5, True, np.zeros(2)])
def test_what_is_no_state_of_numpy_is_refused(bits, change):
    def paths(told):
        for key, value in told.items():
            yield from ([(told, key)] if not isinstance(value, dict) else paths(value))

    for number in range(len(list(paths(dict(bits(0).state))))):
        generator = np.random.Generator(bits(0))
        told = state_of(generator, "rows")
        holder, key = list(paths(told["state"]))[number]
        holder[key] = change
        with pytest.raises(ValueError, match=f"got a {bits.__name__} generator for 'rows'"):
            restore_state(generator, told, "rows")


def test_places_beyond_the_numbers_of_numpy_are_refused():
    for bits, key in ((np.random.MT19937, "pos"), (np.random.Philox, "buffer_pos")):
        generator = np.random.Generator(bits(0))
        told = state_of(generator, "rows")
        ({**told["state"], **told["state"]["state"]})[key]
        holder = told["state"] if key in told["state"] else told["state"]["state"]
        holder[key] = 625
        with pytest.raises(ValueError, match="has no state of this kind"):
            restore_state(generator, told, "rows")
    with pytest.raises(ValueError, match="got a PCG64 generator"):
        restore_state(np.random.default_rng(0), told, "rows")
