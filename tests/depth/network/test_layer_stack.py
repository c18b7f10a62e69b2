"""Stacking modules: names, ties, buffers, frozen parameters; what differs is named.

A state that the block cannot take is refused in words, before any layer.
"""

import warnings

import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel, ODENet
from mgnet.depth.network.layer_stack import LayerSlots, draw_layers, layer_of, stack, warn_of_copies


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 3, bias=False)
        self.second = torch.nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.first.weight.requires_grad_(False)
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, u):
        return self.norm(self.second(self.first(u)))


def test_a_stack_holds_every_layer():
    modules = [Tied() for _ in range(4)]
    stacked = stack(modules)
    assert stacked.first.weight is stacked.second.weight
    assert not stacked.first.weight.requires_grad
    shapes = {name: tuple(t.shape) for name, t in stacked.state_dict().items()}
    assert shapes["first.weight"] == (4, 3, 3)
    assert shapes["norm.running_mean"] == (4, 3)
    assert shapes["norm.num_batches_tracked"] == (4,)
    parameters, buffers = LayerSlots(stacked).tensors()
    assert len(parameters) == 3 and len(buffers) == 3
    x = torch.randn(5, 3)
    for n, module in enumerate(modules):
        own = layer_of(stacked, [p[n] for p in parameters], [b[n] for b in buffers])
        assert own.first.weight is own.second.weight and not own.first.weight.requires_grad
        assert torch.equal(own.eval()(x), module.eval()(x))
        slots = LayerSlots(stacked.eval())
        with slots.lent():
            slots.put([p[n] for p in parameters], [b[n] for b in buffers])
            assert torch.equal(stacked(x), module(x))
        assert stacked.first.weight is parameters[0]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (lambda: torch.nn.Linear(2, 3), "in_features=2, out_features=3, bias=True"),
        (lambda: torch.nn.Linear(3, 3).double(), "weight is torch.float64"),
        (lambda: torch.nn.ReLU(), "ReLU\\(\\) instead of Linear"),
    ],
)
def test_the_first_that_differs_is_named(other, sentence):
    with pytest.raises(ValueError, match=f"layer 1 differs from layer 0: .*{sentence}"):
        stack([torch.nn.Linear(3, 3), other(), other()])


def test_templates_keep_what_cannot_be_redrawn():
    template = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU(init=0.3))
    a, b = draw_layers(template, 2)
    assert not torch.equal(a[0].weight, b[0].weight)
    assert not torch.equal(a[0].weight, template[0].weight)
    plain = torch.nn.Module()
    plain.scale = torch.nn.Parameter(torch.full((2,), 7.0))
    assert all(torch.equal(each.scale, plain.scale) for each in draw_layers(plain, 2))


def net(parallel):
    made = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), 8)
    return LayerParallel(made) if parallel else made


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (torch.zeros(5, 3), ValueError, "4 numbers on the last axis"),
        (torch.tensor(1.0), ValueError, "4 numbers on the last axis"),
        (torch.zeros(5, 4, dtype=torch.float64), TypeError, "torch.float64.*x.to.torch.float32"),
        (torch.zeros(5, 4, dtype=torch.int64), TypeError, "torch.int64.*x.to.torch.float32"),
        (torch.zeros(5, 4, device="meta"), ValueError, "state on meta.*x.to..cpu"),
        ([[0.0] * 4], TypeError, "state of type list; give a tensor"),
    ],
)
def test_a_wrong_state_is_refused(parallel, x, kind, words):
    with pytest.raises(kind, match=words):
        net(parallel)(x)


def test_autocast_converts():
    with torch.autocast("cpu", torch.bfloat16):
        assert net(False)(torch.zeros(5, 4)).isfinite().all()


def test_other_blocks_are_left_alone():
    assert ODENet(torch.nn.Tanh(), 4)(torch.zeros(2, 3, 5)).shape == (2, 3, 5)


# Templates: what is drawn anew, what is meant to be alike, and what is warned of.


class Bare(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.scale = nn.Parameter(value)

    def forward(self, u):
        return self.linear(u) * self.scale


class Private(Bare):
    def _reset_parameters(self):
        nn.init.normal_(self.scale)


class Special(Bare):
    """Gives its part another beginning than the part itself does, as residual branches do."""

    def reset_parameters(self):
        nn.init.normal_(self.scale)
        nn.init.zeros_(self.linear.weight)


class Fixed(Bare):
    def reset_parameters(self):
        with torch.no_grad():
            self.scale.copy_(torch.arange(4.0))


def attention(width=4):
    return nn.TransformerEncoderLayer(width, 2, 8, dropout=0.0, batch_first=True, norm_first=True)


# name -> (template, what differs from layer to layer, what the warning names)
TEMPLATES = {
    "linear": (lambda: nn.Linear(4, 4), ["weight", "bias"], []),
    "attention": (
        lambda: nn.MultiheadAttention(4, 2),
        ["in_proj_weight", "out_proj.weight"],
        [],
    ),
    "attention of other widths": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
        [],
    ),
    "attention with biases": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        ["in_proj_weight", "out_proj.weight", "bias_k", "bias_v"],
        [],
    ),
    "encoder layer": (
        attention,
        ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
        + [f"linear{n}.{name}" for n in (1, 2) for name in ("weight", "bias")],
        [],
    ),
    "private method": (
        lambda: Private(torch.rand(4)),
        ["linear.weight", "linear.bias", "scale"],
        [],
    ),
    "parent after its parts": (lambda: Special(torch.rand(4)), ["linear.bias", "scale"], []),
    "ones": (lambda: Bare(torch.ones(4)), ["linear.weight", "linear.bias"], []),
    "scalar": (lambda: Bare(torch.tensor(0.3)), ["linear.weight", "linear.bias"], []),
    "fixed values": (lambda: Fixed(torch.arange(4.0)), ["linear.weight", "linear.bias"], []),
    "norms": (lambda: nn.Sequential(nn.LayerNorm(4), nn.BatchNorm1d(4)), [], []),
    "recurrent cell": (
        lambda: nn.GRUCell(4, 4),
        ["weight_ih", "weight_hh", "bias_ih", "bias_hh"],
        [],
    ),
    "bare": (
        lambda: Bare(torch.rand(4)),
        ["linear.weight", "linear.bias"],
        ["scale (of the Bare)"],
    ),
    "two bare": (
        lambda: nn.Sequential(Bare(torch.rand(4)), Bare(torch.rand(4))),
        [f"{n}.linear.{name}" for n in (0, 1) for name in ("weight", "bias")],
        ["0.scale (of the Bare)", "1.scale (of the Bare)"],
    ),
    "frozen": (
        lambda: Bare(torch.rand(4)).requires_grad_(False),
        ["linear.weight", "linear.bias"],
        ["scale (of the Bare)"],
    ),
    "list of parameters": (
        lambda: nn.ParameterList([torch.rand(2)]),
        [],
        ["0 (of the ParameterList)"],
    ),
    "normalised weight": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        ["bias"],
        ["parametrizations.weight.original0", "parametrizations.weight.original1"],
    ),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_layers_of_a_template_are_drawn_or_warned_of(kind):
    make, drawn, warned = TEMPLATES[kind]
    torch.manual_seed(0)
    template = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layers = draw_layers(template, 3)
        warn_of_copies(template, layers)
    a, b, c = ({name: p.detach() for name, p in x.named_parameters()} for x in layers)
    differing = [
        name for name in a if not (a[name] == b[name]).any() and (a[name] != c[name]).any()
    ]
    assert sorted(differing) == sorted(drawn)
    assert len(caught) == bool(warned)
    for name in warned:
        assert name in str(caught[0].message)
    for name in drawn:
        assert f" {name} (" not in str([each.message for each in caught])
    for n, layer in enumerate(layers):  # a module of this kind has these values, not others
        assert str(layer) == str(template), n


def test_constants_of_attention_are_those_of_its_constructor():
    for layer in draw_layers(nn.MultiheadAttention(4, 2), 2):
        assert not layer.in_proj_bias.any() and not layer.out_proj.bias.any()
    for layer in draw_layers(Special(torch.rand(4)), 2):
        assert not layer.linear.weight.any()


def test_the_warning_is_one_and_about_the_line_that_makes_the_net():
    with pytest.warns(UserWarning, match="scale \\(of the Bare\\), which no reset_para") as caught:
        ODENet(Bare(torch.rand(4)), 3)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    "make",
    [
        lambda: ODENet(Bare(torch.rand(4)), 3, weights="shared"),
        lambda: ODENet(Bare(torch.rand(4)), 1),
        lambda: ODENet(lambda n: Bare(torch.arange(4.0)), 3),
        lambda: ODENet(Bare(torch.rand(4)).to("meta"), 3),
    ],
)
def test_no_warning_where_layers_are_not_drawn(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()


def test_looking_for_copies_draws_no_random_numbers():
    template = nn.Sequential(nn.Linear(2, 2), nn.ParameterList([torch.rand(2)]))
    layers = draw_layers(template, 2)
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="n -> module"):
        warn_of_copies(template, layers)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{}, {"weights": "shared"}, {"boundary_layers": (1, 2)}])
@pytest.mark.parametrize("make", [lambda: Bare(torch.rand(4)), lambda: Special(torch.rand(4))])
def test_layers_that_start_identical(make, options):
    template = make()
    before = torch.get_rng_state()
    with warnings.catch_warnings():  # that they begin alike is meant
        warnings.simplefilter("error")
        net = ODENet(template, 3, start="identical", **options)
    assert torch.equal(torch.get_rng_state(), before)
    for name, p in net.block.named_parameters():
        assert torch.equal(p, template.get_parameter(name).expand_as(p))
    for layer in (*net.opening, *net.closing):
        assert torch.equal(layer.block.scale, template.scale)
        assert layer.block.scale is not template.scale
    assert "start" not in net.options()
    net.load_state_dict(ODENet(lambda n: make(), 3, **options).state_dict())
    with torch.no_grad():
        net.block.scale.zero_()
    assert template.scale.any()


def test_a_template_is_drawn_anew_unless_told():
    with pytest.warns(UserWarning, match="draws each layer separately"):
        net = ODENet(Bare(torch.rand(4)), 3, start="independent")
    assert not torch.equal(net.block.linear.weight[0], net.block.linear.weight[1])


@pytest.mark.parametrize(
    ("block", "start", "words"),
    [
        (lambda n: Bare(torch.rand(4)), "identical", "a function n -> module, which itself"),
        (nn.Tanh(), "alike", "got start 'alike'; give 'independent' or 'identical'"),
        (nn.Tanh(), None, "got start None; give 'independent'"),
    ],
)
def test_starts_that_are_refused(block, start, words):
    with pytest.raises(ValueError, match=words):
        ODENet(block, 3, start=start)


def test_a_layer_is_whole():
    """A recurrent module keeps lists of its tensors beside them."""
    stacked = stack([nn.GRU(3, 3) for _ in range(3)])
    layer = layer_of(stacked, [p[1] for p in stacked.parameters()], [])
    assert all(a is b for a, b in zip(layer._flat_weights, layer.parameters(), strict=True))
    assert torch.equal(layer.weight_ih_l0, stacked.weight_ih_l0[1])
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
    assert stacked.weight_ih_l0[1].any()


@pytest.mark.parametrize("same", [True, False])
def test_tensors_that_are_no_buffers_must_be_alike(same):
    """Only those of the first layer would be kept."""

    def masked(n):
        block = nn.Sequential(nn.Linear(2, 2))
        block[0].mask = torch.full((2,), 1.0 if same else float(n))
        return block

    if same:
        assert ODENet(masked, 3).depth == 3
    else:
        with pytest.raises(ValueError, match="layer 1 differs from layer 0: 0.mask, a tensor that"):
            ODENet(masked, 3)


def test_tensors_that_hooks_make_anew_may_differ():
    net = ODENet(lambda n: nn.utils.spectral_norm(nn.Linear(3, 3)), 3).eval()
    x = torch.rand(2, 3)
    torch.testing.assert_close(net.to_sequential()(x), net(x))


class Rated(nn.Linear):
    def __init__(self, rate, place):
        super().__init__(2, 2)
        self.rate, self.place = rate, place


def test_numbers_of_single_layers_are_not_lost():
    with pytest.raises(ValueError, match="layer 1 differs.* place is 1 instead of 0"):
        stack([Rated(0.1, 0), Rated(0.1, 1)])
    with pytest.raises(ValueError, match="layer 1 differs.* rate is 0.2 instead of 0.1"):
        stack([Rated(0.1, 0), Rated(0.2, 0)])
    with pytest.raises(ValueError, match="rate is 0.5 instead of 0"):
        stack([Rated(0, 0), Rated(0.5, 0)])
