"""Methods that `mgnet fit --compare` trains for the same time, each with its best settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mgnet import Hierarchy, Level
from mgnet.app.baselines import spline
from mgnet.app.boosted_trees import boosting
from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Settings, Trained, intervals_on, parameters
from mgnet.app.fit import fit, limits
from mgnet.app.units import Units
from mgnet.estimators.budgeted_training import train_within
from mgnet.estimators.objectives import entropy, squares
from mgnet.estimators.rows import checked_weights
from mgnet.estimators.scales import Scales
from mgnet.estimators.training_budget import TrainingBudget
from mgnet.training import LBFGS, LevenbergMarquardt

__all__ = ["baselines", "each_target", "logistic", "perceptron", "single_level"]

FOLDS = 5
MOST_SPLINE_INPUTS = 3  # the size of a tensor product grows like knots**inputs


def single_level(data: Data, settings: Settings, optimizer: str) -> Trained:
    """Train the finest network on a single level, beginning with the same initial function.

    Parameters
    ----------
    data : Data
        Training and held-out rows.
    settings : Settings
        Settings of the fit.
    optimizer : "lm" or "lbfgs"
        Optimizer of the network.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 100)[:, None]
    >>> data = Data(("x",), Targets(("y",)), x, x[:, 0] ** 2, x, x[:, 0] ** 2)
    >>> single_level(data, Settings(hidden=(2,), levels=2, evaluations=30), "lm").held_loss < 1e-3
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
    """Train a tanh network with two hidden layers and about this many parameters.

    It is trained by Levenberg-Marquardt, or for classes by L-BFGS.

    Parameters
    ----------
    data : Data
        Training and held-out rows.
    settings : Settings
        Settings of the fit.
    parameters : int
        Approximate number of parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 100)[:, None]
    >>> data = Data(("x",), Targets(("y",)), x, x[:, 0] ** 2, x, x[:, 0] ** 2)
    >>> perceptron(data, Settings(evaluations=60), 30).held_loss < 1e-3
    True
    """
    budget, classes = TrainingBudget(*limits(settings)), data.targets.classes
    inputs, outputs = len(data.names), len(data.targets.outputs)
    # Layers of width w have inputs w + w, w^2 + w and outputs (w + 1) parameters.
    half = (inputs + outputs + 2) / 2
    width = max(2, round((half**2 + parameters - outputs) ** 0.5 - half))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = torch.nn.Sequential(
            torch.nn.Linear(inputs, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, outputs),
        ).double()
    y = None if classes else data.y.reshape(len(data.y), -1)
    scales = Scales.of(data.x, y, data.weights)
    targets = torch.from_numpy(data.y) if y is None else scales.targets(y)
    weights = checked_weights("perceptron", data.weights, data.x)
    loss, smoother = (entropy, LBFGS()) if classes else (squares, LevenbergMarquardt())
    problem = loss(network, (scales.inputs(data.x), targets, weights), 0.0)  # type: ignore
    hierarchy = Hierarchy([Level(problem, smoother, objective=problem.value)])
    _, u = train_within(budget, hierarchy, "", {})
    if budget.interrupted:
        raise KeyboardInterrupt
    torch.nn.utils.vector_to_parameters(u, network.parameters())

    def predict(x):  # noqa: ANN001, ANN202 - as Trained.predict
        with torch.no_grad():
            outputs = network(scales.inputs(x))
            if classes:
                return torch.softmax(outputs, 1).numpy()
            values = scales.values(outputs)
        return values if data.y.ndim > 1 else values[:, 0]

    name = "L-BFGS" if classes else "LM"
    widths = [inputs, width, width, outputs]
    return Trained(
        f"tanh MLP, {name}",
        predict,
        len(u),
        budget.seconds,
        budget.work,
        *data.losses(predict),
        tuple(budget.history),
        f"widths {widths}, PyTorch's initial weights, mgnet's {smoother.__class__.__name__}",
    )


def logistic(data: Data) -> Trained:
    """Train logistic regression on standardized inputs; cross-validation chooses its penalty.

    Parameters
    ----------
    data : Data
        Data with classes.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(-1.0, 1.0, 100)[:, None]
    >>> y = (x[:, 0] > 0.0).astype(int)
    >>> logistic(Data(("x",), Targets(("kind",), ("n", "p")), x, y, x, y)).held_loss < 0.1
    True
    """
    begun = perf_counter()
    few = int(np.bincount(data.y).min())
    inner = LogisticRegression(max_iter=1000)
    if few >= FOLDS:
        inner = LogisticRegressionCV(cv=FOLDS, scoring="neg_log_loss", max_iter=1000)
    model = make_pipeline(StandardScaler(), inner)
    named = {f"{step}__sample_weight": data.weights for step, _ in model.steps[1:]}
    model.fit(data.x, data.y, **named)
    seconds, losses = perf_counter() - begun, data.losses(model.predict_proba)
    count = len(data.targets.classes) * (len(data.names) + 1)
    return Trained(
        "logistic regression",
        model.predict_proba,
        count,
        seconds,
        float("nan"),
        *losses,
        ((seconds, float("nan"), losses[0], 0),),
        "standardized inputs, penalty chosen by cross-validation",
    )


def each_target(data: Data, train: Callable[[Data], Trained]) -> Trained:
    """Apply a method for a single target to each of several targets separately.

    Parameters
    ----------
    data : Data
        Data with several targets.
    train : callable
        Function that trains on data with one target.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 100)[:, None]
    >>> y = np.column_stack([x, x**2])
    >>> data = Data(("x",), Targets(("y", "z")), x, y, x, y)
    >>> each_target(data, lambda one: boosting(one, 0.3, 0)).predict(x).shape
    (100, 2)
    """
    if data.y.ndim == 1:
        return train(data)
    parts = [
        train(replace(data, targets=Targets((name,)), y=y, y_held=held))
        for name, y, held in zip(data.targets.names, data.y.T, data.y_held.T, strict=True)
    ]

    def predict(x):  # noqa: ANN001, ANN202 - as Trained.predict
        return np.column_stack([part.predict(x) for part in parts])

    seconds, losses = sum(part.seconds for part in parts), data.losses(predict)
    return Trained(
        parts[0].name,
        predict,
        sum(part.parameters for part in parts),
        seconds,
        float("nan"),
        *losses,
        ((seconds, float("nan"), losses[0], 0),),
        "; ".join(f"{n}: {part.note}" for n, part in zip(data.targets.names, parts, strict=True)),
    )


def baselines(data: Data, settings: Settings, seconds: float) -> Iterator[Trained]:
    """Train one method after another; yield each when it is finished.

    Parameters
    ----------
    data : Data
        Training and held-out rows.
    settings : Settings
        Settings with the seed, and with the network of the single-level baselines.
    seconds : float
        Time limit for each method.

    Yields
    ------
    Trained
        A trained method.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C; the methods that have already been yielded are complete.
    """
    # A spline has no gradient evaluations, so all methods get the same seconds.
    settings = replace(settings, seconds=seconds, evaluations=None, ensemble=1)
    classes, names = data.targets.classes, data.targets.names
    for optimizer in ("lbfgs",) if classes else ("lm", "lbfgs"):
        yield single_level(data, settings, optimizer)
    count = parameters(len(data.names), settings, len(data.targets.outputs))
    yield perceptron(data, settings, count)
    units = Units.of(data)
    ordinary, each = units.data(data), seconds / len(names)
    if classes:
        yield _of_table(units, logistic(ordinary))
    elif len(data.names) <= MOST_SPLINE_INPUTS and data.weights is None:
        yield _of_table(units, each_target(ordinary, lambda one: spline(one, each)))
    trees = each_target(ordinary, lambda one: boosting(one, each, settings.seed))
    yield _of_table(units, trees)


def _of_table(units: Units, trained: Trained) -> Trained:
    return replace(trained, predict=units.of_table(trained.predict))
