"""Methods of other libraries: for benchmarks/rough_compositions.py, one thread each."""

import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rough_link_models import Predict
from rough_rivals import parts
from rough_targets import Rows

FIT = """
d <- as.matrix(read.table("train.txt")); n <- ncol(d)
m <- ppr(d[, -n], d[, n], nterms={terms}, max.terms={most}, sm.method="supsmu")
saveRDS(m, "model.rds")
"""
PREDICT = """
y <- predict(readRDS("model.rds"), as.matrix(read.table("new.txt")))
write(y, "out.txt", ncolumns=1)
"""


def of_numpy(model: Any) -> Predict:
    return lambda x: torch.from_numpy(np.asarray(model(x.numpy()), dtype=float).reshape(-1, 1))


def boosting(
    data: Rows, seconds: float, seed: int, *, rate: float, leaves: int, l2: float = 0.0
) -> Predict:
    """scikit-learn's trees of histograms, as many as the seconds allow, with an early stop."""
    from sklearn.ensemble import HistGradientBoostingRegressor as Trees

    x, y = data.x.numpy(), data.y.numpy().ravel()
    options: Any = {"learning_rate": rate, "max_leaf_nodes": leaves, "l2_regularization": l2}
    options |= {"random_state": seed, "early_stopping": True, "n_iter_no_change": 50}
    options |= {"min_samples_leaf": 10, "validation_fraction": 0.05}
    costs = []
    began = time.process_time()
    for trees in (5, 55):
        start = time.process_time()
        Trees(max_iter=trees, **options).fit(x, y)
        costs.append(time.process_time() - start)
    each = max((costs[1] - costs[0]) / 50.0, 1e-5)
    left = 0.9 * (seconds - (time.process_time() - began) - costs[0])
    return of_numpy(Trees(max_iter=max(50, int(left / each)), **options).fit(x, y).predict)


def catboost(data: Rows, seconds: float, seed: int, *, rate: float, depth: int) -> Predict:
    import catboost as library  # pyright: ignore[reportMissingImports]

    until = time.process_time() + 0.95 * seconds
    kept, x, y = parts(data)

    class Clock:
        def after_iteration(self, info: Any) -> bool:
            return time.process_time() < until

    model = library.CatBoostRegressor(
        iterations=100000,
        learning_rate=rate,
        depth=depth,
        thread_count=1,
        random_seed=seed,
        verbose=False,
        allow_writing_files=False,
    )
    apart = (x.numpy(), y.numpy().ravel())
    model.fit(
        kept.x.numpy(),
        kept.y.numpy().ravel(),
        eval_set=apart,
        early_stopping_rounds=200,
        callbacks=[Clock()],
    )
    return of_numpy(model.predict)


def lightgbm(data: Rows, seconds: float, seed: int, *, rate: float, leaves: int) -> Predict:
    import lightgbm as library  # pyright: ignore[reportMissingImports]

    until = time.process_time() + 0.95 * seconds
    kept, x, y = parts(data)

    def clock(told: Any) -> None:
        if time.process_time() >= until:
            raise library.callback.EarlyStopException(told.iteration, told.evaluation_result_list)

    options = {"objective": "l2", "learning_rate": rate, "num_leaves": leaves, "num_threads": 1}
    options |= {"seed": seed, "verbose": -1, "min_data_in_leaf": 10, "max_bin": 1023}
    train = library.Dataset(kept.x.numpy(), kept.y.numpy().ravel())
    apart = train.create_valid(x.numpy(), y.numpy().ravel())
    calls = [library.early_stopping(100, verbose=False), clock]
    model = library.train(options, train, 100000, valid_sets=[apart], callbacks=calls)
    return of_numpy(partial(model.predict, num_iteration=model.best_iteration))


def xgboost(data: Rows, seconds: float, seed: int, *, rate: float, depth: int) -> Predict:
    import xgboost as library  # pyright: ignore[reportMissingImports]

    until = time.process_time() + 0.95 * seconds
    kept, x, y = parts(data)

    class Clock(library.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            return time.process_time() >= until

    options = {"eta": rate, "max_depth": depth, "nthread": 1, "seed": seed, "max_bin": 1024}
    train = library.DMatrix(kept.x.numpy(), kept.y.numpy().ravel())
    apart = library.DMatrix(x.numpy(), y.numpy().ravel())
    model = library.train(
        options,
        train,
        100000,
        evals=[(apart, "apart")],
        early_stopping_rounds=100,
        callbacks=[Clock()],
        verbose_eval=False,
    )
    rounds = (0, model.best_iteration + 1)
    return of_numpy(lambda x: model.predict(library.DMatrix(x), iteration_range=rounds))


def projection_pursuit(data: Rows, seconds: float, seed: int, *, terms: int) -> Predict:
    """R's ppr: a sum of functions of weighted sums of the inputs. It ends by itself."""
    if shutil.which("Rscript") is None:
        raise ImportError("projection pursuit needs R")
    folder = tempfile.TemporaryDirectory()

    def R(code: str) -> None:
        subprocess.run(["Rscript", "-e", code], check=True, cwd=folder.name, capture_output=True)

    np.savetxt(Path(folder.name) / "train.txt", torch.cat([data.x, data.y], 1).numpy())
    R(FIT.format(terms=terms, most=terms + 2))

    def predict(x: torch.Tensor) -> torch.Tensor:
        np.savetxt(Path(folder.name) / "new.txt", x.numpy())
        R(PREDICT)
        return torch.from_numpy(np.loadtxt(Path(folder.name) / "out.txt"))[:, None]

    return predict
