"""The rows of benchmarks/rough_compositions.py: methods, settings to choose from, chosen ones.

The chosen settings of the other methods had the lowest held-out error on seed 0, which is in no
table. All tried settings are in results/rough_settings.jsonl.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import rough_libraries as libraries
import rough_link_models as links
import rough_rivals as rivals
from rough_link_models import Predict
from rough_multilevel import gradient_first, multilevel
from rough_targets import Rows, composed, no_composition

Settings = dict[str, Any]
GENERAL, LINK, SAME, OURS = "general", "link model", "same network at once", "multilevel"


class Case(NamedTuple):
    """A target; settings are those chosen on `as_in`."""

    title: str
    draw: Callable[[int], Rows]
    as_in: str


CASES = {
    "one-sum": Case("one sum, d = 6", partial(composed, 6), "one-sum"),
    "noise": Case("one sum, noise 0.1", partial(composed, 6, noise=0.1), "noise"),
    "million": Case("one sum, 1e6 rows", partial(composed, 6, rows=10**6), "one-sum"),
    "two-sums": Case("two sums, d = 4", partial(composed, 4, pairs=2), "two-sums"),
    "field": Case("random field, d = 4", partial(no_composition, 4), "field"),
}


class Method(NamedTuple):
    """A row: `chosen` of a case, or of "one-sum" where nothing else stands there."""

    title: str
    kind: str
    fit: Callable[..., Predict]
    choices: list[Settings]
    chosen: dict[str, Settings]

    def settings(self, case: str) -> Settings:
        return self.chosen.get(CASES[case].as_in, self.chosen["one-sum"])


def grid(**choices: tuple[Any, ...]) -> list[Settings]:
    """All combinations."""
    return [dict(zip(choices, each, strict=True)) for each in product(*choices.values())]


def net(kind: str, by: str) -> Any:
    return partial(rivals.network, kind=kind, by=by)


METHODS = {
    "multilevel": Method(
        "KAN, multilevel",
        OURS,
        multilevel,
        grid(hidden=((2,),), levels=(4, 5), roughness_weight=(0.0, 1e-10, 1e-9)),
        {
            "one-sum": {"hidden": (2,)},
            "noise": {"hidden": (2,), "levels": 6, "roughness_weight": 1e-8},
            "two-sums": {"hidden": (4,), "levels": 5, "keep": (4, 2, 1, 1)},
            "field": {"hidden": (8,), "levels": 3, "starts": 4, "keep": (2, 1)},
        },
    ),
    "multilevel-all": Method(
        "KAN, all layers refined",
        OURS,
        multilevel,
        [],
        {"one-sum": {"hidden": (2,), "outer": 256}},
    ),
    "multilevel-narrow": Method(
        "KAN of one hidden value, multilevel",
        OURS,
        multilevel,
        grid(hidden=((1,),), levels=(4, 5, 6), keep=((4, 2, 1, 1, 1, 1),), degree=(3, 5)),
        {
            "one-sum": {"hidden": (1,), "levels": 7, "keep": (4, 2, 1, 1, 1, 1), "degree": 5},
            "noise": {"hidden": (1,), "levels": 6, "roughness_weight": 1e-8},
        },
    ),
    "gradient-first": Method(
        "KAN, multilevel gradient, then LM",
        OURS,
        gradient_first,
        grid(hidden=((2, 4), (3, 4), (6,))),
        {
            "one-sum": {"hidden": (2,), "outer": 16},
            "two-sums": {"hidden": (2, 4)},
            "field": {"hidden": (8, 4), "intervals": 32},
        },
    ),
    "lightgbm": Method(
        "LightGBM",
        GENERAL,
        libraries.lightgbm,
        grid(rate=(0.05, 0.1), leaves=(15, 31)),
        {"one-sum": {"rate": 0.1, "leaves": 31}},
    ),
    "catboost": Method(
        "CatBoost",
        GENERAL,
        libraries.catboost,
        grid(rate=(0.1, 0.2), depth=(4, 6)),
        {"one-sum": {"rate": 0.2, "depth": 6}},
    ),
    "xgboost": Method(
        "XGBoost",
        GENERAL,
        libraries.xgboost,
        grid(rate=(0.1, 0.2), depth=(4, 6)),
        {"one-sum": {"rate": 0.1, "depth": 6}},
    ),
    "boosting": Method(
        "scikit-learn's boosting",
        GENERAL,
        libraries.boosting,
        grid(rate=(0.05, 0.1, 0.2), leaves=(15, 31)),
        {"one-sum": {"rate": 0.1, "leaves": 31}, "noise": {"rate": 0.05, "leaves": 31}},
    ),
    "fourier-network": Method(
        "Fourier features, network, Adam",
        GENERAL,
        net("fourier", "adam"),
        [
            *grid(width=(16, 64), frequency=(64,), rate=(3e-3,), batch=(500,), decay=(0.5, 1.0)),
            *grid(width=(16,), frequency=(96, 128), rate=(3e-3,), batch=(500,), decay=(1.0,)),
        ],
        {
            case: {"width": 16, "frequency": most, "rate": 3e-3, "batch": 500, "decay": decay}
            for case, most, decay in (
                ("one-sum", 128, 1.0),
                ("noise", 64, 1.5),
                ("two-sums", 96, 1.0),
            )
        },
    ),
    "sine-adam": Method(
        "sine network, Adam",
        GENERAL,
        net("sine", "adam"),
        grid(width=(64, 128), frequency=(10.0, 30.0), rate=(1e-3,)),
        {"one-sum": {"width": 64, "frequency": 10.0, "rate": 1e-3}},
    ),
    "tanh-adam": Method(
        "tanh network, Adam",
        GENERAL,
        net("tanh", "adam"),
        grid(width=(64, 128), rate=(1e-3, 5e-3)),
        {"one-sum": {"width": 128, "rate": 5e-3}},
    ),
    "sine-broyden": Method(
        "sine network, Broyden",
        GENERAL,
        net("sine", "broyden"),
        grid(width=(32,), frequency=(5.0, 10.0, 20.0)),
        {"one-sum": {"width": 32, "frequency": 20.0}},
    ),
    "tanh-broyden": Method(
        "tanh network, Broyden",
        GENERAL,
        net("tanh", "broyden"),
        grid(width=(16, 32)),
        {"one-sum": {"width": 32}},
    ),
    "sine-lm": Method(
        "sine network, LM",
        GENERAL,
        net("sine", "lm"),
        grid(width=(16, 32), frequency=(5.0, 10.0), rows=(20000,)),
        {"one-sum": {"width": 16, "frequency": 5.0, "rows": 20000}},
    ),
    "tanh-lm": Method(
        "tanh network, LM",
        GENERAL,
        net("tanh", "lm"),
        grid(width=(16, 32), rows=(20000,)),
        {"one-sum": {"width": 16, "rows": 20000}},
    ),
    "fourier": Method(
        "Fourier features, ridge",
        GENERAL,
        rivals.fourier,
        grid(most=(64, 128), penalty=(1e-6, 1e-4)),
        {"one-sum": {"most": 64, "penalty": 1e-4}},
    ),
    "splines": Method(
        "additive splines",
        GENERAL,
        links.additive,
        grid(intervals=(128, 256), penalty=(1e-9, 1e-8, 1e-7)),
        {"one-sum": {"intervals": 256, "penalty": 1e-9}},
    ),
    "kernel": Method(
        "Matern kernel, Nystrom",
        GENERAL,
        rivals.kernel_ridge,
        grid(centres=(2500,), length=(0.5, 1.0, 2.0), penalty=(1e-7,)),
        {"one-sum": {"centres": 2500, "length": 2.0, "penalty": 1e-7}},
    ),
    "pursuit": Method(
        "projection pursuit, R's ppr",
        GENERAL,
        libraries.projection_pursuit,
        grid(terms=(4, 8)),
        {"one-sum": {"terms": 8}},
    ),
    "at-once-lm": Method(
        "KAN at once, LM",
        SAME,
        partial(rivals.kan_at_once, by="lm"),
        grid(hidden=((2,),), krylov=(False, True)),
        {"one-sum": {"hidden": (2,)}, "two-sums": {"hidden": (4,)}, "field": {"hidden": (4,)}},
    ),
    "at-once-lm-smooth": Method(
        "KAN at once, LM, roughness",
        SAME,
        partial(rivals.kan_at_once, by="lm"),
        grid(hidden=((2,),), roughness_weight=(1e-8, 1e-6, 1e-5)),
        {"one-sum": {"hidden": (2,), "roughness_weight": 1e-6}},
    ),
    "at-once-adam": Method(
        "KAN at once, Adam",
        SAME,
        partial(rivals.kan_at_once, by="adam"),
        [
            *grid(hidden=((1,), (2,), (8,), (4, 4)), rate=(0.01, 0.03, 0.1)),
            *grid(hidden=((1,),), rate=(0.03,), degree=(5,)),
        ],
        {
            "one-sum": {"hidden": (1,), "rate": 0.01},
            "noise": {"hidden": (1,), "rate": 0.01, "intervals": 128},
            "two-sums": {"hidden": (8,), "rate": 0.03},
        },
    ),
    "at-once-adam-smooth": Method(
        "KAN at once, Adam, roughness",
        SAME,
        partial(rivals.kan_at_once, by="adam"),
        grid(hidden=((8,),), rate=(0.01, 0.1), roughness_weight=(1e-10, 1e-9, 1e-8)),
        {
            "one-sum": {"hidden": (8,), "rate": 0.01, "roughness_weight": 1e-10},
            "noise": {"hidden": (1,), "rate": 0.01, "roughness_weight": 1e-9},
            "two-sums": {"hidden": (8,), "rate": 0.01, "roughness_weight": 1e-9},
        },
    ),
    "ace": Method(
        "alternating expectations",
        LINK,
        links.ace,
        grid(intervals=(128, 256), penalty=(1e-10, 1e-8)),
        {"one-sum": {"intervals": 128, "penalty": 1e-10}},
    ),
    "linked": Method(
        "additive with a learned link",
        LINK,
        links.linked,
        grid(intervals=(256, 512), penalty=(1e-14,), link=(32, 64)),
        {
            "one-sum": {"intervals": 512, "penalty": 1e-14, "link": 64},
            "noise": {"intervals": 256, "penalty": 1e-9, "link": 32},
        },
    ),
}

# What is tried where training values have noise: fewer knots, more penalty.
NOISY = {
    "multilevel": [
        *grid(hidden=((2,),), levels=(5,), roughness_weight=(0.0, 1e-10, 1e-9, 1e-8)),
        *grid(hidden=((2,),), levels=(6,), roughness_weight=(1e-10, 1e-9, 1e-8)),
    ],
    "multilevel-narrow": [
        *grid(hidden=((1,),), levels=(5,), roughness_weight=(0.0, 1e-10, 1e-9)),
        *grid(hidden=((1,),), levels=(6,), roughness_weight=(1e-10, 1e-9, 1e-8)),
        *grid(hidden=((1,),), levels=(5,), degree=(5,)),
        *grid(hidden=((1,),), levels=(5,), degree=(5,), roughness_weight=(1e-9,)),
    ],
    "fourier-network": [
        *grid(width=(16,), frequency=(64, 128), rate=(3e-3,), batch=(500,), decay=(0.5, 1.0)),
        *grid(width=(16,), frequency=(64,), rate=(3e-3,), batch=(500,), decay=(1.5,)),
    ],
    "at-once-adam": [
        *grid(hidden=((1,),), rate=(0.01,), intervals=(128, 256)),
        *grid(hidden=((2,),), rate=(0.01,), intervals=(128,)),
    ],
    "at-once-adam-smooth": [
        *grid(hidden=((1,),), rate=(0.01,), roughness_weight=(1e-10, 1e-9, 1e-8)),
        *grid(hidden=((8,),), rate=(0.01,), roughness_weight=(1e-9,)),
    ],
    "linked": grid(intervals=(256,), penalty=(1e-11, 1e-10, 1e-9, 1e-8), link=(16, 32)),
}
