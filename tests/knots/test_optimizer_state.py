"""Optimizers of training loops go on after a refinement as if nothing had happened."""

import copy

import pytest
import torch

from mgnet.knots import KAN, refine_optimizer
from mgnet.training import MultilevelGradient

X = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)
OPTIMIZERS = [
    (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 1e-3}),
    (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    (torch.optim.RMSprop, {"lr": 1e-3, "centered": True, "momentum": 0.5}),
    (torch.optim.Adagrad, {"lr": 1e-2}),
    (torch.optim.Adamax, {"lr": 1e-2}),
    (torch.optim.Rprop, {"lr": 1e-3}),
    (torch.optim.LBFGS, {"max_iter": 5, "line_search_fn": "strong_wolfe"}),
]


def train(kan, optimizer, steps, x=X):
    def closure():
        optimizer.zero_grad()
        loss = (kan(x) - torch.sin(5 * x[..., :1])).square().mean()
        loss.backward()
        return loss

    return [float(optimizer.step(closure).detach()) for _ in range(steps)]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("linear", [False, True])
def test_training_goes_on_without_a_jump(kind, options, linear):
    kan = KAN([1, 3, 2, 1], 2, linear=linear)
    optimizer = kind(kan.parameters(), **options)
    before = train(kan, optimizer, 12)
    fine = kan.refine(3)
    carried = refine_optimizer(optimizer, kan, fine)
    assert type(carried) is kind
    own = carried.param_groups[0]
    assert all(a is b for a, b in zip(own["params"], fine.parameters(), strict=True))
    for name, value in optimizer.param_groups[0].items():
        assert name == "params" or own[name] == value
    state = carried.state[next(fine.parameters())]
    old = optimizer.state[next(kan.parameters())]
    assert state.get("step", 0) == old.get("step", 0)
    for p in fine.parameters():
        for name, value in carried.state[p].items():
            if kind is not torch.optim.LBFGS and isinstance(value, torch.Tensor) and value.dim():
                assert value.shape == p.shape, name
                assert "sq" not in name or float(value.min()) >= 0.0
    after = train(fine, carried, 5)
    assert after[0] < before[-1]
    assert max(after) <= after[0] * (1.0 + 1e-12)


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("layers", [[0], [-1], [0, 2]])
def test_the_memory_of_layers_that_stay_stays(kind, options, layers):
    kan = KAN([1, 3, 2, 1], [2, 3, 2])
    optimizer = kind(kan.parameters(), **options)
    before = train(kan, optimizer, 12)
    fine, whole = kan.refine(3, layers), kan.refine(3)
    carried = refine_optimizer(optimizer, kan, fine)
    if kind is not torch.optim.LBFGS:
        wholly = refine_optimizer(optimizer, kan, whole)
        rows = zip(kan.coefficients, fine.coefficients, whole.coefficients, strict=True)
        for number, (old, new, refined) in enumerate(rows):
            there = number in layers or number - 3 in layers
            state = wholly.state[refined] if there else optimizer.state[old]
            assert carried.state[new].keys() == state.keys()
            for name, value in state.items():
                same = carried.state[new][name]
                assert torch.equal(torch.as_tensor(same), torch.as_tensor(value)), name
    after = train(fine, carried, 5)
    assert after[0] < before[-1] and max(after) <= after[0] * (1.0 + 1e-12)


def test_pairs_of_lbfgs_speed_up_the_finer_level():
    kan = KAN([1, 3, 1], 3)
    options = {"max_iter": 10, "max_eval": 30, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(kan.parameters(), **options)
    train(kan, optimizer, 4)
    ends = []
    for remember in (True, False):
        fine = kan.refine()
        new = (
            refine_optimizer(optimizer, kan, fine)
            if remember
            else torch.optim.LBFGS(fine.parameters(), **options)
        )
        ends.append(train(fine, new, 2)[-1])
    assert ends[0] < 0.5 * ends[1]


@pytest.mark.parametrize("kind, options", OPTIMIZERS[:-1], ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize("factor", [2, 3])
def test_levels_keep_their_memory_below_a_new_one(kind, options, levels, factor):
    kan, other = KAN([1, 3, 1], [4, 16], 2, linear=False), KAN([1, 1], 8)
    optimizer = MultilevelGradient(
        kind, torch.nn.Sequential(kan, other), {**options, "lr": 1e-3}, levels=levels
    )
    train(torch.nn.Sequential(kan, other), optimizer, 8)
    fine = kan.refine(factor)
    carried = refine_optimizer(optimizer, kan, fine)
    assert type(carried) is MultilevelGradient and carried.levels == levels
    for u, v in zip(kan.coefficients, fine.coefficients, strict=True):
        old, new = optimizer.state[u], carried.state[v]
        assert old.get("step", 0) == new.get("step", 0)
        for name, value in old.items():
            if value.dim() and levels is None:
                if u not in optimizer.systems:
                    value = value.movedim(1, 0)
                finest = v.shape[1]
                assert torch.equal(new[name][finest:], value)
                P = torch.from_numpy(kan.refinement_matrices(factor)[0].toarray())
                if "avg" in name and len(P) == finest:
                    power = 2 if "sq" in name else 1
                    scaled = value[: P.shape[1]] / P.sum(0)[:, None, None] ** power
                    up = torch.einsum("ij,jpq->ipq", P, scaled)
                    torch.testing.assert_close(new[name][:finest], up)
    w = other.coefficients[0]
    for name, value in optimizer.state[w].items():
        assert torch.equal(carried.state[w][name], value)
    before = train(torch.nn.Sequential(kan, other), optimizer, 1)
    assert train(torch.nn.Sequential(fine, other), carried, 3)[-1] < 1.1 * before[0]


def test_carried_levels_take_the_steps_that_the_coarse_network_would_have_taken():
    """And the finest level one of its own, by the size of its gradients."""
    kan = KAN([1, 3, 1], 8, 3)
    optimizer = MultilevelGradient(torch.optim.SGD, kan, {"lr": 1e-2, "momentum": 0.9})
    train(kan, optimizer, 5)
    fine = kan.refine()
    carried = refine_optimizer(optimizer, kan, fine)
    for p in fine.parameters():
        p.grad = torch.zeros_like(p)
    for p in kan.parameters():
        p.grad = torch.zeros_like(p)
    start = kan(X).detach()
    optimizer.step()
    before = [p.detach().clone() for p in fine.parameters()]
    carried.step()
    assert (kan(X) - start).abs().max() > 1e-4
    P = torch.from_numpy(kan.refinement_matrices()[0].toarray())
    for u, v, old in zip(kan.parameters(), fine.parameters(), before, strict=True):
        buffer = optimizer.state[u]["momentum_buffer"][: u.shape[1]].movedim(0, 1)
        expected = torch.einsum("ij,pjq->piq", P, u.detach())
        own = torch.einsum("ij,pjq->piq", P, buffer / P.sum(0)[:, None])
        torch.testing.assert_close(v.detach(), expected - 1e-2 * own)
        assert not torch.equal(v, old)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adagrad])
def test_a_layer_that_stays_keeps_its_levels_and_takes_the_same_step(kind, layer, levels):
    """Where another one is refined, it has the same gradient as before."""
    kan = KAN([1, 3, 1], (16, 24))
    optimizer = MultilevelGradient(kind, kan, {"lr": 1e-3}, levels=levels)
    train(kan, optimizer, 5)
    fine = kan.refine(layers=[layer])
    carried = refine_optimizer(optimizer, kan, fine)
    u, v = kan.coefficients[1 - layer], fine.coefficients[1 - layer]
    assert carried.systems[v].sizes == optimizer.systems[u].sizes
    for name, value in optimizer.state[u].items():
        assert torch.equal(carried.state[v][name], value)
    assert carried.systems[fine.coefficients[layer]].sizes[0] == 2 * kan.intervals[layer] + 3
    start = u.detach().clone()
    train(kan, optimizer, 1)
    train(fine, carried, 1)
    assert not torch.equal(u, start)
    torch.testing.assert_close(v, u, rtol=1e-9, atol=1e-12)


def test_groups_and_parameters_of_other_modules_stay():
    kan, extra = KAN([2, 3, 1], linear=False), torch.nn.Parameter(torch.ones(1, 4, 1))
    groups = [
        {"params": [extra, kan.coefficients[1]], "lr": 1e-3},
        {"params": [kan.coefficients[0]], "betas": (0.5, 0.6)},
    ]
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    ((kan(torch.ones(4, 2, dtype=torch.float64)) * extra.sum()) ** 2).sum().backward()
    optimizer.step()
    fine = kan.refine()
    carried = refine_optimizer(optimizer, kan, fine)
    assert [group["lr"] for group in carried.param_groups] == [1e-3, 1e-2]
    assert carried.param_groups[1]["betas"] == (0.5, 0.6)
    assert carried.param_groups[0]["params"][0] is extra
    assert torch.equal(carried.state[extra]["exp_avg"], optimizer.state[extra]["exp_avg"])
    assert carried.state[extra]["exp_avg"] is not optimizer.state[extra]["exp_avg"]
    assert carried.state[fine.coefficients[0]]["exp_avg"].shape == fine.coefficients[0].shape


def test_float32_stays():
    kan = KAN([1, 2, 1], dtype=torch.float32)
    optimizer = torch.optim.Adam(kan.parameters())
    train(kan, optimizer, 2, X.float())
    carried = refine_optimizer(optimizer, kan, kan.refine())
    assert all(s["exp_avg"].dtype == torch.float32 for s in carried.state.values())


@pytest.mark.parametrize(
    ("kind", "dtype"),  # Adam's own eps is 0 in float16
    [
        (torch.optim.Adam, torch.bfloat16),
        (torch.optim.LBFGS, torch.bfloat16),
        (torch.optim.LBFGS, torch.float16),
    ],
)
def test_half_precision_is_carried_in_single_precision(kind, dtype):
    kan = KAN([1, 2, 1], dtype=torch.float32).to(dtype)
    optimizer = kind(kan.parameters())
    train(kan, optimizer, 2, X.to(dtype))
    fine = kan.refine()
    carried = refine_optimizer(optimizer, kan, fine)
    state = carried.state[fine.coefficients[0]]
    single = copy.deepcopy(kan).float()
    other = kind(single.parameters())
    other.load_state_dict(optimizer.state_dict())
    expected = refine_optimizer(other, single, single.refine())
    exact = next(iter(expected.state.values()))
    for name, value in exact.items():
        if name in ("exp_avg", "exp_avg_sq", "old_stps", "old_dirs"):
            assert all(map(torch.equal, state[name], [each.to(dtype) for each in value]))
    train(fine, carried, 1, X.to(dtype))


def test_refusals():
    kan = KAN([1, 2, 1], [2, 4])
    optimizer = torch.optim.Adam(kan.parameters())
    for other in (
        kan,
        KAN([1, 2, 1], [4, 12]),
        KAN([1, 2, 1], [2, 6]),
        KAN([1, 2, 2, 1], 4),
        KAN([1, 3, 1], [4, 8]),
        KAN([1, 2, 1], [4, 8], 2),
        KAN([1, 2, 1], [4, 8], domain=(0.0, 1.0)),
        KAN([1, 2, 1], [4, 8], hidden="identity"),
    ):
        with pytest.raises(ValueError, match="must be a refinement of the first"):
            refine_optimizer(optimizer, kan, other)
    with pytest.raises(ValueError, match="holds no parameter of the coarse network"):
        refine_optimizer(torch.optim.Adam(kan.refine().parameters()), kan, kan.refine())
    for three in ((kan, kan.refine(), optimizer), (optimizer, kan, torch.nn.Linear(1, 1))):
        with pytest.raises(TypeError, match="give the optimizer, the coarse KAN and the fine KAN"):
            refine_optimizer(*three)
