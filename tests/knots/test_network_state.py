"""Options are part of a state, and copies on other knots keep all that a network is.

A state of other options would load without a word: domain, degree (against intervals), the map of
hidden values. What belongs to a network beside its splines and could be lost by a copy: class,
attributes, other parameters and buffers, hooks, tied and frozen parameters, its mode, a forward
that was replaced, parametrizations.
"""

import copy
import pickle
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.nn.utils import parametrizations, parametrize, prune

from mgnet.knots import KAN, FreeKnotKAN, MultichannelMLP, knot_transfer, kronecker_matrix
from mgnet.knots.network_state import copy_with
from mgnet.training.extra_state import decode


def multichannel(*arguments, **options):
    return MultichannelMLP(KAN(*arguments, **options))


KINDS = [KAN, FreeKnotKAN, multichannel]
X = 2.0 * torch.rand(9, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1.0


def drawn(seed):
    """Options of a network, all with the same shapes."""
    draw = np.random.default_rng(seed)
    degree = int(draw.integers(1, 6))
    ends = tuple(float(end) for end in np.sort(draw.choice(np.arange(-3, 4), 2, replace=False)))
    return {
        "intervals": 8 - degree,
        "degree": degree,
        "domain": ends,
        "hidden": str(draw.choice(["tanh", "identity"])),
    }


def made(kind, options, seed=0, **others):
    generator = torch.Generator().manual_seed(seed)
    return kind([2, 3, 1], **options, **others, generator=generator)


@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
@pytest.mark.parametrize("holder", [lambda net: net, lambda net: torch.nn.Sequential(net)])
def test_a_state_of_a_refined_network_says_how_to_make_one(kind, holder):
    network, fine = (kind([2, 3, 1], intervals=n, degree=2) for n in (3, 6))
    state = holder(network.refine()).state_dict()
    with pytest.raises(RuntimeError, match=r"intervals=\(3, 3\); make .* intervals=\(6, 6\)"):
        holder(network).load_state_dict(state)
    holder(fine).load_state_dict(state)
    wider = kind([2, 4, 1], intervals=6, degree=2)
    with pytest.raises(RuntimeError, match="size mismatch") as refused:
        holder(wider).load_state_dict(state)
    assert "make the network" not in str(refused.value)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_other_options_is_refused_and_nothing_is_written(kind, seed):
    options, others = drawn(seed), drawn(seed + 100)
    told = decode(made(kind, options).state_dict()["_extra_state"])
    for name in told:  # one at a time, and all
        value = options[name] if others[name] == options[name] else others[name]
        if value == options[name]:
            continue
        mixed = options | {name: value}
        mixed["intervals"] = 8 - mixed["degree"]
        source, target = made(kind, options), made(kind, mixed, seed=1)
        before = copy.deepcopy(target.state_dict())
        with pytest.raises(RuntimeError) as error:
            target.load_state_dict(source.state_dict())
        for one in (options[name], value):
            text = repr(list(one)) if isinstance(one, tuple) else repr(one)
            assert f"{name}={text}" in str(error.value)
        with pytest.raises(RuntimeError, match=f"with {name}="):
            target.load_state_dict(source.state_dict(), strict=False)
        for key, tensor in target.state_dict().items():
            assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_carry_a_state_gives_the_same_function(kind, seed, tmp_path):
    options = drawn(seed)
    source = made(kind, options, seed=5)
    expected, state = source(X), source.state_dict()
    old = {name: tensor for name, tensor in state.items() if name != "_extra_state"}

    def loaded(state, **how):
        target = made(kind, options)
        target.load_state_dict(state, **how)
        return target

    safetensors.torch.save_model(source, str(tmp_path / "model.safetensors"))
    read = made(kind, options)
    safetensors.torch.load_model(read, str(tmp_path / "model.safetensors"))
    with warnings.catch_warnings():  # of a single process
        warnings.simplefilter("ignore")
        save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    target = made(kind, options)
    into = target.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(into, checkpoint_id=tmp_path / "dcp", no_dist=True)
    target.load_state_dict(into)
    torch.save(state, tmp_path / "state.pt")
    for twin in (
        loaded(state),
        loaded(state, strict=False),
        loaded(state, assign=True),
        loaded(old),
        loaded(old, assign=True),
        loaded(torch.load(tmp_path / "state.pt", weights_only=True)),
        copy.deepcopy(source),
        pickle.loads(pickle.dumps(source)),
        read,
        target,
    ):
        assert torch.equal(twin(X), expected)
    named = {name: tensor for name, tensor in state.items()}
    assert torch.equal(torch.func.functional_call(made(kind, options), named, X), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_prefixes_and_other_precisions(kind):
    options = drawn(3)
    whole = torch.nn.Sequential(
        torch.nn.Identity(), torch.nn.ModuleDict({"of": made(kind, options)})
    )
    state = whole.state_dict()
    twin = copy.deepcopy(whole)
    twin.load_state_dict(state)
    twin.load_state_dict({n: t for n, t in state.items() if not n.endswith("_extra_state")})
    other = torch.nn.Sequential(
        torch.nn.Identity(),
        torch.nn.ModuleDict({"of": made(kind, options | {"hidden": "identity"})}),
    )
    tanh = options["hidden"] == "tanh"
    if tanh:
        with pytest.raises(RuntimeError, match="hidden='tanh', but this one has hidden='identity'"):
            other.load_state_dict(state)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        twin.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()})
        with pytest.raises(RuntimeError, match="missing|Missing"):
            twin.load_state_dict({n: t for n, t in state.items() if "extra" in n})


def test_a_subclass_adds_its_options_or_has_its_own_extra_state():
    class Scaled(KAN):
        def __init__(self, widths, scale):
            super().__init__(widths)
            self.scale = scale

        def state_options(self):
            return super().state_options() | {"scale": self.scale}

    class Counted(KAN):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    with pytest.raises(RuntimeError, match="Scaled got the state of a network with scale=2"):
        Scaled([2, 1], 3).load_state_dict(Scaled([2, 1], 2).state_dict())
    first, second = Counted([2, 1]), Counted([2, 1])
    first.count = 7
    second.load_state_dict(first.state_dict())
    assert second.count == 7
    with pytest.raises(RuntimeError, match="Missing key.*_extra_state"):
        second.load_state_dict(dict(first.coefficients.named_parameters(prefix="coefficients")))


class Positive(KAN):
    """A forward, a parameter, a buffer, an attribute and an argument of its own."""

    def __init__(self, scale, widths, **options):
        super().__init__(widths, **options)
        self.scale = torch.nn.Parameter(torch.tensor([scale], dtype=torch.float64))
        self.register_buffer("shift", torch.tensor([0.5], dtype=torch.float64))
        self.told = {"unit": "K"}

    def forward(self, x):
        return self.scale * torch.nn.functional.softplus(super().forward(x)) + self.shift


class FreePositive(FreeKnotKAN):
    def __init__(self, scale, widths, **options):
        super().__init__(widths, **options)
        self.scale = torch.nn.Parameter(torch.tensor([scale], dtype=torch.float64))

    def forward(self, x):
        return self.scale * torch.nn.functional.softplus(super().forward(x))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [Positive, FreePositive])
def test_refinement_keeps_a_subclass(kind, seed):
    kan = kind(2.5, [2, 3, 1], linear=False, **drawn(seed)).eval()
    kan.coefficients[0].requires_grad_(False)
    kan(X).sum().backward()
    fine = kan.refine(3)
    assert type(fine) is kind and not fine.training
    torch.testing.assert_close(fine(X), kan(X), rtol=1e-11, atol=1e-11)
    assert [name for name, _ in fine.named_parameters()] == [n for n, _ in kan.named_parameters()]
    for own, theirs in zip(fine.parameters(), kan.parameters(), strict=True):
        assert own is not theirs and own.grad is None
        assert own.requires_grad == theirs.requires_grad
        assert own.data_ptr() != theirs.data_ptr()
    if kind is Positive:
        assert fine.told == kan.told and fine.told is not kan.told
        torch.testing.assert_close(fine.coarsen(3)(X), kan(X), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        fine.scale.mul_(2.0)
    assert float(kan.scale.detach()) == 2.5


def test_the_matrices_between_levels_have_all_parameters():
    kan = Positive(2.5, [2, 4, 3, 1], linear=True)
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach()
    fine = torch.nn.utils.parameters_to_vector(kan.refine().parameters()).detach()
    torch.testing.assert_close(knot_transfer(kan).prolong(u), fine)
    torch.testing.assert_close(torch.from_numpy(kronecker_matrix(kan) @ u.numpy()), fine)


def test_hooks_stay_and_a_tied_layer_stays_tied():
    kan = KAN([2, 2, 2])
    kan.coefficients[1] = kan.coefficients[0]
    kan.register_forward_hook(lambda module, inputs, output: output.exp())
    fine = kan.refine()
    torch.testing.assert_close(fine(X), kan(X))
    assert fine.coefficients[0] is fine.coefficients[1]


def test_what_cannot_be_copied_right_is_refused():
    kan = KAN([2, 3, 1])
    kan.forward = kan.forward  # as accelerate unwraps a model
    fine = kan.refine()
    torch.testing.assert_close(fine(X), kan(X))
    with torch.no_grad():
        fine.coefficients[0].zero_()
    assert not kan.altered() and not torch.equal(fine(X), kan(X))
    plain = kan.forward
    kan.forward = lambda x: plain(x).exp()
    for change in (kan.refine, kan.coarsen):
        with pytest.raises(TypeError, match="a network whose forward was replaced"):
            change()
    for add in (
        lambda part: parametrize.register_parametrization(part, "0", torch.nn.Tanh()),
        lambda part: parametrizations.weight_norm(part, "0"),
        lambda part: parametrizations.spectral_norm(part, "0"),
        lambda part: prune.random_unstructured(part, "0", 0.5),
    ):
        for kind in (KAN, FreeKnotKAN):
            kan = kind([2, 3, 1])
            add(kan.coefficients)
            with pytest.raises(
                TypeError, match=f"{kind.__name__}.refine got splines that are computed"
            ):
                kan.refine()
            if kind is KAN:
                for use in (knot_transfer, kronecker_matrix):
                    with pytest.raises(
                        TypeError, match="splines that are computed from other parameters"
                    ):
                        use(kan)
    pruned = KAN([2, 3, 1])
    for kind in KINDS:
        network = kind([2, 3, 1])
        prune.random_unstructured(
            getattr(network, "coefficients", None) or network.weights, "0", 0.5
        )
        with pytest.raises(TypeError, match="got a hook on its coefficients, as torch.nn.utils.pr"):
            network(X)
    prune.random_unstructured(pruned.coefficients, "0", 0.5)
    prune.remove(pruned.coefficients, "0")
    torch.testing.assert_close(pruned.refine()(X), pruned(X))


def test_other_parts_are_copied_with_their_places():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    network.alias = network[0].weight
    wider = torch.nn.Linear(3, 2)
    made = copy_with(network, "wider", [(network[0], wider)])
    assert made[0] is wider and made.alias is wider.weight
    assert torch.equal(made[1].weight, network[1].weight)
