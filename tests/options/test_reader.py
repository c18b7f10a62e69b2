"""Law: single-dash options and their values are PETSc's, all else is ours."""

import sys
from types import SimpleNamespace

import pytest

from mgnet.options.reader import (
    OptionReader,
    check_names,
    init,
    insert_options,
    split_options,
    unread,
)


@pytest.mark.parametrize(
    ("line", "ours", "theirs"),
    [
        ("", "", ""),
        ("fit x --seed 3", "fit x --seed 3", ""),
        ("fit x -ksp_type cg", "fit x", "-ksp_type cg"),
        ("fit -mgnet_view --seed 3", "fit --seed 3", "-mgnet_view"),
        ("fit -a -b --c", "fit --c", "-a -b"),
        ("fit -shift -1.5 x", "fit x", "-shift -1.5"),
        ("fit --seed -3", "fit --seed -3", ""),
        ("fit -a 1 - x", "fit - x", "-a 1"),
        ("fit -- -a 1", "fit -- -a 1", ""),
    ],
)
def test_split(line, ours, theirs):
    assert split_options(line.split()) == (ours.split(), theirs.split())


@pytest.mark.parametrize("word", ["--mgnet_cycle", "--mgnet_levels_2_sweeps", "--mgnet_rtol=1e-3"])
def test_options_of_mgnet_have_one_dash(word):
    with pytest.raises(ValueError, match=f"^option '{word}' has two dashes; write '{word[1:]}'$"):
        init(["x.py", word, "3"])
    given = ["x.py", "--mgnet_folder", "a", "--", word]  # the script's own
    assert init(given) == given


def test_options_reach_petsc4py(monkeypatch):
    seen = []
    module = SimpleNamespace(Options=lambda: SimpleNamespace(insertString=seen.append, getAll=dict))
    monkeypatch.setitem(sys.modules, "petsc4py", SimpleNamespace(init=seen.append))
    monkeypatch.setitem(sys.modules, "petsc4py.PETSc", module)
    insert_options(["-ksp_type", "cg", "-mgnet_cycle", "nested V(1,1)"])
    assert seen == [
        ["mgnet", "-ksp_type", "cg", "-mgnet_cycle", "nested V(1,1)"],
        '-ksp_type cg -mgnet_cycle "nested V(1,1)"',
    ]


def test_without_petsc4py_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "petsc4py", None)
    monkeypatch.delitem(sys.modules, "petsc4py.PETSc", raising=False)
    for call in (
        lambda: insert_options(["-a"]),
        lambda: init(["x", "-a"]),
        lambda: init(["x"], "-a 1"),
    ):
        with pytest.raises(ModuleNotFoundError, match="^-a has one dash.*not installed"):
            call()
    assert init(["x", "out", "--b", "1"]) == ["x", "out", "--b", "1"]
    assert OptionReader().get("cycle", "V(1,1)") == "V(1,1)"


def test_the_command_line_beats_the_script(options):
    arguments = ["-c", "out", "-one_mgnet_cycle", "nested F(2,1)", "-one_mgnet_monitor"]
    script = """
    -one_mgnet_cycle "W(1,1)"   # weaker
    -two_mgnet_cycle "K3(1,1)" -two_mgnet_rtol 1e-3 -two_shift -1.5
    """
    options("")  # cleans up
    assert init(arguments, script) == ["-c", "out"]
    one, two = OptionReader("one_"), OptionReader("two_")
    assert one.get("cycle", "V(1,1)") == "nested F(2,1)"
    assert one.get("monitor", False) is True
    assert two.get("cycle", "V(1,1)") == "K3(1,1)"
    assert two.get("rtol", 1e-8) == 1e-3
    assert two.text("shift") == "-1.5"
    assert two.get("max_cycles", 7) == 7


def test_options_file(options, tmp_path):
    file = tmp_path / "some.opts"
    file.write_text('# a comment\n-file_mgnet_cycle "nested F(1,1)"\n-file_mgnet_levels 2\n')
    options("")
    init(["x", "-options_file", str(file), "-file_mgnet_levels", "3"])
    values = OptionReader("file_")
    assert (values.get("cycle", ""), values.get("levels", 9)) == ("nested F(1,1)", 3)
    init(["x"], file.read_text().replace("file_", "text_"))
    assert OptionReader("text_").get("cycle", "") == "nested F(1,1)"


@pytest.mark.parametrize("prefix", ["", "train_", "mg_levels_2_"])
def test_unknown_names_under_any_prefix(options, prefix):
    options(f"-{prefix}mgnet_cycel V -other_cycel 1")
    with pytest.raises(ValueError, match="^option -mgnet_cycel is unknown.* -mgnet_cycle "):
        check_names()


def test_one_level(options):
    options("-q_mgnet_levels_2_sweeps 4 -q_mgnet_sweeps 2 -mgnet_levels_3_sweeps 1")
    values = OptionReader("q_")
    assert values.get("sweeps", None, level=2) == 4
    assert values.get("sweeps", None, level=1) is None
    assert values.levels_named() == [(2, "sweeps")]


def test_what_nothing_reads_is_named(options):
    options("-u_mgnet_cycle V -u_mgnet_rtol 1e-3 -u_mgnet_levels_1_sweeps 2")
    assert set(unread()) == {"-u_mgnet_cycle", "-u_mgnet_rtol", "-u_mgnet_levels_1_sweeps"}
    values = OptionReader("u_")
    assert values.get("rtol", 1.0) == 1e-3
    assert [values.get("sweeps", None, level) for level in (None, 1)] == [None, 2]
    assert unread() == ["-u_mgnet_cycle"]
    options("-options_left no")
    assert unread() == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-options_file"], "option -options_file got no value"),
        (["-options_file", "-mgnet_view"], "option -options_file got no value"),
        (
            ["-options_file", "none/such"],
            "option -options_file got 'none/such', which is not a file",
        ),
        (["-options_file_yaml", "."], "option -options_file_yaml got '.', which is not a file"),
        (["-prefix_push"], "option -prefix_push got no value"),
        (["-prefix_pop"], "option -prefix_pop comes without"),
        (["-mgnet_levels_007_sweeps", "2"], "option -mgnet_levels_007_sweeps is unknown"),
        ([f"-mgnet_levels_{'9' * 5000}_sweeps", "2"], "option -mgnet_levels_99.*is unknown"),
        ([f"-mgnet_{'cycel' * 5000}", "V"], "option -mgnet_cycel.*is unknown"),
        (["-MGNET_Cycel", "V"], "option -mgnet_cycel is unknown"),
    ],
)
def test_what_init_refuses(options, capfd, arguments, complaint):
    options("")
    with pytest.raises(ValueError, match=f"^{complaint}") as refusal:
        init(["x", *arguments])
    assert len(str(refusal.value)) < 300
    assert capfd.readouterr().err == ""


def test_quotes_within_a_value(options):
    options("")
    init(["x", "-w_mgnet_coarse_solver", 'Krylov("cg", 3)', "-w_mgnet_cycle", "K2(1, 1)"])
    values = OptionReader("w_")
    assert values.get("coarse_solver", None) == 'Krylov("cg", 3)'
    assert values.get("cycle", None) == "K2(1, 1)"


def test_the_last_of_two_and_the_stronger_in_any_letters(options):
    options("")
    twice = ["-y_mgnet_coarse_solver", 'Krylov("cg", 3)', "-y_mgnet_coarse_solver", "Direct"]
    init(["x", *twice, "-Y_mgnet_rtol", "1"], "-y_mgnet_rtol 2 -y_mgnet_atol 3 -y_mgnet_atol 4")
    values = OptionReader("y_")
    assert [values.get(name, None) for name in ("coarse_solver", "rtol", "atol")] == [
        *("Direct", 1.0, 4.0)
    ]


@pytest.mark.parametrize("word", ["V(1,1)\0", "\udc80"])
def test_texts_that_petsc_cannot_hold(options, word):
    options("")
    with pytest.raises(ValueError, match="^options got .*, which is not a text that PETSc"):
        init(["x", "-mgnet_cycle", word])


def test_an_options_text_is_one_text_with_its_quotes_closed():
    with pytest.raises(ValueError, match="^init got options .*: No closing quotation$"):
        init(["x"], '-mgnet_cycle "V(1,1)')
    with pytest.raises(TypeError, match="^init got options \\['-a'\\]; give one text"):
        init(["x"], ["-a"])


def test_capitals_are_read(options):
    options("-V_MGNET_Cycle F(1,1) -V_mgnet_LEVELS_1_sweeps 2")
    values = OptionReader("v_")
    assert values.get("cycle", None) == "F(1,1)"
    assert values.levels_named() == [(1, "sweeps")]
    assert values.get("sweeps", None, 1) == 2
    assert unread() == []
