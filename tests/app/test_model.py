"""A saved model predicts the same, bit for bit; damaged and newer files are refused."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.files.columns import Column
from mgnet.app.model import Model
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN


def model(**options):
    generator = torch.Generator().manual_seed(3)
    kan = KAN([2, 3, 1], 5, generator=generator, **options)
    scales = Scales(((300.0, 500.0), (0.1, 20.0)), (200.0,), (50.0,), kan.domain)
    return Model(kan, Encoding.of_numbers(["T", "p"]), Targets(("rho",)), scales)


def as_format_1(folder):
    """Make of a model what versions without digests wrote."""
    file = folder / "model.json"
    told = json.loads(file.read_text())
    del told["sha256"], told["weights_sha256"], told["columns"], told["classes"], told["left_out"]
    (told["mean"],), (told["scale"],) = told["mean"], told["scale"]
    told = {"target" if key == "targets" else key: value for key, value in told.items()}
    (told["target"],) = told["target"]
    file.write_text(json.dumps(told | {"format": 1}))


def as_format_2(folder):
    """Make of a model what versions without categories wrote: with digests."""
    as_format_1(folder)
    file = folder / "model.json"
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    told = json.loads(file.read_text()) | {"format": 2, "weights_sha256": weights}
    text = json.dumps(told, sort_keys=True).encode()
    file.write_text(json.dumps(told | {"sha256": hashlib.sha256(text).hexdigest()}, indent=2))


ROWS = np.random.default_rng(0).uniform([250.0, -5.0], [600.0, 30.0], (50, 2))


@pytest.mark.parametrize(
    "options", [{}, {"degree": 5, "domain": (0.0, 2.0)}, {"hidden": "identity"}]
)
def test_what_is_loaded_predicts_what_was_saved(tmp_path, options):
    saved = model(**options)
    saved.save(tmp_path)
    for path in (tmp_path, tmp_path / "model.json"):
        loaded = Model.load(path)
        assert np.array_equal(loaded.predict(ROWS), saved.predict(ROWS))
        assert (loaded.encoding, loaded.targets) == (saved.encoding, saved.targets)


def test_files_from_before_hidden_was_an_option_mean_tanh(tmp_path):
    saved = model()
    saved.save(tmp_path)
    as_format_1(tmp_path)
    file = tmp_path / "model.json"
    told = json.loads(file.read_text())
    del told["hidden"], told["dtype"]
    keys = ["mgnet", "format", "kind", "widths", "intervals", "degree", "linear", "domain"]
    assert list(told) == [*keys, "inputs", "target", "ranges", "mean", "scale"]  # as it was then
    file.write_text(json.dumps(told))
    loaded = Model.load(tmp_path)
    assert loaded.network.hidden == "tanh"
    assert np.array_equal(loaded.predict(ROWS), saved.predict(ROWS))


def test_files_from_before_there_were_categories(tmp_path):
    saved = model()
    saved.save(tmp_path)
    as_format_2(tmp_path)
    loaded = Model.load(tmp_path)
    assert np.array_equal(loaded.predict(ROWS), saved.predict(ROWS))
    assert (loaded.encoding, loaded.targets) == (saved.encoding, saved.targets)
    file = tmp_path / "model.json"
    file.write_text(file.read_text().replace('"rho"', '"rh0"'))
    with pytest.raises(ValueError, match="does not match its digest"):
        Model.load(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_classes_and_several_targets_are_saved(tmp_path, seed):
    rng = np.random.default_rng(seed)
    texts = np.array(["a", "b"] * 5, dtype=object)
    encoding = Encoding.of([Column("T", "number", rng.normal(size=10)), Column("k", "text", texts)])
    ranges = ((-1.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    network = KAN([3, 2, 3], 4, generator=torch.Generator().manual_seed(seed))
    x = np.column_stack([rng.normal(size=20) * 3, *np.eye(2)[rng.integers(0, 2, 20)].T])
    several = Model(network, encoding, Targets(tuple("uvw")),
                    Scales(ranges, (1.0, 2.0, 3.0), (1e-5, 1.0, 1e5)))  # fmt: skip
    classes = Model(network, encoding, Targets(("k2",), ("p", "q", "ä")), Scales(ranges))
    for own in (several, classes):
        own.save(tmp_path)
        loaded = Model.load(tmp_path)
        assert np.array_equal(loaded.predict(x), own.predict(x))
        assert (loaded.encoding, loaded.targets) == (own.encoding, own.targets)
        assert str(loaded) == str(own)
    z = classes.inputs(x).clamp(-1.0, 1.0)
    with torch.no_grad():
        expected = torch.softmax(network(z), 1).numpy()
    np.testing.assert_allclose(classes.predict(x), expected)
    inside = np.abs(x[:, 0]) < 1.0
    with torch.no_grad():
        outputs = network(several.inputs(x)).numpy()[inside]
    exact = np.array([1.0, 2.0, 3.0]) + np.array([1e-5, 1.0, 1e5]) * outputs
    np.testing.assert_allclose(several.predict(x)[inside], exact)
    assert "one of p, q, ä" in str(classes) and "u, about 1 with" in str(several)


def test_files_from_before_options_were_in_the_state(tmp_path):
    saved = model(domain=(0.0, 2.0))
    saved.save(tmp_path)
    as_format_1(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["_extra_state"]
    save_file(state, file)
    assert np.array_equal(Model.load(tmp_path).predict(ROWS), saved.predict(ROWS))


def test_inputs_are_mapped_to_the_domain_and_outputs_back():
    own = model()
    corners = np.array([[300.0, 0.1], [500.0, 20.0], [400.0, 10.05]])
    np.testing.assert_allclose(own.inputs(corners), [[-1, -1], [1, 1], [0, 0]], atol=1e-14)
    inside = np.clip(ROWS, [300.0, 0.1], [500.0, 20.0])
    with torch.no_grad():
        out = own.network(own.inputs(inside))[:, 0].numpy()
    np.testing.assert_allclose(own.predict(inside), 200.0 + 50.0 * out)


def test_inside_it_is_the_network_and_beyond_its_tangent():
    own = model()
    corner, away = np.array([500.0, 20.0]), np.array([40.0, 3.0])
    inside = np.array([corner - 1e-6 * away, corner])
    slope = np.diff(own.predict(inside))[0] / 1e-6
    beyond = own.predict(np.array([corner + t * away for t in (0.0, 1.0, 2.0, 5.0)]))
    expected = own.predict(corner[None])[0] + slope * np.array([0.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(beyond, expected, rtol=1e-4)


def test_info_names_everything():
    text = str(model())
    for part in ("[2, 3, 1]", "degree 3", "5 intervals", "72 parameters", "rho", "300 to 500"):
        assert part in text


def damage(folder, what):
    file = folder / "model.json"
    told = json.loads(file.read_text())
    if what == "newer":
        told["format"] = 99
    elif what == "short":
        (folder / "model.safetensors").write_bytes(b"12345")
    elif what == "gone":
        (folder / "model.safetensors").unlink()
    elif what == "widths":
        told["widths"] = [2, 4, 1]
    elif what == "kind":
        told["kind"] = "FreeKnotKAN"
    elif what == "key":
        del told["degree"]
    file.write_text("{" if what == "json" else json.dumps(told))


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("newer", ValueError, "has format 99.*upgrade"),
        ("short", ValueError, "damaged.*fit it again"),
        ("widths", ValueError, "damaged"),
        ("key", ValueError, "damaged.*degree"),
        ("kind", ValueError, "damaged.*kind is FreeKnotKAN; expected KAN"),
        ("json", ValueError, "damaged"),
        ("gone", FileNotFoundError, "model.safetensors is missing"),
    ],
)
def test_damaged_and_newer_models_are_refused(tmp_path, what, kind, words):
    model().save(tmp_path)
    as_format_1(tmp_path)
    damage(tmp_path, what)
    with pytest.raises(kind, match=words):
        Model.load(tmp_path)


def test_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model.json"):
        Model.load(tmp_path)


def test_a_network_in_single_precision_predicts():
    wide, narrow = model().predict(ROWS), model(dtype=torch.float32).predict(ROWS)
    np.testing.assert_allclose(narrow, wide, rtol=1e-4)


def test_a_file_from_before_constant_inputs_were_left_out_does_not_depend_on_them():
    """The network has an edge for them, which no row has trained."""
    scales = Scales(((300.0, 500.0), (7.0, 7.0)), (200.0,), (50.0,))
    own = Model(model().network, Encoding.of_numbers(["T", "p"]), Targets(("rho",)), scales)
    rows = np.array([[400.0, p] for p in (7.0, 8.0, -1e308, 0.0)])
    assert len(set(own.predict(rows))) == 1


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_ranges_and_scales_of_any_size_are_saved(tmp_path, size):
    scales = Scales(((-size, size), (0.0, 5e-324)), (size,), (1e-3 * size,))
    own = Model(model().network, Encoding.of_numbers(["T", "p"]), Targets(("rho",)), scales)
    own.save(tmp_path)
    loaded = Model.load(tmp_path)
    rows = np.array([[0.3 * size, 0.0], [size, 5e-324]])
    assert loaded.scales == scales
    assert np.array_equal(loaded.predict(rows), own.predict(rows))
    assert np.all(np.isfinite(own.predict(rows))) and np.ptp(own.predict(rows)) > 0.0
