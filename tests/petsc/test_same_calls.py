"""Laws: ranks that tell the same go on; all others are told what differs. More: tests/mpi."""

import pytest
import torch


class Other:
    """Rank 0 of two; the other one tells what it is given."""

    several = True

    def __init__(self, owner, told):
        self.other = owner, told

    def allgather(self, own):
        owner, told = self.other
        other = {name: told.get(name, each) for name, each in own[1].items()}
        return [own, (owner, other)]


def test_the_same_and_others(petsc):
    from mgnet.petsc.same_calls import check_same_calls

    told = {"start": [torch.ones(2), None], "mode": ("serial", True)}
    check_same_calls(Other("solve", {}), "solve", told)
    with pytest.raises(
        ValueError, match="solve: the mode of rank 0 and of rank 1 are not the same"
    ):
        check_same_calls(Other("solve", {"mode": "x"}), "solve", told)
    with pytest.raises(ValueError, match="rank 0 is in a call of solve, and rank 1 in one of look"):
        check_same_calls(Other("look", {}), "solve", told)


@pytest.mark.parametrize(
    "x",
    [torch.ones(2), torch.ones(()), torch.ones(0, 3), torch.ones(2, 2).T, torch.ones(2).bfloat16()],
)
def test_tensors_are_compared_by_all_that_they_are(petsc, x):
    from mgnet.petsc.same_calls import _digest

    assert _digest(x) == _digest(x.clone())
    others = [x.clone().requires_grad_(), x[None], x.double(), x + 1]
    assert sum(_digest(x) == _digest(y) for y in others) == (x.numel() == 0) * 1


def test_a_complex_tensor_and_a_bool(petsc):
    from mgnet.petsc.same_calls import _digest

    z, flag = torch.ones(2, dtype=torch.complex64), torch.tensor(True)
    assert _digest(z) != _digest(z * 1j) and _digest(flag) != _digest(~flag)
