"""Kinds are told apart by library, also before a library was loaded."""

import subprocess
import sys

import numpy as np
import torch

from mgnet.kinds import is_mat, is_tensor, is_vec


def test_tensors_and_arrays():
    assert is_tensor(torch.ones(2)) and not is_tensor(np.ones(2))
    assert not is_vec(torch.ones(2)) and not is_mat(np.eye(2))


def test_petsc(petsc):
    assert is_vec(petsc.Vec().createSeq(2)) and not is_mat(petsc.Vec().createSeq(2))
    assert is_mat(petsc.Mat().createAIJ((2, 2), comm=petsc.COMM_SELF))


def test_asking_imports_nothing():
    code = "from mgnet.kinds import *; import sys; is_tensor(1), is_vec(1); "
    code += "sys.exit('torch' in sys.modules or 'petsc4py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
