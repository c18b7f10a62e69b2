"""Models of drawn options, and rows of their tables, for the tests of exports."""

import numpy as np
import pytest
import torch

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.exports.formula import Formula, Layer
from mgnet.app.exports.input_column import InputColumn
from mgnet.app.model import Model
from mgnet.estimators.scales import Scales, continued
from mgnet.knots import KAN

NAMES = ('T "K"', "p\\t\\u12", "ρ, %{x}", "value_1")


def model_and_rows(seed):
    """A model with odd names, ranges of any size, and any options."""
    draw = np.random.default_rng(seed)
    linear = bool(seed % 2)
    inputs = int(draw.integers(1, 5))
    kan = KAN(
        [inputs, *draw.integers(1, 4, int(draw.integers(1, 3))).tolist(), 1],
        int(draw.integers(1, 9)),
        seed % 5 + 1,
        linear=linear,
        domain=[(-1.0, 1.0), (-0.1, 1 / 3)][seed % 3 == 0],
        hidden=["tanh", "identity"][seed % 4 == 3],
        generator=torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():  # splines of every degree, not the polynomials of the start
        for u in kan.coefficients:
            u += 0.3 * torch.from_numpy(draw.standard_normal(u.shape))
    size = 10.0 ** draw.choice([-300, -3, 0, 4, 300], inputs)
    low = draw.uniform(-1.0, 1.0, inputs)
    high = low + draw.uniform(0.1, 2.0, inputs)
    if inputs > 2:
        high[2] = low[2]
    ranges = tuple(zip((size * low).tolist(), (size * high).tolist(), strict=True))
    unit = 10.0 ** draw.choice([-300, 0, 200])
    scales = Scales(ranges, (float(3.0 * unit),), (float(unit),), kan.domain)
    model = Model(kan, Encoding.of_numbers(NAMES[:inputs]), Targets(("y [kg/m³]",)), scales)
    places = draw.uniform(-1.0, 2.0, (200, inputs))
    places[:20] = draw.integers(0, 2, (20, inputs))  # corners of the box
    places[20:40] *= 1e4
    return model, size * (low + places * np.where(high > low, high - low, 1.0))


def largest_difference(found, right):
    """The largest one, over the larger of the value itself and the median of all."""
    sizes = np.abs(right)
    with np.errstate(all="ignore"):
        return float((np.abs(found - right) / np.maximum(sizes, np.median(sizes))).max())


@pytest.fixture
def drawn():
    return model_and_rows


@pytest.fixture
def difference():
    return largest_difference


COLUMNS = (
    InputColumn("T"),
    InputColumn('k"\\nd', {"a": 0, 'b "é"\\n': 1, "": 1, "c": -1}, other=2, features=3),
    InputColumn("on", note="1: true, 0: false"),
    InputColumn("rare", {"x": 0}, features=1),
)


def mixed_formula(seed, classes=()):
    """Texts among numbers, two targets or three classes; rows, and what is right for them."""
    draw = np.random.default_rng(seed)
    model, _ = model_and_rows(seed)
    outputs = len(classes) or 2
    kan = KAN([6, 3, outputs], 5, seed % 5 + 1, hidden=model.network.hidden,
              generator=torch.Generator().manual_seed(seed))  # fmt: skip
    scales = Scales(
        ((-3.0, 40.0), *((0.0, 1.0),) * 5),
        () if classes else (3.0, -1e200),
        () if classes else (2.0, 1e199),
        kan.domain,
    )
    rows = 60
    t, on = draw.uniform(-60.0, 90.0, rows), draw.integers(0, 2, rows).astype(float)
    kinds = draw.choice(np.array(["a", 'b "é"\\n', "", "c", "new", "ä"], dtype=object), rows)
    rare = draw.choice(np.array(["x", "y"], dtype=object), rows)
    places = {"a": [1, 0, 0], 'b "é"\\n': [0, 1, 0], "": [0, 1, 0], "c": [0, 0, 0]}
    one_hot = np.array([places.get(kind, [0, 0, 1]) for kind in kinds], dtype=float)
    features = np.column_stack([t, one_hot, on, rare == "x"]).astype(float)
    z = scales.inputs(features)
    if classes:
        right = torch.softmax(kan(z.clamp(*kan.domain)), 1).detach().numpy()
    else:
        right = scales.values(continued(kan, z))
    formula = Formula(
        columns=COLUMNS,
        targets=("kind",) if classes else ("T [K]", "p"),
        classes=classes,
        ranges=np.array(scales.ranges),
        mean=np.array(scales.mean),
        scale=np.array(scales.scale),
        degree=kan.degree,
        domain=kan.domain,
        hidden=kan.hidden,
        linear=None,
        layers=tuple(Layer(5, u.detach().numpy()) for u in kan.coefficients),
    )
    return formula, [t, kinds, on, rare], features, right


@pytest.fixture
def mixed():
    return mixed_formula
