"""Law: what is refused couples coefficients; how weights decay is found out by steps."""

import pytest
import torch

from mgnet.training.optimizers.coordinate_wise import check_coordinate_wise, decay_of


class Lion(torch.optim.Optimizer):
    """Of coordinates: Chen et al., arXiv 2302.06675, in its plainest form."""

    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((b1 * m + (1 - b1) * p.grad).sign(), alpha=-group["lr"])
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


class Normed(Lion):
    """Steps of length lr: the norm couples."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad / p.grad.norm())


class Noisy(Lion):
    """Langevin noise: coordinates are apart."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * (p.grad + torch.randn_like(p)))


class Shrinking(Lion):
    """A decay of its own name."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.99).sub_(group["lr"] * p.grad)


class Odd(Lion):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad + group["weight_decay"] * p.sign())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"lr": 0.0, "amsgrad": True}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
        (torch.optim.Adagrad, {"lr_decay": 0.1}),
        (torch.optim.Adadelta, {}),
        (torch.optim.Adamax, {"maximize": True}),
        (torch.optim.NAdam, {}),
        (torch.optim.RAdam, {"lr": torch.tensor(0.1), "capturable": True}),
        (torch.optim.Rprop, {}),
        (Lion, {"lr": 1e-9}),
        (Noisy, {"lr": 0.1}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_accepted(kind, options):
    before = torch.random.get_rng_state()
    check_coordinate_wise(kind, options)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (torch.optim.LBFGS, {}, "takes no step by the gradient"),
        (torch.optim.SparseAdam, {}, "takes no step by the gradient"),
        (getattr(torch.optim, "Muon", torch.optim.LBFGS), {}, "takes no step by the gradient"),
        (getattr(torch.optim, "Adafactor", Normed), {"lr": 0.1}, "depends on others"),
        (Normed, {"lr": 0.1}, "depends on others"),
        (torch.optim.ASGD, {}, "depend on the values of the parameters"),
        (Shrinking, {"lr": 0.1}, "depend on the values of the parameters"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_refused(kind, options, text):
    with pytest.raises(TypeError, match=text):
        check_coordinate_wise(kind, options)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (torch.optim.Adam, {}, "coupled"),
        (torch.optim.AdamW, {"maximize": True}, "decoupled"),
        (torch.optim.SGD, {"lr": 1e-3}, "coupled"),
        (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9, "maximize": True}, "coupled"),
        (torch.optim.RMSprop, {"momentum": 0.9}, "coupled"),
        (torch.optim.NAdam, {"decoupled_weight_decay": True}, "decoupled"),
        (torch.optim.RAdam, {}, "coupled"),
        (torch.optim.Adamax, {}, "coupled"),
        (Lion, {"lr": 1e-3}, "decoupled"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_decay(kind, options, expected):
    assert decay_of(kind, {**options, "weight_decay": 1e-6}) == expected
    assert decay_of(kind, {**options, "weight_decay": 0}) == ""


def test_other_decays_are_refused():
    with pytest.raises(TypeError, match="weight_decay=0 and add a penalty to the loss"):
        decay_of(Odd, {"lr": 0.1, "weight_decay": 0.3})
