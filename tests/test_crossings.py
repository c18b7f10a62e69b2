"""Law: the page on other libraries is made of saved verdicts, which quick cells find again."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from crossings import rows, table  # noqa: E402
from crossings.networks import NETWORKS, close, same_step  # noqa: E402

ROWS = rows.load()  # in the order of the page
from crossings import transformer_models  # noqa: E402

QUICK = [row for row in ROWS.values() if row.quick]
SAVED = {(cell["row"], cell["network"]): cell for cell in table.read()["cells"]}


def test_page_is_what_the_generator_makes():
    assert table.PAGE.read_text() == table.page(table.read()), "run table.py --page"


def test_saved_cells_are_those_of_the_rows_and_none_is_wrong():
    there = {(title, network) for title, row in ROWS.items() for network in row.networks}
    assert there >= set(SAVED) >= {key for key in there if ROWS[key[0]].quick}
    assert not [
        cell for cell in SAVED.values() if cell["verdict"] not in ("works", "refused", "fails")
    ]
    assert all(bool(cell["text"]) == (cell["verdict"] != "works") for cell in SAVED.values())


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.title)
def test_quick_cells_are_found_again(row):
    if row.missing():
        pytest.skip(f"{', '.join(row.missing())} is not installed")
    for network in map(rows.network_of, row.networks):
        saved, found = SAVED[row.title, network.title], rows.judge(row, network)
        if saved["verdict"] == "fails":  # in the words of another library, which may change
            saved, found = ({**told, "text": ""} for told in (saved, found))
        assert found == saved, "after a change on purpose: make crossings"


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.title)
def test_a_row_notices_wrong_numbers(row):
    """The plain function of the second network is made to differ by one part in ten."""
    network = rows.network_of(row.networks[1])
    if row.missing() or SAVED[row.title, network.title]["verdict"] != "works":
        pytest.skip("not run")

    def off(weights, x):
        return 1.1 * network.plain(weights, x)

    found = rows.judge(row, network._replace(plain=off))
    if row.title not in WITHOUT_NUMBERS:
        assert found["verdict"] == "wrong"


WITHOUT_NUMBERS = {'`module.to("meta")`, shapes of outputs'}


@pytest.mark.parametrize(
    ("check", "verdict", "text"),
    [
        (lambda network: None, "works", ""),
        (
            lambda network: close(torch.ones(1), 2 * torch.ones(1), "x"),
            "wrong",
            "x wrong by",
        ),
        (lambda network: torch.ones(2) @ torch.ones(3), "fails", "RuntimeError: "),
        (lambda network: network.make()("x"), "refused", "TypeError: KAN got inputs of type str"),
    ],
)
def test_judge(check, verdict, text):
    found = rows.judge(rows.Row("", "a row", check), NETWORKS[0])
    assert (found["row"], found["network"]) == ("a row", "KAN")
    assert found["verdict"] == verdict
    assert found["text"].startswith(text)


@pytest.mark.parametrize("part", ["whole", "before", "after"])
def test_a_model_notices_wrong_numbers(part, monkeypatch):
    row = ROWS["PyTorch: `nn.TransformerEncoder`"]
    right = transformer_models.Model

    def wrong(*given):
        model = right(*given)

        def off(*inputs):
            found = getattr(model, part)(*inputs)
            return (1.001 * found[0], *found[1:]) if part == "before" else 1.001 * found

        return model._replace(**{part: off})

    monkeypatch.setattr(transformer_models, "Model", wrong)
    found = rows.judge(row, NETWORKS[1])
    assert found["verdict"] == "wrong" and found["text"].startswith("outputs wrong by")


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.title)
def test_plain_functions_are_the_networks(network):
    same_step(network, network.make(), rtol=1e-11)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("a\n  b `c`\n\nmore", "ValueError: a b 'c'"),
        ("at 0x7f03 in /a/b/c.py", "ValueError: at 0x... in .../c.py"),
        ("x" * 300 + ". " + "y" * 300 + ".", "ValueError: " + "x" * 300 + "."),
        ("x " * 300 + "no c.", "ValueError: ... " + "x " * 162 + "no c."),
        ("Net( a=1, (b): C() ) has no d.", "ValueError: Net(...) has no d."),
        ("", "ValueError"),
    ],
)
def test_sentence(message, told):
    assert rows.sentence(ValueError(message)) == told


def test_a_row_that_was_not_run_says_so():
    row = next(iter(ROWS))
    saved = {"versions": {"Python": "3"}, "cells": []}
    assert f"| {row} | not run | not run |" in table.page(saved)
    cells = [{"row": row, "network": "KAN", "verdict": "refused", "text": "KAN got 1"}]
    text = table.page(saved | {"cells": cells})
    assert f"| {row} | refused (1) | not run |" in text
    assert "1. `KAN got 1`" in text


def test_cells_are_saved_one_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results.json")
    table.write([{"row": "a", "network": "b"}, {"row": "c", "network": "d"}])
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["cells"][1] == {"row": "c", "network": "d"}
    assert saved["versions"]["torch"] == torch.__version__.partition("+")[0]
