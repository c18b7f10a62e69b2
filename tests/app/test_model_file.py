"""Law: files of a model are read as they were written, or refused in one sentence, at once."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mgnet.app import model_file
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.exchange import kept_aside
from mgnet.app.model import Model
from mgnet.app.model_file import read_model
from mgnet.knots import KAN
from tests.app.test_model import ROWS, as_format_1, model


def written_anew(folder, **changes):
    """Change model.json and make its digest fit."""
    told = json.loads((folder / "model.json").read_text()) | changes
    told["sha256"] = model_file._digest(told)
    (folder / "model.json").write_text(json.dumps(told))


def test_a_changed_digit_is_noticed_and_another_layout_is_not(tmp_path):
    model().save(tmp_path)
    file = tmp_path / "model.json"
    text = file.read_text()
    digits = [number for number, letter in enumerate(text) if letter.isdigit()]
    for place in np.random.default_rng(0).choice(digits, 25, replace=False):
        digit = str((int(text[place]) + 1) % 10)
        file.write_text(text[:place] + digit + text[place + 1 :])
        with pytest.raises(ValueError):
            read_model(tmp_path)
    file.write_text(json.dumps(json.loads(text), sort_keys=True))
    assert np.array_equal(Model.load(tmp_path).predict(ROWS), model().predict(ROWS))


def test_a_changed_weight_is_noticed(tmp_path):
    model().save(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="does not match the digest in model.json"):
        read_model(tmp_path)


def test_weights_that_were_kept_aside_are_found(tmp_path):
    model().save(tmp_path)
    told, _ = read_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / kept_aside(told["weights_sha256"]))
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert np.array_equal(Model.load(tmp_path).predict(ROWS), model().predict(ROWS))


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "absent", "large"])
def test_what_is_no_file_is_not_waited_for(tmp_path, name, kind):
    model().save(tmp_path)
    path = tmp_path / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises((OSError, ValueError)) as told:
        read_model(tmp_path)
    assert "\n" not in str(told.value) and name in str(told.value)


TEXTS = ["[" * 100_000, '{"a":' * 5000, "{}", "[]", "", "\xff", "9" * 5000]
TEXTS += [
    '{"mgnet": "1", "format": 1e999}',
    '{"mgnet": 1, "mgnet": 1}',
    '{"mgnet": 1, "format": true}',
]


@pytest.mark.parametrize("content", TEXTS, ids=range(len(TEXTS)))
def test_text_of_another_kind(tmp_path, content):
    model().save(tmp_path)
    (tmp_path / "model.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="damaged.*fit it again$"):
        read_model(tmp_path)


def test_weights_of_another_kind(tmp_path):
    model().save(tmp_path)
    as_format_1(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    first = state["coefficients.0"]
    for changed, words in [
        ({"coefficients.0": torch.full_like(first, torch.nan)}, "not finite"),
        ({"coefficients.0": first.float()}, "of F32"),
        ({"coefficients.0": first[:1].clone()}, r"F64 and \(1, 8, 3\)"),
        ({"more": first.clone()}, "has more of"),
        ({"_extra_state": torch.zeros(5, dtype=torch.uint8)}, "holds no options"),
    ]:
        save_file(state | changed, file)
        with pytest.raises(ValueError, match=words):
            Model.load(tmp_path)
    save_file({name: value for name, value in state.items() if name != "coefficients.1"}, file)
    with pytest.raises(ValueError, match="lacks coefficients.1"):
        Model.load(tmp_path)


def test_absurd_widths_make_nothing(tmp_path):
    model().save(tmp_path)
    for widths in ([2, 10**11, 1], [2, *[1] * 5000, 1]):
        written_anew(tmp_path, widths=widths, intervals=[5] * (len(widths) - 1))
        with pytest.raises(ValueError, match="damaged"):
            Model.load(tmp_path)


@pytest.mark.parametrize("linear", [False, True])
def test_a_loaded_network_is_the_saved_one_in_all_parts(tmp_path, linear):
    own = model(dtype=torch.float32, degree=2)
    if linear:
        own = Model(
            KAN([2, 4, 2, 1], [3, 6], linear=True),
            Encoding.of_numbers(["T", "p"]),
            Targets(("rho",)),
            model().scales,
        )
    own.save(tmp_path)
    saved, loaded = own.network, Model.load(tmp_path).network
    assert repr(loaded) == repr(saved)
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert [p.requires_grad for p in loaded.parameters()] == [True] * len(list(saved.parameters()))
    finer = loaded.refine()
    x = own.inputs(ROWS).clamp(-1.0, 1.0)
    torch.testing.assert_close(finer(x), saved(x))


def test_a_model_that_could_not_be_read_again_is_not_written(tmp_path):
    own = model()
    with torch.no_grad():
        own.network.coefficients[0][0] = torch.inf
    with pytest.raises(ValueError, match="cannot be saved.*not finite"):
        own.save(tmp_path)
    with pytest.raises(ValueError, match="cannot be saved.*single line"):
        odd = Encoding.of_numbers(["T", "p\nq"])
        Model(model().network, odd, own.targets, own.scales).save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_reader_goes_on_where_somebody_replaces_the_model(tmp_path, monkeypatch):
    """The weights are another's when they are read; then the description is read again."""
    one, two = model(), model(hidden="identity")
    one.save(tmp_path)
    own, calls = model_file._weights, []

    def weights(file, told):
        calls.append(told["hidden"])
        if len(calls) == 1:
            two.save(tmp_path)
        return own(file, told)

    monkeypatch.setattr(model_file, "_weights", weights)
    assert np.array_equal(Model.load(tmp_path).predict(ROWS), two.predict(ROWS))
    assert calls == ["tanh", "identity"]


def test_weights_that_get_their_name_between_two_looks(tmp_path, monkeypatch):
    """As a writer moves them: first the name of their digest, then the usual one."""
    model().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    digest = json.loads((tmp_path / "model.json").read_text())["weights_sha256"]
    aside = weights.rename(tmp_path / kept_aside(digest))
    weights.write_bytes(b"of a former model")
    content = model_file._content

    def looked(path, most):
        seen = content(path, most)
        if path == weights and aside.exists():
            aside.replace(weights)
        return seen

    monkeypatch.setattr(model_file, "_content", looked)
    assert np.array_equal(Model.load(tmp_path).predict(ROWS), model().predict(ROWS))
