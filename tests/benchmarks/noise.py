"""Noise whose truth is known: latencies of two models as seven kinds of machines would show them, in numbers.

A sample of a model that takes 1 is exp(white + drift + spike + burst + tail + process), where

- white: normal, standard deviation `sigma`;
- drift: normal and autoregressive over the samples of a measurement, standard deviation `drift`, `memory` from one
  sample to the next;
- spike: with probability `spikes` a sample takes 1 + Exp(0.3) times as long;
- burst: a neighbor comes and goes, is there for a fraction `bursts` of the samples, `length` samples long on average,
  and as long as it stays everything takes the same 1 + Exp(0.3) times as long;
- tail: the absolute value of Student's t of 2 degrees of freedom, which has no variance, times `tail`;
- process: what stays with it: normal with standard deviation `offset`, and, with probability 1/2, `kinds` longer.

`quiet`, `bad`, `offsets` and `bimodal` are those of the simulations that the gate was designed by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SPIKE = 0.3


@dataclass(frozen=True)
class Noise:
    """A machine; see above."""

    sigma: float = 0.02
    drift: float = 0.01
    memory: float = 0.95
    spikes: float = 0.05
    bursts: float = 0.0
    length: float = 10.0
    tail: float = 0.0
    offset: float = 0.0
    kinds: float = 0.0


QUIET = Noise()
NOISE = {
    "quiet": QUIET,
    "bad": Noise(sigma=0.05, drift=0.03, spikes=0.15),
    "bursty": Noise(bursts=0.15),
    "drifting": Noise(sigma=0.05, drift=0.05, memory=0.98),
    "heavy-tailed": Noise(spikes=0.0, tail=0.03),
    "offsets": Noise(sigma=0.05, drift=0.03, spikes=0.15, offset=0.03),
    "bimodal": Noise(kinds=0.10),
}


def samples(
    noise: Noise, slowdown: float, rng: np.random.Generator, *, trials: int, processes: int = 10, pairs: int = 2
) -> tuple[Array, Array]:
    """Return the latencies of a, which takes 1, and of b, which takes 1 + `slowdown`, each [trial, process, pair].

    Pairs come in mirrored twos in random order, as the harness measures them; `pairs` are even.
    """
    count = processes * pairs * 2
    shape = (trials, count)
    logs = noise.sigma * rng.standard_normal(shape) + _drift(noise, shape, rng) + _bursts(noise, shape, rng)
    logs += np.where(rng.random(shape) < noise.spikes, np.log1p(rng.exponential(SPIKE, shape)), 0)
    logs += noise.tail * np.abs(rng.standard_t(2, shape))
    fours = logs.reshape(trials, processes, pairs // 2, 2, 2)  # twos of pairs; first and second sample of a pair
    mirrored = np.stack([fours[..., 0, :], fours[..., 1, ::-1]], axis=-2)  # A B, B A
    turned = np.where(rng.random((*fours.shape[:-2], 1, 1)) < 0.5, mirrored, mirrored[..., ::-1])
    a, b = turned.reshape(trials, processes, pairs, 2).transpose(3, 0, 1, 2)
    stays = noise.offset * rng.standard_normal((2, trials, processes, 1))
    stays += math.log1p(noise.kinds) * (rng.random((2, trials, processes, 1)) < 0.5)
    return np.exp(a + stays[0]), (1 + slowdown) * np.exp(b + stays[1])


def _drift(noise: Noise, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    steps = noise.drift * math.sqrt(1 - noise.memory**2) * rng.standard_normal(shape)
    logs = np.empty(shape)
    logs[:, 0] = noise.drift * rng.standard_normal(shape[0])
    for index in range(1, shape[1]):
        logs[:, index] = noise.memory * logs[:, index - 1] + steps[:, index]
    return logs


def _bursts(noise: Noise, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    leaves = 1 / noise.length
    comes = noise.bursts * leaves / (1 - noise.bursts)
    chance, sizes = rng.random(shape), np.log1p(rng.exponential(SPIKE, shape))
    now = np.where(rng.random(shape[0]) < noise.bursts, sizes[:, 0], 0)
    logs = np.empty(shape)
    for index in range(shape[1]):
        stays, arrives = (now > 0) & (chance[:, index] >= leaves), (now == 0) & (chance[:, index] < comes)
        now = np.where(stays, now, np.where(arrives, sizes[:, index], 0))
        logs[:, index] = now
    return logs
