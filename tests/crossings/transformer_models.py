"""Rows on transformers of other libraries: tiny, random weights; the layers by mgnet.

Here the oracle is the model itself, and a cell is one model: its layers are loaded into an ODE net,
outputs and gradients are compared, training under autocast, a file, and the way back.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from crossings.networks import Network, WrongNumberError, close
from crossings.rows import row
from torch import Tensor, nn

from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet, parameter_groups

SECTION = "Transformers of other libraries"
NETWORKS = ("ODENet", "LayerParallel", "LayerParallel, serial")
LAYERS, WIDTH, TOKENS, WORDS = 8, 16, 6, 40
STEPS, RATE, DECAY = 3, 1e-3, 0.1
Side = Mapping[str, Any]


class Model(NamedTuple):
    """A model of another library, taken apart around its layers.

    Attributes
    ----------
    make : callable
        The model, in evaluation mode.
    layers : callable
        From the model to its list of layers.
    inputs : Tensor
    whole : callable
        `(model, inputs) -> outputs`, as the library computes them.
    before, after : callable
        `(model, inputs) -> state, side inputs` and `(model, state) -> outputs`.
    """

    make: Callable[[], nn.Module]
    layers: Callable[[Any], nn.ModuleList]
    inputs: Tensor
    whole: Callable[[Any, Tensor], Tensor]
    before: Callable[[Any, Tensor], tuple[Tensor, Side]]
    after: Callable[[Any, Tensor], Tensor]


class Assembled:
    """The model with its layers in an ODE net, called as the title of a network says."""

    def __init__(self, model: Model, original: nn.Module, title: str, dtype: torch.dtype):
        self.model, self.rest = model, copy.deepcopy(original).to(dtype)
        self.net = ODENet.from_sequential(model.layers(self.rest))
        self.module: nn.Module = self.net
        if title != "ODENet":
            mode = "serial" if title.endswith("serial") else "mgrit"
            control = CyclesToTolerance(1e-13)
            self.module = LayerParallel(self.net, 2, 2, control=control, mode=mode)

    def __call__(self) -> Tensor:
        state, side = self.model.before(self.rest, self._inputs())
        return self.model.after(self.rest, self.module(state, **side))

    def _inputs(self) -> Tensor:
        x = self.model.inputs
        return x.to(self.net.times.dtype) if x.is_floating_point() else x

    def gradients(self) -> dict[str, Tensor]:
        """By the names in a layer."""
        return {name: p.grad for name, p in self.net.block.block.named_parameters()}  # type: ignore[misc]


def stacked(layers: nn.ModuleList, tensor: Callable[[Tensor], Any]) -> dict[str, Tensor]:
    """Of every parameter of the layers, by its name in one."""
    each = [dict(layer.named_parameters()) for layer in layers]
    return {name: torch.stack([tensor(one[name]) for one in each]) for name in each[0]}


def joint(named: Mapping[str, Tensor]) -> Tensor:
    """One vector: biases of keys have gradients of 0, so that nothing is relative to these."""
    return torch.cat([named[name].detach().double().flatten() for name in sorted(named)])


def loss_of(outputs: Tensor) -> Tensor:
    """To a fixed target, since the mean square of a layer norm is a constant."""
    wide = outputs if outputs.dtype == torch.float64 else outputs.float()
    target = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2))
    return (wide - target.to(wide)).square().mean()


def same_function(model: Model, original: nn.Module, title: str) -> None:
    """Outputs and gradients in double precision."""
    right, mine = copy.deepcopy(original).double(), Assembled(model, original, title, torch.float64)
    outputs = model.whole(right, mine._inputs())
    found = mine()
    close(found, outputs, "outputs", 1e-6)
    loss_of(outputs).backward()
    loss_of(found).backward()
    expected = stacked(model.layers(right), lambda p: p.grad)
    close(joint(mine.gradients()), joint(expected), "gradients", 1e-6)


def same_masks(model: Model, original: nn.Module, title: str) -> None:
    """In training, with the dropout that the model has: those of the net one layer at a time."""
    found = []
    for each in ("ODENet", title):
        mine = Assembled(model, original, each, torch.float64)
        mine.net.train()
        mine.module.train()
        for _ in range(2):  # the second pass has other masks
            outputs = mine()
        loss_of(outputs).backward()
        found.append((outputs, joint(mine.gradients())))
    close(found[1][0], found[0][0], "outputs in training", 1e-6)
    close(found[1][1], found[0][1], "gradients in training", 1e-6)


def trained(parameters: Any, call: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.AdamW(parameters, RATE, eps=1e-6)
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = call()
        loss_of(outputs).backward()
        optimizer.step()


def same_training(model: Model, original: nn.Module, title: str) -> Assembled:
    """AdamW under autocast, biases and norms without decay; gives what was trained."""
    right, mine = copy.deepcopy(original), Assembled(model, original, title, torch.float32)
    layers = model.layers(right)
    few = [p for p in layers.parameters() if p.dim() < 2]
    many = [p for p in layers.parameters() if p.dim() >= 2]
    trained(
        [{"params": many, "weight_decay": DECAY}, {"params": few, "weight_decay": 0.0}],
        lambda: model.whole(right, model.inputs),
    )
    trained(parameter_groups(mine.net, DECAY), mine)
    start = joint(stacked(model.layers(original), lambda p: p.detach()))
    moves = [
        joint(weights) - start
        for weights in (
            dict(mine.net.block.block.named_parameters()),
            stacked(layers, lambda p: p.detach()),
        )
    ]
    close(moves[0], moves[1], "what three steps change", 0.2)
    mine.net.train()
    mine.module.train()
    trained(parameter_groups(mine.net, DECAY), mine)  # with dropout
    mine.module.eval()
    if not all(torch.isfinite(p).all() for p in mine.net.parameters()):
        raise WrongNumberError("weights that are not finite after training with dropout")
    return mine


def there_and_back(model: Model, original: nn.Module, title: str, mine: Assembled) -> None:
    """Through a file into another net, and from that into the layers of a new model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        torch.save(mine.module.state_dict(), file)
        other = Assembled(model, original, title, torch.float32)
        other.module.load_state_dict(torch.load(file, weights_only=True))
    fresh = copy.deepcopy(original)
    layers = model.layers(fresh)
    assert other.net.to_layers(into=layers) is layers
    close(
        joint(stacked(layers, lambda p: p.detach())),
        joint(dict(mine.net.block.block.named_parameters())),
        "weights",
        0.0,
    )
    mine.net.double()
    mine.rest.double()
    with torch.no_grad():
        close(model.whole(fresh.double(), mine._inputs()), mine(), "outputs of the model", 1e-6)


def check(model: Model, title: str) -> None:
    torch.manual_seed(0)
    original = model.make().eval()
    same_function(model, original, title)
    same_masks(model, original, title)
    mine = same_training(model, original, title)
    there_and_back(model, original, title, mine)


def library() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    return transformers


def words() -> Tensor:
    return torch.randint(WORDS, (3, TOKENS), generator=torch.Generator().manual_seed(1))


def sizes(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": WORDS,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 16,
        **more,
    }


@row(SECTION, "transformers: GPT-2", "transformers", quick=False, networks=NETWORKS)
def gpt2(network: Network) -> None:
    def make() -> nn.Module:
        t = library()
        told = {"vocab_size": WORDS, "n_positions": 16, "n_embd": WIDTH, "n_layer": LAYERS}
        return t.GPT2LMHeadModel(t.GPT2Config(n_head=2, bos_token_id=0, eos_token_id=0, **told))

    def before(model: Any, ids: Tensor) -> tuple[Tensor, Side]:
        parts = model.transformer
        return parts.wte(ids) + parts.wpe(torch.arange(ids.shape[1])), {}

    check(
        Model(
            make,
            lambda model: model.transformer.h,
            words(),
            lambda model, ids: model(ids, use_cache=False).logits,
            before,
            lambda model, u: model.lm_head(model.transformer.ln_f(u)),
        ),
        network.title,
    )


@row(SECTION, "transformers: BERT, padded", "transformers", quick=False, networks=NETWORKS)
def bert(network: Network) -> None:
    ids = words()
    there = torch.ones_like(ids)
    there[1, 4:] = 0

    def make() -> nn.Module:
        t = library()
        return t.BertModel(t.BertConfig(**sizes()), add_pooling_layer=False)

    def before(model: Any, ids: Tensor) -> tuple[Tensor, Side]:
        mask = there.bool()[:, None, None, :].expand(-1, 1, TOKENS, -1)
        return model.embeddings(input_ids=ids), {"attention_mask": mask}

    check(
        Model(
            make,
            lambda model: model.encoder.layer,
            ids,
            lambda model, ids: model(ids, attention_mask=there).last_hidden_state,
            before,
            lambda model, u: u,
        ),
        network.title,
    )


@row(SECTION, "transformers: ViT", "transformers", quick=False, networks=NETWORKS)
def vit(network: Network) -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def make() -> nn.Module:
        t = library()
        told = {name: x for name, x in sizes().items() if "vocab" not in name and "max" not in name}
        config = t.ViTConfig(image_size=8, patch_size=4, **told)
        return t.ViTModel(config, add_pooling_layer=False)

    check(
        Model(
            make,
            lambda model: model.layers,
            images,
            lambda model, x: model(x).last_hidden_state,
            lambda model, x: (model.embeddings(x), {}),
            lambda model, u: model.layernorm(u),
        ),
        network.title,
    )


@row(SECTION, "transformers: Llama", "transformers", quick=False, networks=NETWORKS)
def llama(network: Network) -> None:
    def make() -> nn.Module:
        t = library()
        told = sizes(num_key_value_heads=1, bos_token_id=0, eos_token_id=0)
        return t.LlamaForCausalLM(t.LlamaConfig(**told))

    def before(model: Any, ids: Tensor) -> tuple[Tensor, Side]:
        u = model.model.embed_tokens(ids)
        angles = model.model.rotary_emb(u, torch.arange(ids.shape[1])[None])
        return u, {"position_embeddings": angles}

    check(
        Model(
            make,
            lambda model: model.model.layers,
            words(),
            lambda model, ids: model(ids, use_cache=False).logits,
            before,
            lambda model, u: model.lm_head(model.model.norm(u)),
        ),
        network.title,
    )


@row(SECTION, "PyTorch: `nn.TransformerEncoder`", quick=False, networks=NETWORKS)
def encoder(network: Network) -> None:
    def make() -> nn.Module:
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, batch_first=True)
        return nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    check(
        Model(
            make,
            lambda model: model.layers,
            torch.randn(3, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)),
            lambda model, x: model(x),
            lambda model, x: (x, {}),
            lambda model, u: u,
        ),
        network.title,
    )
