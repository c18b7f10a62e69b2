"""Law: a record holds what an independent count says, and costs the run nothing it tells."""

import time

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Level, Solver, cascade, parse, run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    LeastSquares,
    LevenbergMarquardt,
    Objective,
    Record,
    Row,
    TorchOptimizer,
)

X = torch.linspace(-1, 1, 30, dtype=torch.float64).unsqueeze(1)
Y = torch.sin(4 * X)
ADAM = TorchOptimizer(torch.optim.Adam, {"lr": 0.05})


def fit(smoother=ADAM, levels=3, form="subspace"):
    kan = KAN([1, 2, 1], intervals=2)
    problem = LeastSquares(kan, (X[::2], Y[::2]))
    hierarchy = knot_hierarchy(kan, problem, levels, smoother, form=form)
    return hierarchy, LeastSquares(kan, (X[1::2], Y[1::2])), hierarchy[0].operator.start()


def half_mean_square(network, x, y):
    with torch.no_grad():
        return 0.5 * float((network(x) - y).square().mean())


def test_losses_are_those_of_the_networks_and_sums_those_of_the_steps():
    hierarchy, held_out, start = fit()
    record, told = Record(held_out), []

    def both(step, data):
        told.append((step, data))
        record(step, data)

    run(cascade([3, 2, 4]).split(), hierarchy, start, None, record=both)
    assert len(record.rows) == len(told)
    sums = np.cumsum([(d.evaluations, d.work, d.seconds) for _, d in told], axis=0)
    for row, (step, data), total in zip(record.rows, told, sums, strict=True):
        network = hierarchy.network(row.level, data.state)
        assert row.action == step.action and network.intervals[0] == 8 // 2**row.level
        assert row.loss == pytest.approx(half_mean_square(network, X[::2], Y[::2]), rel=1e-12)
        assert row.held_out == pytest.approx(half_mean_square(network, X[1::2], Y[1::2]), rel=1e-12)
        assert row[4:] == pytest.approx(tuple(total), rel=1e-12)
    # Adam evaluates one gradient per sweep; on knots it costs the same on every level.
    assert record.rows[-1].evaluations == record.rows[-1].work == 9.0


def test_gradient_evaluations_have_no_price_work_has():
    problem = Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, (X.float(), Y.float()))
    levels = [Level(problem, ADAM, objective=problem.value, cost=cost) for cost in (4.0, 1.0)]
    record = Record()
    for level in levels:
        run(cascade([3]), Hierarchy([level]), problem.start(), None, record=record)
    assert [row.evaluations for row in record.rows[1::2]] == [3.0, 6.0]


@pytest.mark.parametrize("form", ["subspace", "injected"])
def test_solver_cycles_are_recorded_and_corrections_have_no_loss(form):
    hierarchy, held_out, start = fit(LevenbergMarquardt(), form=form)
    record = Record(held_out)
    solution = Solver(hierarchy, "V(1,1)", max_cycles=2, record=record).solve(u=start)
    assert [row.work for row in record.rows] == pytest.approx(
        np.cumsum([entry.work for entry in solution.record])
    )
    assert record.rows[-1].loss == hierarchy[0].operator.value(solution.value)
    path = "pre 0, down 1, pre 1, down 2, solve 2, up 1, post 1, up 0, post 0".split(", ")
    assert [f"{row.action} {row.level}" for row in record.rows] == 2 * path  # where it arrives
    below = [row for row in record.rows if row.level > 0]
    assert all(np.isnan([r.loss, r.held_out]).all() == (form == "subspace") for r in below)


def test_the_time_of_the_record_itself_is_left_out():
    hierarchy, held_out, start = fit(levels=1)

    class Slow(LeastSquares):
        def with_network(self, network):
            return Slow(network, self.data)

        def value(self, u):
            time.sleep(0.05)
            return super().value(u)

    record = Record(Slow(held_out.network, held_out.data))
    began = time.perf_counter()
    run(cascade([10]).split(), hierarchy, start, None, record=record)
    outside = time.perf_counter() - began - record.rows[-1].seconds
    assert outside >= 0.05 * len(record.rows)


def test_a_record_changes_no_bits():
    runs = []
    for record in (None, Record(fit()[1])):
        hierarchy, _, start = fit()
        runs.append(run(cascade([3, 3, 3]), hierarchy, start, None, record=record)[0])
    assert torch.equal(*runs)


def test_another_loss_than_that_of_the_batches():
    kan = KAN([1, 2, 1], intervals=2)
    full = LeastSquares(kan, (X, Y))

    def bind(rows):
        problem = LeastSquares(kan, (X[rows], Y[rows]))
        return [Level(problem, ADAM, objective=problem.value)]

    record = Record(loss=full)
    hierarchy = Hierarchy(bind(slice(None)), bind=bind)
    batches = [slice(0, 10), slice(10, 20)]
    solution = Solver(hierarchy, "V(0,0,1)", batches=batches, record=record).solve(u=full.start())
    assert len(record.rows) == 2 and record.rows[-1].loss == full.value(solution.value)


def test_levels_without_a_network_have_no_losses():
    level = Level(lambda u: u, ADAM, objective=lambda u: float(u @ u) / 2)
    record = Record(fit()[1])
    run(parse("solve 1", 1), Hierarchy([level]), torch.ones(2), None, record=record)
    assert np.isnan([record.rows[0].loss, record.rows[0].held_out]).all()


def test_csv_is_read_by_numpy_and_by_a_record(tmp_path):
    hierarchy, held_out, start = fit()
    record = Record(held_out)
    run(cascade([1, 1, 1]), hierarchy, start, None, record=record)
    record.rows.append(Row("down", 1, float("nan"), float("nan"), 1e-300, 1.0 / 3.0, 2.0))
    record.to_csv(tmp_path / "record.csv")
    read = np.genfromtxt(
        tmp_path / "record.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    for name in Row._fields:
        np.testing.assert_array_equal(read[name], record.table()[name])
    assert read.dtype.names == Row._fields

    further = Record(held_out)
    further.read_csv(tmp_path / "record.csv")
    assert str(further.rows) == str(record.rows)  # repr of floats is exact; nan is not nan
    run(cascade([1, 1, 1]), hierarchy, start, None, record=further)  # sums go on
    assert further.rows[-1].work == pytest.approx(1.0 / 3.0 + 3.0)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", ",".join(Row._fields) + "\npost,0,1\n"])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "record.csv").write_text(text)
    with pytest.raises(ValueError, match="record.csv is not a record: its columns must be action"):
        Record().read_csv(tmp_path / "record.csv")
