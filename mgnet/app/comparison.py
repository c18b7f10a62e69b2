"""What `mgnet fit --compare` trains for as many seconds, the strongest form of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from mgnet import Hierarchy, Level
from mgnet.app.baselines import boosting, spline
from mgnet.app.data import Data, Settings, Trained, intervals_on, parameters
from mgnet.app.fit import fit, limits
from mgnet.app.units import Units
from mgnet.estimators.budgeted_training import train_within
from mgnet.estimators.scales import Scales
from mgnet.estimators.training_budget import TrainingBudget
from mgnet.training import LeastSquares, LevenbergMarquardt

__all__ = ["perceptron", "baselines", "single_level"]

MOST_SPLINE_INPUTS = 3  # a tensor product grows like knots**inputs


def single_level(data: Data, settings: Settings, optimizer: str) -> Trained:
    """The finest network alone, from the same initial function, which is prolonged to it.

    Parameters
    ----------
    data : Data
    settings : Settings
    optimizer : "lm" or "lbfgs"

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0.0, 1.0, 100)[:, None]
    >>> data = Data(("x",), "y", x, x[:, 0] ** 2, x, x[:, 0] ** 2)
    >>> single_level(data, Settings(hidden=(2,), levels=2, evaluations=30), "lm").held_mse < 1e-3
    True
    """
    # A seed gives the same initial function on any number of intervals.
    fine = intervals_on(settings, settings.levels - 1)
    alone = replace(
        settings,
        intervals=fine,
        levels=1,
        most_intervals=(),
        optimizer=optimizer,
        cycle="",
        starts=1,
    )
    label = {"lm": "LM", "lbfgs": "L-BFGS"}[optimizer]
    fitted = fit(data, alone, name=f"KAN, one level, {label}", prefix="baseline_")
    if fitted.interrupted:
        raise KeyboardInterrupt
    return replace(fitted.trained, note="the finest network alone, from the same initial function")


def perceptron(data: Data, settings: Settings, parameters: int) -> Trained:
    """A tanh network with two hidden layers and about as many parameters, by Levenberg-Marquardt.

    Parameters
    ----------
    data : Data
    settings : Settings
    parameters : int

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0.0, 1.0, 100)[:, None]
    >>> data = Data(("x",), "y", x, x[:, 0] ** 2, x, x[:, 0] ** 2)
    >>> perceptron(data, Settings(evaluations=60), 30).held_mse < 1e-3
    True
    """
    budget = TrainingBudget(*limits(settings))
    inputs = len(data.names)
    # inputs w + w, w^2 + w, w + 1 parameters in the three layers.
    width = max(2, round(((inputs + 3) ** 2 / 4 + parameters - 1) ** 0.5 - (inputs + 3) / 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = torch.nn.Sequential(
            torch.nn.Linear(inputs, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, 1),
        ).double()
    scales = Scales.of(data.x, data.y[:, None])
    problem = LeastSquares(network, (scales.inputs(data.x), scales.targets(data.y[:, None])))
    hierarchy = Hierarchy([Level(problem, LevenbergMarquardt(), objective=problem.value)])
    _, u = train_within(budget, hierarchy, "", {})
    if budget.interrupted:
        raise KeyboardInterrupt
    torch.nn.utils.vector_to_parameters(u, network.parameters())

    def predict(x):  # noqa: ANN001, ANN202 - as Trained.predict
        with torch.no_grad():
            return scales.values(network(scales.inputs(x)))[:, 0]

    return Trained(
        "tanh MLP, LM",
        predict,
        len(u),
        budget.seconds,
        budget.work,
        data.mse(predict(data.x), data.y),
        data.mse(predict(data.x_held), data.y_held) if len(data.y_held) else float("nan"),
        tuple(budget.history),
        f"widths {[inputs, width, width, 1]}, PyTorch's initial weights, our Levenberg-Marquardt",
    )


def baselines(data: Data, settings: Settings, seconds: float) -> Iterator[Trained]:
    """Train one method after the other; yield each when it is ready.

    Parameters
    ----------
    data : Data
    settings : Settings
        Seed, and the network that the single-level baselines train.
    seconds : float
        For each of them.

    Yields
    ------
    Trained

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C ends the comparison; what was yielded before is complete.
    """
    # Gradient evaluations mean nothing to a spline: all get the same seconds.
    settings = replace(settings, seconds=seconds, evaluations=None)
    yield single_level(data, settings, "lm")
    yield single_level(data, settings, "lbfgs")
    yield perceptron(data, settings, parameters(len(data.names), settings))
    units = Units.of(data)
    ordinary = units.data(data)
    if len(data.names) <= MOST_SPLINE_INPUTS:
        yield _of_table(units, spline(ordinary, seconds))
    yield _of_table(units, boosting(ordinary, seconds, settings.seed))


def _of_table(units: Units, trained: Trained) -> Trained:
    return replace(trained, predict=units.of_table(trained.predict))
