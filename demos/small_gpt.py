"""A byte-level GPT learns the text of Python's library with 2 layers, and with more if they help.

python demos/small_gpt.py [folder for the picture] [seconds]
"""

import math
import sys
import sysconfig
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mgnet.depth import ODENet, parameter_groups, train_in_depth
from mgnet.options import init

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/small_gpt")
seconds = float(arguments[2]) if len(arguments) > 2 else 45.0
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

WIDTH, HEADS, CONTEXT, BATCH, DEPTH = 64, 4, 64, 16, 8

files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
texts = [file.read_bytes() for file in files]
held_out = np.frombuffer(b"".join(texts[::10]), np.uint8)
training = np.frombuffer(b"".join(t for n, t in enumerate(texts) if n % 10), np.uint8)
print(f"{len(files)} files, {len(training) / 1e6:.1f} MB; every tenth file is held out\n")


class Block(nn.Module):
    """The part that a layer adds: attention to earlier bytes, then a feed-forward network."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, u):
        batch, length, _ = u.shape
        q, k, v = self.qkv(self.norm1(u)).view(batch, length, 3, HEADS, -1).unbind(2)
        heads = [x.transpose(1, 2) for x in (q, k, v)]
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        attended = self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return attended + self.down(functional.gelu(self.up(self.norm2(u + attended))))


class Embedding(nn.Module):
    """Map bytes and their positions to the state."""

    def __init__(self):
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)

    def forward(self, text):
        return self.bytes(text) + self.places.weight[: text.shape[1]]


def windows(text, count, rng):
    """Random pieces of text, one byte longer than the context."""
    starts = rng.integers(0, len(text) - CONTEXT - 1, count)
    rows = text[starts[:, None] + np.arange(CONTEXT + 1)]
    return torch.from_numpy(rows.astype(np.int64))


class Batches:
    """Pieces of the training text, new ones each time."""

    def __iter__(self):
        rng = np.random.default_rng(0)
        while True:
            yield windows(training, BATCH, rng)


def loss(net, rows):
    found = functional.cross_entropy(net(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    if net.training:
        seen.append((time.perf_counter() - began, net.depth, found.item()))
    return found


ends = {"before": Embedding(), "after": nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))}
net = ODENet(lambda n: Block(), 2, final_time=4.0, learnable_steps=True, **ends)
apart = windows(held_out, 256, np.random.default_rng(1))
seen, began = [], time.perf_counter()
told = train_in_depth(
    net,
    loss,
    Batches(),
    lambda net: torch.optim.AdamW(parameter_groups(net, 0.1), lr=4e-3, betas=(0.9, 0.95)),
    validate=lambda net: loss(net, apart).item(),
    depth=DEPTH,
    seconds=seconds,
    clip=1.0,
)
print(told.explain())
net = told.net.eval()
bits = told.stages[-1].held_out / math.log(2.0)
print(f"\nheld out: {bits:.2f} bits per byte with {net.depth} layers (8 without any knowledge)")

prompt = b"def __init__(self, "
text = torch.tensor([list(prompt)])
generator = torch.Generator().manual_seed(0)
with torch.no_grad():
    for _ in range(240):
        chances = functional.softmax(net(text[:, -CONTEXT:])[:, -1] / 0.7, -1)
        text = torch.cat([text, torch.multinomial(chances, 1, generator=generator)], 1)
print("\na sample of its text:\n")
for line in bytes(text[0].tolist()).decode("utf-8", "replace").splitlines():
    print("   ", line)

if not seen:
    sys.exit(print("\nno step was made in so short a time"))
ax = plt.figure(figsize=(7, 4), layout="constrained").subplots()
times, depths, losses = (np.array(each) for each in zip(*seen, strict=True))
times -= times[0]
smooth = max(1, len(losses) // 200)
mean = np.convolve(losses, np.ones(smooth) / smooth, "valid")
for depth in sorted({*depths.tolist()}):
    chosen = depths[smooth - 1 :] == depth
    last = times[smooth - 1 :][chosen]
    ax.plot(last, mean[chosen], ".", markersize=2, label=f"{depth} layers")
ends_of = np.cumsum([each.seconds for each in told.stages])
kept = np.array([each.kept for each in told.stages])
values = np.array([each.held_out for each in told.stages])
ax.plot(ends_of[kept], values[kept], "k-o", label="held out")
ax.plot(ends_of[~kept], values[~kept], "kx", label="held out, dropped after a trial")
ax.set(xlabel="seconds", ylabel="loss, nats per byte", ylim=(None, 4.0))
ax.legend()
plt.savefig(out / "loss.png", dpi=150)
print(f"\nwrote {out / 'loss.png'}")
