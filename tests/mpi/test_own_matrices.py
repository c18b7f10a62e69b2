"""Law: Mats over ranks give the history of one rank; the script of docs/petsc.md does it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "petsc.md").read_text()
SCRIPTS = re.findall(r"^``` \{ \.python \}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = re.search(r"^    \$ .* -n 2 python script\.py\n((?:    .*\n){3})", PAGE, re.MULTILINE)
TOLD = """
PETSc.Sys.Print(*solution.residual_norms)
"""


@pytest.mark.mpi
def test_the_script_of_the_page(mpiexec, tmp_path):
    (script,) = (each for each in SCRIPTS if "DMDA" in each)
    file = tmp_path / "script.py"
    file.write_text(script + TOLD)
    told = [mpiexec(str(file), ranks).splitlines() for ranks in (1, 2, 4)]
    assert SHOWN is not None
    shown = [line.strip() for line in SHOWN[1].splitlines()]
    assert [lines[:3] for lines in told] == 3 * [shown]
    norms = [np.array(lines[3].split(), float) for lines in told]
    for others in norms[1:]:
        np.testing.assert_allclose(others, norms[0], rtol=1e-6)


@pytest.mark.mpi
def test_smoothers_and_solvers_on_ranks(mpiexec):
    one, two, four = (json.loads(mpiexec("own_matrices.py", ranks)) for ranks in (1, 2, 4))
    same = "jacobi chebyshev optimal lu anderson nested cg gmres galerkin constant given"
    for name in same.split():
        assert one[name][0] == ("MAX_CYCLES" if name in ("constant", "given") else "RTOL")
        for told in (two, four):
            assert told[name][0] == one[name][0]
            np.testing.assert_allclose(told[name][1:], one[name][1:], rtol=1e-6)
    for told in (one, two, four):
        assert told["sor"][0] == "RTOL", "each rank has another block"
    assert one["random"] == two["random"] == four["random"]
    for told in (two, four):
        assert told["checked"] == ["level 0: restrict is the transpose of prolong"]
        assert "total" in told["explained"]
        for name, refused in told["refused"].items():
            law = rf"TypeError: .*{name}.* on level [01] got a PETSc (Mat|Vec) that is spread over"
            assert re.match(law, refused), refused
            assert "KSPSmoother('coarse_'" in refused
        assert len(told["layouts"]) == 2
        assert "give both the same layout" in told["layouts"][0]
        assert "is a PETSc Mat; give a Vec" in told["layouts"][1]
        assert told["hints"] == ["mpiexec runs this script on"]
    assert one["hints"] == []
    assert all(told == "" for told in one["refused"].values())
