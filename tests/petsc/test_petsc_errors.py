"""Law: what a callback raised is what the caller sees, in old and new petsc4py."""

import pytest


def test_original_errors(petsc):
    from mgnet.petsc.petsc_errors import original_errors

    class Broken:
        def apply(self, pc, x, y):
            raise KeyError("mine")

    pc = petsc.PC().createPython(Broken(), comm=petsc.COMM_SELF)
    x = petsc.Vec().createSeq(2)
    pc.setOperators(petsc.Mat().createDense((2, 2), comm=petsc.COMM_SELF))
    with pytest.raises(KeyError, match="mine"), original_errors():
        pc.apply(x, x.duplicate())
    with pytest.raises(petsc.Error), original_errors():
        x.setSizes(3)
