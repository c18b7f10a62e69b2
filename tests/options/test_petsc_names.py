"""Law: an option that nothing reads is named with the one that was meant, and no other is."""

import subprocess
import sys

import pytest

from mgnet.options.petsc_names import is_used, nearest, note_prefix, unused


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ksp_typ", "ksp_type"),
        ("ksp_tpye", "ksp_type"),
        ("relax_pc_sor_omga", "relax_pc_sor_omega"),
        ("mg_levels_2_kps_type", "mg_levels_2_ksp_type"),
        ("snes_fas_level", "snes_fas_levels"),
        ("ksp_type", "ksp_type"),
        ("own_number", None),
    ],
)
def test_nearest(given, meant):
    assert nearest(given) == meant


def test_a_misspelt_prefix(monkeypatch):
    monkeypatch.setattr("mgnet.options.petsc_names._prefixes", set())
    assert nearest("relx_pc_type") == "relx_pc_type"
    note_prefix("relax_")
    assert nearest("relx_pc_type") == "relax_pc_type"
    assert nearest("relx_mg_levels_pc_type") == "relax_mg_levels_pc_type"
    assert nearest("relax_pc_type") == "relax_pc_type"


def test_what_petsc_has_asked_for(petsc, options):
    options("-pn_ksp_typ cg -pn_ksp_rtol 1e-3")
    assert {"pn_ksp_typ", "pn_ksp_rtol"} <= set(unused())
    ksp = petsc.KSP().create(petsc.COMM_SELF)
    ksp.setOptionsPrefix("pn_")
    ksp.setFromOptions()
    assert "pn_ksp_typ" in unused() and "pn_ksp_rtol" not in unused()
    assert is_used(petsc, "pn_ksp_rtol") and not is_used(petsc, "pn_ksp_typ")


SCRIPT = """
import sys
import mgnet.petsc

words = mgnet.petsc.init(sys.argv, "-ksp_max_it 3")
from petsc4py import PETSc

ksp = PETSc.KSP().create(PETSc.COMM_SELF)
ksp.setFromOptions()
if "fail" in words:
    raise KeyError("mine")
"""
LINE = "warning: nothing in this script reads -ksp_typ (the nearest is -ksp_type), -wild\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-ksp_typ", "cg", "-wild", "3", "-citations", "/dev/null"], LINE),
        (["fail", "-ksp_typ", "cg", "-wild", "3"], LINE),
        (["-ksp_typ", "cg", "-options_left", "no"], ""),
        (["-ksp_type", "cg"], ""),
    ],
)
def test_the_end_of_a_script(petsc, arguments, told):
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ("fail" in arguments)
    failure = "KeyError: 'mine'\n" if "fail" in arguments else ""
    assert done.stderr.endswith(failure + told)
    assert failure or done.stderr == told
    assert "Option left" not in done.stdout
