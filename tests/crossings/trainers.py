"""Rows on libraries that train, tune or save a module."""

import copy
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from crossings.networks import (
    Network,
    batches,
    close,
    data,
    loss_of,
    plainly_trained,
    same_step,
    weights_of,
)
from crossings.rows import row
from torch import Tensor, nn

SECTION = "Trainers and other libraries"


def adam(values) -> torch.optim.Optimizer:
    return torch.optim.Adam([*values], 0.01)


@row(
    SECTION,
    "accelerate: `prepare`, `accumulate`, `save_state`, `load_state`",
    "accelerate",
    quick=False,
)
def accelerated(network: Network) -> None:
    from accelerate import Accelerator

    steps = batches(4)
    joined = [
        tuple(torch.cat(pair) for pair in zip(*steps[k : k + 2], strict=True)) for k in (0, 2)
    ]
    right = plainly_trained(network, weights_of(network.make()), adam, joined * 2)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    module = network.make()
    model, optimizer = accelerator.prepare(module, adam(module.parameters()))

    def train() -> None:
        for x, y in steps:
            with accelerator.accumulate(model):
                accelerator.backward(loss_of(model(x), y))
                optimizer.step()
                optimizer.zero_grad()

    train()
    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)
        train()
        close(weights_of(module), right, "weights", 1e-7)
        accelerator.load_state(folder)
    train()
    close(weights_of(module), right, "weights after load_state", 1e-7)
    same_step(network, accelerator.unwrap_model(model))


@row(SECTION, 'accelerate with `mixed_precision="bf16"`', "accelerate", quick=False)
def accelerated_bf16(network: Network) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        module = network.make().float()
        model, optimizer = accelerator.prepare(module, adam(module.parameters()))
        x, y = data(torch.float32)
        outputs = model(x)
        close(outputs, network.plain(weights_of(module), x.double()), "outputs", 2e-2)
        accelerator.backward(loss_of(outputs, y))
        optimizer.step()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@row(
    SECTION,
    "accelerate: `save_model`, `init_empty_weights`, `load_checkpoint_and_dispatch`",
    "accelerate",
    quick=False,
)
def empty_weights(network: Network) -> None:
    from accelerate import Accelerator, init_empty_weights, load_checkpoint_and_dispatch

    module = network.make()
    with tempfile.TemporaryDirectory() as folder:
        Accelerator(cpu=True).save_model(module, folder)
        with init_empty_weights():
            empty = network.make()
        loaded = load_checkpoint_and_dispatch(empty, folder, device_map={"": "cpu"})
    x, _ = data()
    close(loaded(x), network.plain(weights_of(module), x), "outputs")


def _loader(count: int, dtype: torch.dtype = torch.float64) -> torch.utils.data.DataLoader:
    """The batches of `batches`, as a loader."""
    samples = torch.utils.data.TensorDataset(*data(dtype, 4 * count))
    return torch.utils.data.DataLoader(samples, batch_size=4)


def _lightning(network: Network):
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.make()

        def training_step(self, batch, index: int) -> Tensor:
            return loss_of(self.network(batch[0]), batch[1])

        def validation_step(self, batch, index: int) -> None:
            self.log("loss", loss_of(self.network(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adam(self.parameters())

    return lightning, Module()


def _trainer(lightning, folder: str, epochs: int, **options):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@row(
    SECTION, "Lightning: `fit` with its sanity check, checkpoint, resume", "lightning", quick=False
)
def lightning_fit(network: Network) -> None:
    lightning, module = _lightning(network)
    steps = batches(3)
    right = plainly_trained(network, weights_of(network.make()), adam, steps * 2)
    with tempfile.TemporaryDirectory() as folder:
        first = _trainer(lightning, folder, 1, enable_checkpointing=True)
        first.fit(module, _loader(3), _loader(3))
        file = str(Path(folder) / "one.ckpt")
        first.save_checkpoint(file)
        _, other = _lightning(network)
        options = {"weights_only": False}
        _trainer(lightning, folder, 2).fit(other, _loader(3), _loader(3), ckpt_path=file, **options)
    close(weights_of(other.network), right, "weights", 1e-7)
    same_step(network, other.network)


@row(
    SECTION,
    'Lightning with `precision="bf16-mixed"` and gradient clipping',
    "lightning",
    quick=False,
)
def lightning_bf16(network: Network) -> None:
    lightning, module = _lightning(network)
    module.network.float()
    steps = batches(3, torch.float32)
    right = plainly_trained(network, weights_of(module.network), adam, steps)
    with tempfile.TemporaryDirectory() as folder:
        options = {"precision": "bf16-mixed", "gradient_clip_val": 100.0}
        _trainer(lightning, folder, 1, enable_checkpointing=False, **options).fit(
            module, _loader(3, torch.float32)
        )
    close(weights_of(module.network), right, "weights", 2e-2)


@row(SECTION, "Lightning: `StochasticWeightAveraging`", "lightning", quick=False)
def lightning_swa(network: Network) -> None:
    lightning, module = _lightning(network)
    with tempfile.TemporaryDirectory() as folder:
        swa = lightning.pytorch.callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=1)
        _trainer(lightning, folder, 3, enable_checkpointing=False, callbacks=[swa]).fit(
            module, _loader(3)
        )
    same_step(network, module.network)


@row(
    SECTION,
    "skorch: `NeuralNetRegressor` in `GridSearchCV`, pickled",
    "skorch",
    "sklearn",
    quick=False,
)
def skorch_grid(network: Network) -> None:
    import pickle

    from sklearn.model_selection import GridSearchCV
    from skorch import NeuralNetRegressor

    x, y = (value.numpy() for value in data(samples=24))
    estimator = NeuralNetRegressor(
        network.make(),
        optimizer=torch.optim.Adam,
        max_epochs=2,
        batch_size=8,
        verbose=0,
        train_split=None,
    )
    estimator.set_params(iterator_train__shuffle=False)
    search = GridSearchCV(estimator, {"lr": [0.01, 0.02]}, cv=2, error_score="raise").fit(x, y)
    lr = search.best_params_["lr"]
    parts = [(torch.from_numpy(x[k : k + 8]), torch.from_numpy(y[k : k + 8])) for k in (0, 8, 16)]
    right = plainly_trained(
        network, weights_of(network.make()), lambda values: torch.optim.Adam(values, lr), parts * 2
    )
    best = pickle.loads(pickle.dumps(search.best_estimator_))
    close(weights_of(best.module_), right, "weights", 1e-7)
    outputs = torch.from_numpy(np.asarray(best.predict(x)))
    close(outputs, network.plain(right, torch.from_numpy(x)), "outputs")


@row(
    SECTION,
    "transformers: `Trainer`, checkpoint, resume",
    "transformers",
    "accelerate",
    quick=False,
)
def transformers_trainer(network: Network) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import Trainer, TrainingArguments

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network.make()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            outputs = self.net(x)
            return {"loss": loss_of(outputs, labels), "logits": outputs}

    x, y = data(samples=16)
    samples = [{"x": u, "labels": t} for u, t in zip(x, y, strict=True)]
    steps = [*zip(x.split(4), y.split(4), strict=True)]
    right = plainly_trained(network, weights_of(network.make()), adam, steps)

    def run(folder: str, steps: int, resume: str | None = None) -> nn.Module:
        module = WithLoss()
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=4,
            max_steps=steps,
            save_steps=2,
            learning_rate=0.01,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            train_sampling_strategy="sequential",
        )
        trainer = Trainer(module, arguments, train_dataset=samples)
        trainer.create_optimizer = lambda *told: (
            setattr(trainer, "optimizer", trainer.optimizer or adam(module.parameters()))
            or trainer.optimizer
        )
        trainer.train(resume_from_checkpoint=resume)
        return module.net

    with tempfile.TemporaryDirectory() as folder:
        run(folder, 2)
        module = run(folder, 4, str(Path(folder) / "checkpoint-2"))
    close(weights_of(module), right, "weights", 1e-7)


@row(SECTION, "PEFT: LoRA on the linear layer before", "peft", quick=False)
def lora(network: Network) -> None:
    import peft

    module, (x, y) = network.make(), data()
    weights = weights_of(module)
    target = next(n for n, part in module.named_modules() if n.endswith(("linear", "before")))
    torch.manual_seed(0)
    tuned = peft.get_peft_model(module, peft.LoraConfig(r=1, lora_alpha=1, target_modules=[target]))
    close(tuned(x), network.plain(weights, x), "outputs")
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(tuned(x), y).backward()
        optimizer.step()
    pieces = {n.split(".")[-3]: p for n, p in tuned.named_parameters() if "lora_" in n}
    change = pieces["lora_B"].detach().double() @ pieces["lora_A"].detach().double()
    assert change.norm() > 0.0
    at = f"{target.removeprefix('net.')}.weight"
    right = network.plain({**weights, at: weights[at] + change}, x)
    close(tuned(x), right, "outputs after training", 1e-6)
    close(tuned.merge_and_unload()(x), right, "outputs after merging", 1e-6)


@row(
    SECTION,
    "torchdiffeq: `odeint` and `odeint_adjoint` with the network in the right-hand side",
    "torchdiffeq",
    quick=False,
)
def right_hand_side(network: Network) -> None:
    from torchdiffeq import odeint, odeint_adjoint

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network.make()

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -y * self.net(torch.tanh(y))

    module = Slope()
    weights, (x, _) = weights_of(module), data()
    times = torch.linspace(0.0, 1.0, 5, dtype=x.dtype)
    right = odeint(lambda t, y: -y * network.plain(weights, y.tanh()), x, times, method="rk4")
    found = torch.autograd.grad(right[-1].square().sum(), [*weights.values()])
    for solve, rtol in ((odeint, 1e-9), (odeint_adjoint, 1e-2)):
        outputs = solve(module, x, times, method="rk4")
        close(outputs, right, "outputs")
        got = torch.autograd.grad(outputs[-1].square().sum(), [*module.parameters()])
        for one, other in zip(got, found, strict=True):
            close(one, other, f"gradient by {solve.__name__}", rtol)
    copy.deepcopy(module)
