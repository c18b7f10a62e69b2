"""The command `mgnet` with a stand-in for training: a straight line, fitted at once.

Run as a script by tests of whole processes: `stand_in.py MODE ARGUMENTS`, where MODE is `quick` or
`wait` (trains until Ctrl-C, as the real job does).
"""

import contextlib
import json
import sys
import time
import types
from pathlib import Path

import numpy as np

import mgnet
from mgnet.app import cli, comparison, job
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.cost_model import cost_model
from mgnet.app.data import Trained


class Model:
    network = None

    def __init__(self, names, target, ranges, weights):
        self.target, self.encoding = target, Encoding.of_numbers(names)
        self.names, self.targets = self.encoding.names, Targets((target,))
        self.scales, self.weights = types.SimpleNamespace(ranges=ranges), np.array(weights)

    def inputs(self, x):
        return x

    def predict(self, x):
        return x @ self.weights[:-1] + self.weights[-1]

    def save(self, folder):
        content = {"mgnet": "stand-in", "names": self.names, "target": self.target}
        content |= {
            "ranges": np.asarray(self.scales.ranges).tolist(),
            "weights": self.weights.tolist(),
        }
        (folder / "model.json").write_text(json.dumps(content))
        (folder / "model.safetensors").write_bytes(b"")

    @classmethod
    def load(cls, path):
        path = Path(path)
        try:
            file = path / "model.json" if path.is_dir() else path
            content = json.loads(file.read_text())
        except OSError:
            raise FileNotFoundError(f"{path} holds no model.json") from None
        except ValueError:
            raise ValueError(f"{path} is damaged") from None
        del content["mgnet"]
        return cls(**content)

    def __str__(self):
        return f"{self.target} from {', '.join(self.names)}"


def fit(
    data, settings, progress=None, announce=None, interruptible=contextlib.nullcontext, mode="quick"
):
    columns = np.column_stack([data.x, np.ones(len(data.x))])
    weights = np.linalg.lstsq(columns, data.y, rcond=None)[0]
    ranges = list(zip(data.x.min(axis=0), data.x.max(axis=0), strict=True))
    model = Model(data.names, data.targets.title, ranges, weights)
    interrupted = mode == "interrupted"
    hierarchy, schedule = cost_model(settings.levels), mgnet.cascade([1] * settings.levels)
    if announce:
        announce(hierarchy, schedule)
    try:
        for k in range(3):
            if progress:
                progress(0.1 * k, k / 2, 10.0**-k, 2 - k)
        if mode == "wait":
            with interruptible():
                sys.stderr.write("ready\n")
                sys.stderr.flush()
                time.sleep(60.0)
    except KeyboardInterrupt:
        interrupted = True
    train, held = data.loss(model.predict(data.x), data.y), 0.5
    trained = Trained("line", model.predict, len(weights), 0.3, 3.0, train, held)
    return types.SimpleNamespace(
        ensembles=(),
        settings=settings,
        hierarchy=hierarchy,
        schedule=schedule,
        summary=f"{hierarchy}\n\n{schedule}",
        model=model,
        trained=trained,
        interrupted=interrupted,
    )


def install(replace=setattr, module=sys.modules.__setitem__, mode="quick"):
    replace(job, "fit", lambda *arguments, **named: fit(*arguments, mode=mode, **named))

    def write_report(folder, data, settings, trained, **shown):
        text = [*(result.name for result in trained), *shown["remarks"], shown["command"]]
        (folder / "report.md").write_text("\n".join(text))

    def spline(data, seconds):
        return Trained("rival", lambda x: x[:, 0], 1, seconds, float("nan"), 0.7, 0.8)

    def boosting(data, seconds, seed):
        if mode == "interrupt baselines":
            raise KeyboardInterrupt
        return Trained("trees", lambda x: x[:, 0], 1, seconds, float("nan"), 0.7, 0.8)

    def plot(*_, names=(), ranges=()):
        return types.SimpleNamespace(savefig=lambda path, dpi: path.write_bytes(b""))

    module("mgnet.app.model", types.SimpleNamespace(Model=Model))

    def network(data, settings, *_):
        return Trained("net", lambda x: x[:, 0], 1, settings.seconds, 5.0, 0.7, 0.8)

    for name, rival in (("spline", spline), ("boosting", boosting)):
        replace(comparison, name, rival)
    for name in ("single_level", "perceptron"):
        replace(comparison, name, network)
    module("mgnet.app.report", types.SimpleNamespace(write_report=write_report))
    module("mgnet.app.dependence", types.SimpleNamespace(plot_dependence=plot))
    module("mgnet.plot.edges", types.SimpleNamespace(plot_edges=plot))
    module(
        "mgnet.app.pictures",
        types.SimpleNamespace(
            plot_fit=plot, plot_training=plot, as_label=str, influential=lambda *_: []
        ),
    )


if __name__ == "__main__":
    install(mode=sys.argv[1])
    sys.exit(cli.main(sys.argv[2:]))
