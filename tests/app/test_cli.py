"""Law: the command does its job or refuses it in one sentence with code 2, and writes whole files.

Training is replaced by a stand-in: see stand_in.py.
"""

import math
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mgnet.app import cli, job

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPT = HERE / "stand_in.py"
GOOD = "T,p,rho\n" + "".join(f"{k},{k * k},{3 * k + 1}\n" for k in range(40))


def run(*arguments, cwd, script=(str(SCRIPT), "quick")):
    return subprocess.run(
        [sys.executable, *script, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(capsys, *arguments):
    """Run, expect a refusal of one sentence that leaves no file, and return the sentence."""
    before = sorted(Path().rglob("*"))
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mgnet: ") and err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return err


# What it does


def test_fit_shows_hierarchy_cycle_result_and_files(install, capsys):
    assert cli.main(["fit", "data.csv", "--target", "rho", "--levels", "2", "--compare"]) == 0
    out = capsys.readouterr().out
    assert "Hierarchy of 2 levels" in out
    assert "level 0" in out
    assert "held-out MSE" in out
    assert "rival" in out
    files = {"model.json", "model.safetensors", "report.md"}
    files |= {"fit.png", "inputs.png", "convergence.png", "edges.png"}
    assert {file.name for file in Path("mgnet-fit").iterdir()} == files
    assert all(f"wrote mgnet-fit/{name}" in out for name in files)
    report = Path("mgnet-fit/report.md").read_text().splitlines()
    assert report[:6] == ["line", *["net"] * 3, "rival", "trees"]
    assert report[-1] == "mgnet fit data.csv --target rho --levels 2 --compare"
    assert sorted(file.name for file in Path().iterdir()) == ["data.csv", "mgnet-fit"]


def test_settings_arrive(install, monkeypatch):
    seen = []
    fit = job.fit

    def spy(data, settings, *told, interruptible):
        seen.append((data, settings))
        return fit(data, settings, *told, interruptible=interruptible)

    monkeypatch.setattr(job, "fit", spy)
    arguments = "--inputs p --hidden 8,4 --intervals 2 --degree 2 --levels 3 --optimizer adam"
    arguments += " --evaluations 7 --seed 5 --held-out 0.5 --out deep/down/here"
    arguments += " --validation 0 --roughness 1e-6 --most-intervals 8,4,4 --starts 2"
    cycle = ["--cycle", "cascade 3,2,1"]
    assert cli.main(["fit", "data.csv", "--target", "rho", *arguments.split(), *cycle]) == 0
    data, settings = seen[0]
    assert data.names == ("p",)
    assert len(data.y) == len(data.y_held) == 20
    assert settings == job.Settings(
        (8, 4),
        intervals=2,
        degree=2,
        levels=3,
        most_intervals=(8, 4, 4),
        cycle="cascade 3,2,1",
        starts=2,
        optimizer="adam",
        evaluations=7,
        seed=5,
        held_out=0.5,
        roughness=1e-6,
        validation=0.0,
    )
    assert Path("deep/down/here/model.json").is_file()


def test_fewer_rows_than_parameters_is_a_warning(install, capsys):
    assert cli.main(["fit", "data.csv", "--target", "rho", "--ensemble", "1"]) == 0
    assert "warning: 32 training rows for 840 parameters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "members"),
    [
        ("", 5),
        ("--degree 2 --seconds 9 --seed 3", 5),
        ("--ensemble 3", 3),
        ("--ensemble 1", 1),
        ("--hidden 8", 1),
        ("--cycle V(1,1)", 1),
        ("--roughness 1e-3", 1),
        ("-mgnet_levels 2", 1),
    ],
)
def test_options_of_a_single_network_train_one(install, monkeypatch, options, members):
    seen = []
    monkeypatch.setattr(cli, "insert_options", lambda arguments: None)
    inner = sys.modules["mgnet.app.job"].run_job
    monkeypatch.setattr(
        sys.modules["mgnet.app.job"],
        "run_job",
        lambda job, *rest: seen.append(job.settings) or inner(job, *rest),
    )
    assert cli.main(["fit", "data.csv", "--target", "rho", *options.split()]) == 0
    assert seen[0].ensemble == members
    assert (seen[0].seconds == math.inf) == (members > 1 and "--seconds" not in options)


@pytest.mark.parametrize("options", ["--cycle V(1,1)", "--hidden 4", "-mgnet_levels 2"])
def test_an_ensemble_is_not_steered_by_them(install, capsys, monkeypatch, options):
    monkeypatch.setattr(cli, "insert_options", lambda arguments: None)
    words = ["--ensemble", "4", *options.split()]
    sentence = refused(capsys, "fit", "data.csv", "--target", "rho", *words)
    assert "--ensemble 4 and" in sentence and "exclude each other" in sentence


def test_dropped_rows_are_counted(install, capsys):
    Path("data.csv").write_text(GOOD + "1,,2\n1,nan,3\n")
    assert cli.main(["fit", "data.csv", "--target", "rho", "--drop-missing"]) == 0
    assert "2 rows with missing values were left out" in capsys.readouterr().err


def test_predict_adds_a_column_and_counts_rows_out_of_range(install, capsys):
    cli.main(["fit", "data.csv", "--target", "rho", "--inputs", "T"])
    Path("new.csv").write_text("name;T\na;1\nb;100\nc;\n")
    capsys.readouterr()
    assert cli.main(["predict", "mgnet-fit", "new.csv"]) == 0
    out, err = capsys.readouterr()
    assert out == "name;T;rho_predicted\na;1;4\nb;100;301\nc;;\n"
    assert "1 of 3 rows are outside the range" in err
    assert "extrapolated linearly" in err
    assert "1 of 3 rows lack an input" in err
    arguments = ["predict", "mgnet-fit/model.json", "new.csv", "--out", "out.csv"]
    assert cli.main(arguments) == 0
    assert Path("out.csv").read_text() == out
    assert cli.main(arguments) == 2
    assert cli.main([*arguments, "--overwrite"]) == 0


def test_schedule_draws_and_counts(capsys):
    assert cli.main(["schedule", "V(1,1)", "--levels", "2", "--ratio", "4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("level 0  o       o\n")
    assert "work: 3.25 work units" in out
    assert "1/4 of the next finer" in out


def test_info_and_help(install, capsys):
    cli.main(["fit", "data.csv", "--target", "rho"])
    capsys.readouterr()
    assert cli.main(["info", "mgnet-fit"]) == 0
    assert capsys.readouterr().out == "rho from T, p\n"
    assert cli.main([]) == 0
    assert "Usage: mgnet" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mgnet ")


# What it refuses

HEAD = "T,p,rho\n"
ROWS = GOOD.removeprefix(HEAD)
TABLES = {  # content -> words of the sentence
    "empty": ("", "is empty"),
    "header": (HEAD, "header but no rows"),
    "few": (HEAD + "1,2,3\n2,3,4\n", "too few complete rows, 2; at least 10"),
    "no header": (ROWS, "has no header"),
    "column": ("T,p,Rho_kg\n" + ROWS, "no column 'rho'; the nearest names are Rho_kg"),
    "twins": ("T,T,rho\n" + ROWS, "2 columns called 'T'"),
    "nameless": ("T,,rho\n" + ROWS, "column 2 has no name"),
    "index": (
        ",p,rho\n" + "".join(f"{k % 3},{k},{k}\n" for k in range(20)),
        "does not number the rows",
    ),
    "words": (
        GOOD + "1,x,2\n1,y,3\n",
        "2 of 42 cells are not numbers, the first is 'x' in",
    ),
    "NaN": (
        GOOD + "1,,2\n",
        "1 of 41 rows have an empty, NaN or infinite cell",
    ),
    "infinite": (GOOD + "1,inf,2\n", "--drop-missing"),
    "constant": (HEAD + "".join(f"5,7,{k}\n" for k in range(20)), "in every input (T, p)"),
    "target": (HEAD + "".join(f"{k},{k},7\n" for k in range(20)), "a constant target"),
    "ragged": (GOOD + "1,2\n", "line 42 has 2 cells"),
    "long": (GOOD + "1,2,3,4\n", "line 42 has 4 cells"),
    "latin": (b"T,p,rho\n1,2,\xe9\n", "not UTF-8 text: line 2"),
    "utf32": (GOOD.encode("utf-32"), "not UTF-8 text but text in UTF-32"),
    "binary": (b"T,p\0,rho\n1,2,3\n", "NUL bytes"),
    "decimal": (GOOD.replace(",", ";") + "1,5;2;3.5\n", "--decimal , sets the decimal mark"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bad_table(name, install, capsys):
    content, words = TABLES[name]
    Path("data.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    assert words in refused(capsys, "fit", "data.csv", "--target", "rho")


ARGUMENTS = {
    "file": ("fit none.csv --target rho", "none.csv does not exist"),
    "folder": ("fit . --target rho", "is a folder"),
    "no target": ("fit data.csv", "Missing option '--target'"),
    "among": ("fit data.csv --target rho --inputs T,rho", "is among the inputs"),
    "input": ("fit data.csv --target rho --inputs T,q", "no column 'q'"),
    "twice": ("fit data.csv --target rho --inputs T,T", "named twice"),
    "commas": ("fit data.csv --target rho --inputs T,,p", "column names with commas"),
    "hidden": ("fit data.csv --target rho --hidden 8,x", "got '8,x'"),
    "zero": ("fit data.csv --target rho --hidden 0", "at least 1"),
    "degree": ("fit data.csv --target rho --degree 9", "1<=x<=5"),
    "levels": ("fit data.csv --target rho --levels 0", "1<=x<=64"),
    "seconds": ("fit data.csv --target rho --seconds 0", "x>0"),
    "nan": ("fit data.csv --target rho --seconds nan", "finite"),
    "huge": ("fit data.csv --target rho --levels 40", "use fewer --levels"),
    "budgets": ("fit data.csv --target rho --seconds 1 --evaluations 1", "two budgets"),
    "optimizer": ("fit data.csv --target rho --optimizer sgd", "'lm', 'lbfgs', 'adam'"),
    "cycle": ("fit data.csv --target rho --cycle V(1", "cycle 'V(1'"),
    "held out": ("fit data.csv --target rho --held-out 1", "held-out fraction is 1"),
    "out file": ("fit data.csv --target rho --out data.csv", "data.csv is a file"),
    "below file": ("fit data.csv --target rho --out data.csv/x", "cannot be written"),
    "not empty": ("fit data.csv --target rho --out .", "holds no model of mgnet"),
    "nowhere": ("fit data.csv --target rho --out /proc/none/x", "cannot be written"),
    "command": ("fti data.csv", "No such command 'fti'"),
    "option": ("fit data.csv --target rho --secnds 3", "--seconds"),
    "ratio": ("schedule V(1,1) --ratio inf", "finite"),
    "text": ("schedule X(1,1)", "cycle 'X(1,1)'"),
    "no model": ("predict none data.csv", "none holds no model.json"),
    "no info": ("info none", "none holds no model.json"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_arguments(name, install, capsys):
    if name == "nowhere" and not Path("/proc/self").exists():
        pytest.skip("no folder here that even root cannot write")
    line, words = ARGUMENTS[name]
    assert words in refused(capsys, *line.split())


def test_a_folder_without_permission(install, capsys, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("root may write everywhere")
    assert "cannot be written" in refused(
        capsys, "fit", "data.csv", "--target", "rho", "--out", "locked/x"
    )


def test_a_former_output_is_replaced_only_on_request(install, capsys):
    command = ["fit", "data.csv", "--target", "rho"]
    assert cli.main(command) == 0
    capsys.readouterr()
    Path("mgnet-fit/notes.txt").write_text("mine")
    Path("mgnet-fit/fit.png").write_text("old")
    assert "--overwrite" in refused(capsys, *command)
    assert cli.main([*command, "--overwrite"]) == 0
    names = {file.name for file in Path("mgnet-fit").iterdir()}
    assert {"model.json", "fit.png", "notes.txt"} < names
    assert Path("mgnet-fit/fit.png").read_text() == ""


def test_predict_refuses_a_table_without_the_inputs(install, capsys):
    cli.main(["fit", "data.csv", "--target", "rho"])
    capsys.readouterr()
    Path("new.csv").write_text("T,P\n1,2\n")
    sentence = refused(capsys, "predict", "mgnet-fit", "new.csv")
    assert "new.csv has no column 'p'; the nearest names are P" in sentence
    assert "p.npz ends in .npz" in refused(capsys, "predict", "x", "none.csv", "--out", "p.npz")
    Path("mgnet-fit/model.json").write_text("{")
    assert "damaged" in refused(capsys, "predict", "mgnet-fit", "data.csv")


def test_single_dash_options_need_petsc4py(install, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "petsc4py", None)
    sentence = refused(capsys, "fit", "data.csv", "--target", "rho", "-ksp_type", "cg")
    assert "-ksp_type has one dash" in sentence and "petsc4py is not installed" in sentence


FIT = ["fit", "data.csv", "--target", "rho", "--evaluations", "60"]


def test_petsc_options_steer_the_fit_and_its_report(options, tmp_path, monkeypatch, capfd):
    options("")  # cleans up
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text(GOOD)
    assert cli.main([*FIT, "-mgnet_levels", "2", "-mgnet_view", "json"]) == 0
    out = capfd.readouterr().out
    assert "Hierarchy of 2 levels" in out and '"levels": [{"unknowns": 840,' in out
    report = Path("mgnet-fit/report.md").read_text()
    assert "16 intervals on the coarsest of 2 levels and 32 on the finest" in report
    assert "--evaluations 60 -mgnet_levels 2 -mgnet_view json\n" in report


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-mgnet_cycel V(1,1)", "option -mgnet_cycel is unknown; the nearest is -mgnet_cycle "),
        ("-mgnet_levels x", "option -mgnet_levels got 'x'; it takes an integer"),
        ("-mgnet_levels 9", "option -mgnet_levels got '9'; this hierarchy has 4 levels"),
        ("-mgnet_smoother Jacobi", "Jacobi(omega=0.666667) cannot train this network"),
    ],
)
def test_petsc_options_that_are_refused(options, line, words, tmp_path, monkeypatch, capsys):
    options("")
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text(GOOD)  # few rows: a warning, but not before a refusal
    assert words in refused(capsys, *FIT, *line.split())


def test_petsc_options_that_are_not_read_are_named(options, capsys):
    options("")
    assert cli.main(["schedule", "V(1,1)", "-mgnet_levels", "2"]) == 0
    assert capsys.readouterr().err == ("mgnet: warning: this command does not read -mgnet_levels\n")


def test_a_table_swallowed_by_a_petsc_option_is_named(capsys, monkeypatch):
    monkeypatch.setattr(cli, "insert_options", lambda arguments: None)
    sentence = refused(capsys, "fit", "-mgnet_view", "data.csv", "--target", "rho")
    assert "Missing argument 'DATA'. PETSc gets '-mgnet_view data.csv'" in sentence


def test_a_failure_while_writing_leaves_nothing(install, capsys, monkeypatch):
    def write_report(folder, data, settings, trained, **shown):
        (folder / "report.md").write_text("half")
        raise OSError("no space left on the disk")

    monkeypatch.setattr(sys.modules["mgnet.app.report"], "write_report", write_report)
    assert cli.main(["fit", "data.csv", "--target", "rho", "--out", "a/b"]) == 2
    assert "no space left" in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["data.csv"]


# Ctrl-C


def test_ctrl_c_among_the_rivals_keeps_the_model(install, capsys):
    install("interrupt baselines")
    assert cli.main(["fit", "data.csv", "--target", "rho", "--compare"]) == 130
    assert "unfinished ones are omitted" in capsys.readouterr().err
    assert Path("mgnet-fit/report.md").read_text().startswith("line\nnet\nnet\nnet\nrival\nNote: ")


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_ctrl_c_before_there_is_a_model_writes_nothing(install, capsys, monkeypatch, sent, code):
    def fit(data, settings, progress, announce, interruptible):
        with interruptible():
            signal.raise_signal(signal.Signals[sent])

    monkeypatch.setattr(job, "fit", fit)
    assert cli.main(["fit", "data.csv", "--target", "rho"]) == code
    assert "nothing was written" in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["data.csv"]


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("command", ["fit", "predict"])
def test_after_the_files_are_there_a_signal_says_so(install, capsys, monkeypatch, sent, command):
    """It comes while the command ends, when nothing holds it any more."""
    cli.main(["fit", "data.csv", "--target", "rho", "--inputs", "T"])
    number, unread = signal.Signals[sent], cli.unread
    monkeypatch.setattr(cli, "unread", lambda: signal.raise_signal(number) or unread())
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    capsys.readouterr()
    try:
        line = {"fit": "fit data.csv --target rho", "predict": "predict mgnet-fit data.csv"}
        assert cli.main([*line[command].split(), "--out", "new"]) == 128 + number
    finally:
        signal.signal(signal.SIGINT, former)
    expected = {
        "fit": "interrupted; the model is in new",
        "predict": "interrupted; new is complete",
    }
    assert capsys.readouterr().err.splitlines()[-1] == f"mgnet: {expected[command]}"
    assert Path("new").exists()


def test_a_signal_that_became_another_error_is_still_one(capsys, monkeypatch):
    def half_loaded(*_, **__):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("cannot import half a library") from None

    monkeypatch.setattr(cli, "split_options", half_loaded)
    assert cli.main(["schedule", "V(1,1)"]) == 143
    assert capsys.readouterr().err == "mgnet: interrupted; nothing was written\n"


ENDS = """
import atexit, gc, signal, sys
from mgnet.app import cli
sys.argv[1:] = ["schedule", "V(1,1)"]
atexit.register(lambda: print(gc.get_freeze_count() > 1000, signal.getsignal(signal.SIGTERM)))
cli.command()
"""


def test_a_process_ends_without_a_search_for_garbage(tmp_path):
    """Which takes seconds, since all of torch is searched; other functions at exit do run."""
    done = run(cwd=tmp_path, script=("-c", ENDS))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"True {signal.SIG_DFL!s}"


def test_two_fits_into_one_folder_are_refused_before_the_second_trains(install, capsys):
    from mgnet.app.output_folder import claimed

    with claimed(Path("mgnet-fit")), ThreadPoolExecutor() as pool:
        done = pool.submit(cli.main, ["fit", "data.csv", "--target", "rho"]).result()
    assert done == 2
    assert "mgnet-fit is being written by another mgnet" in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["data.csv"]


def test_names_that_a_model_cannot_have_are_refused_before_the_fit(install, capsys, monkeypatch):
    np.savez("data.npz", **{"a\nb": np.arange(20.0), "y": np.arange(20.0)})
    assert cli.main(["fit", "data.npz", "--target", "y"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "mgnet: " in err


def test_main_gives_the_handler_back_and_runs_in_any_thread(capsys):
    former = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor() as pool:
        assert pool.submit(cli.main, ["schedule", "V(1,1)"]).result() == 0
    assert cli.main(["schedule", "V(1,1)"]) == 0
    assert signal.getsignal(signal.SIGTERM) is former


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_keep_the_best_model_so_far(tmp_path, sent, code):
    (tmp_path / "data.csv").write_text(GOOD)
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "wait", "fit", "data.csv", "--target", "rho"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stderr or ():
            if line == "ready\n":
                break
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "this is the best model so far" in err
    assert "Traceback" not in err
    assert (tmp_path / "mgnet-fit" / "model.json").is_file()


AT_AN_IMPORT = """
import os, signal, sys
from mgnet.app import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests may ignore it
number, module = int(sys.argv[1]), sys.argv[2]

def watch(event, arguments):
    if event == "import" and arguments[0] == module and module not in sys.modules:
        os.kill(os.getpid(), number)

sys.addaudithook(watch)
sys.exit(cli.main(sys.argv[3:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_signal_while_libraries_are_loaded_writes_nothing(tmp_path):
    """Drawn among their modules: many catch errors of an import, and would lose the signal."""
    rng = np.random.default_rng(1)
    module = rng.choice(["torch", "torch.nn", "sklearn", "sklearn.base", "scipy.linalg"])
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    (tmp_path / "data.csv").write_text(GOOD)
    fit = ("fit", "data.csv", "--target", "rho", "--out", "a/b")
    script = ("-c", AT_AN_IMPORT, str(int(number)), module)
    done = run(*fit, cwd=tmp_path, script=script)
    assert done.returncode == 128 + number, (module, done.stderr)
    assert done.stderr.strip() == "mgnet: interrupted; nothing was written"
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


class Moment:
    """Sends a signal to this process at one of the calls of what runs within it.

    Only while the command handles signals: before and after that, SIGTERM would end the tests.
    """

    def __init__(self, number, moment):
        self.number, self.moment, self.calls, self.sent = number, moment, 0, False

    def __call__(self, _frame, _event, _argument):
        self.calls += 1
        if 0 < self.moment <= self.calls and not self.sent:
            handler = signal.getsignal(self.number)
            if handler not in (signal.SIG_DFL, signal.default_int_handler):
                self.sent = True
                sys.setprofile(None)
                signal.raise_signal(self.number)

    def __enter__(self):
        self.former = sys.getprofile(), signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(self.former[0])
        signal.signal(signal.SIGINT, self.former[1])


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_signal_at_any_moment_leaves_all_or_nothing(tmp_path, monkeypatch, capsys):
    """Drawn among all calls of a fit: while it reads, scales, trains, draws, moves files."""
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text(GOOD)
    command = "fit data.csv --target rho --hidden 2 --levels 1 --evaluations 30 --out a/b".split()
    assert cli.main(command) == 0  # loads what a first fit loads
    shutil.rmtree("a")
    with Moment(0, 0) as whole:
        assert cli.main(command) == 0
    shutil.rmtree("a")
    rng = np.random.default_rng(1)
    # The last calls come after the exit code is settled.
    early, late = whole.calls ** rng.uniform(0.4, 0.99, 2), whole.calls * rng.uniform(0.0, 0.98, 3)
    for moment in (*early, *late):
        number = rng.choice([signal.SIGINT, signal.SIGTERM])
        capsys.readouterr()
        with Moment(number, max(int(moment), 60)) as sender:
            code = cli.main(command)
        err = capsys.readouterr().err
        if not sender.sent:  # the number of calls varies with the time that a fit takes
            assert code == 0
            shutil.rmtree("a")
            continue
        told = f"call {moment:.0f} of {whole.calls}, signal {number}: {code}, {err}"
        assert code == 128 + number and "Traceback" not in err, told
        if "nothing was written" in err:
            assert os.listdir() == ["data.csv"], told
        else:
            assert os.listdir("a") == ["b"] and "the model is in a/b" in err, told
            assert {"model.json", "model.safetensors"} <= set(os.listdir("a/b")), told
            assert cli.main(["info", "a/b"]) == 0, told
            shutil.rmtree("a")


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_files_have_the_mode_that_umask_prescribes(tmp_path, monkeypatch, mask):
    monkeypatch.chdir(tmp_path)
    former = os.umask(mask)
    try:
        Path("data.csv").write_text("a,b\n" + "".join(f"{k},{k * k}\n" for k in range(40)))
        fit = "fit data.csv --target b --hidden 2 --levels 1 --evaluations 5 --out out"
        for line in (fit, "predict out data.csv --out new.csv"):
            assert cli.main(line.split()) == 0
    finally:
        os.umask(former)
    made = [*Path("out").iterdir(), Path("new.csv")]
    assert len(made) == 8
    assert {stat.S_IMODE(file.stat().st_mode) for file in made} == {0o666 & ~mask}
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o777 & ~mask


# Whole processes


def test_process_refuses_with_code_2_and_no_traceback(tmp_path):
    done = run("fit", "none.csv", "--target", "rho", cwd=tmp_path, script=("-m", "mgnet"))
    assert (done.returncode, done.stdout) == (2, "")
    expected = "mgnet: none.csv does not exist; expected a CSV, .npz, Parquet or Excel file\n"
    assert done.stderr == expected
    assert not list(tmp_path.iterdir())


def test_process_fits_and_predicts(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.arange(60.0).reshape(30, 2) ** 0.5, y=np.arange(30.0))
    done = run("fit", "data.npz", "--target", "y", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote out/model.json" in done.stdout
    done = run("predict", "out", "data.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("x0,x1,y,y_predicted\n0,1,0,")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_traceback(install, tmp_path):
    rows = "".join(f"{k},{k}\n" for k in range(50_000))
    Path("data.csv").write_text(f"a,b\n{rows}")
    assert cli.main(["fit", "data.csv", "--target", "b"]) == 0
    command = f"'{sys.executable}' '{SCRIPT}' quick predict mgnet-fit data.csv | head -n 1"
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "a,b,b_predicted\n"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_starting_needs_neither_torch_nor_matplotlib(tmp_path):
    code = "import sys, mgnet.app.cli; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = run(cwd=tmp_path, script=("-c", code))
    assert done.stdout == "set()\n"
