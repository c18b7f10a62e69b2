"""The other side of `ode_march.py`: the same work by diffrax and by a scan of JAX, when asked.

`ode_march.py --diffrax PATH` starts it in a process of its own, as JAX has another NumPy. For each
line "scheme steps file" on its input, with the start and the weights in the file, it prints for
each method its name, seconds, the growth of its memory in MiB and a file with the gradients.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax  # type: ignore
import jax  # type: ignore
import numpy as np
from calls import growth, seconds
from jax import numpy as jnp  # type: ignore


class ClassicalRungeKutta(diffrax.AbstractERK):
    """Diffrax has no Runge-Kutta method of four stages; this is how its users add one."""

    tableau = diffrax.ButcherTableau(
        c=np.array([0.5, 0.5, 1.0]),
        b_sol=np.array([1.0, 2.0, 2.0, 1.0]) / 6.0,
        b_error=np.array([1.0, 2.0, 2.0, -5.0]) / 6.0,
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
    )
    interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms: Any) -> int:
        return 4


def slope(t: Any, u: Any, weights: Any) -> Any:
    first, shift, second, end = weights
    return jnp.tanh(u @ first.T + shift) @ second.T + end


def scanned(scheme: str, steps: int, u: Any, weights: Any) -> Any:
    h = 1.0 / steps

    def step(u: Any, _: None) -> tuple[Any, None]:
        f = partial(slope, 0.0, weights=weights)
        k1 = f(u)
        if scheme == "euler":
            return u + h * k1, None
        k2 = f(u + 0.5 * h * k1)
        k3 = f(u + 0.5 * h * k2)
        k4 = f(u + h * k3)
        return u + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4), None

    return jax.lax.scan(step, u, None, length=steps)[0]


def solved(scheme: str, steps: int, u: Any, weights: Any) -> Any:
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Euler() if scheme == "euler" else ClassicalRungeKutta(),
        0.0,
        1.0,
        1.0 / steps,
        u,
        args=weights,
        max_steps=steps + 1,
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=steps),  # the fastest of its own
    )
    return found.ys[-1]


METHODS = {"diffrax": solved, "JAX scan": scanned}


def gradients(name: str, scheme: str, steps: int) -> Callable[[Any, Any], Any]:
    def loss(u: Any, weights: Any) -> Any:
        return (METHODS[name](scheme, steps, u, weights) ** 2).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1)))


def main() -> None:
    made: dict[Any, Callable[[Any, Any], Any]] = {}
    for line in sys.stdin:
        scheme, steps, file = line.split()
        jax.config.update("jax_enable_x64", file.endswith("64.npz"))
        with np.load(file) as given:
            u, *weights = [jnp.asarray(given[name]) for name in sorted(given.files)]
        for name in METHODS:
            key = name, scheme, steps, u.shape, str(u.dtype)
            if key not in made:
                made[key] = gradients(name, scheme, int(steps))

            def work(run: Any = made[key], u: Any = u, weights: Any = weights) -> Any:
                return jax.block_until_ready(run(u, weights))

            of_u, of_weights = work()
            out = f"{file}.{name.replace(' ', '_')}.npz"
            np.savez(out, *map(np.asarray, (of_u, *of_weights)))
            print(f"{name}\t{seconds(work)}\t{growth(work)}\t{out}", flush=True)
