"""Requests per second and their lengths, from numbers, distributions or a trace."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Final

import numpy as np

from ..errors import RequestError
from ..specs.plan import Lengths, PlanRequest
from ..types import Array

COLUMNS: Final = ("arrival_s", "input_len", "output_len")

EDGES: Final = (*(0.05 * i for i in range(20)), 0.975, 0.99, 0.995, 0.999)
"""Where the parts of a distribution begin, as shares of all requests: finer where percentiles are asked for."""


@dataclass(frozen=True, slots=True)
class Load:
    r"""What arrives in a second, and the moments of lengths that queues need.

    A sequence of s decode steps holds its prompt and the tokens so far, so that the mean over all decode steps is
    :math:`\bar c = E[I s] / E[s] + E[s^2] / 2 E[s]`.
    """

    requests_per_s: float
    prompt_tokens: Array
    """Lengths of prompts, from short to long."""
    prompt_fraction: Array
    """Share of the requests of each of these lengths."""
    input_tokens: float
    """Mean of a prompt."""
    output_tokens: float
    """Mean of an output."""
    context_tokens: float
    """Cached tokens of a sequence, mean over its decode steps."""
    longest_tokens: float
    """The longest prompt and the longest output together."""
    input_variation: float
    """Variance of a prompt over the square of its mean."""
    output_variation: float
    joint_variation: float
    """Covariance of both over the product of their means."""
    arrival_variation: float = 1.0
    """Variance of the time between arrivals over the square of its mean; 1: at random."""

    @property
    def decode_steps(self) -> float:
        """Mean passes after the prefill, which makes the first token."""
        return self.output_tokens - 1.0

    @classmethod
    def of(cls, request: PlanRequest) -> Load:
        """The load that a request names.

        Raises:
            RequestError: the trace cannot be read.
        """
        if request.trace is not None:
            return _of_trace(request.trace, request.requests_per_s)
        assert request.requests_per_s is not None, "a request has a trace or numbers"
        assert request.input_len is not None and request.output_len is not None, "as checked"
        (prompts, share), (outputs, weight) = points(request.input_len), points(request.output_len)
        inputs, grid = np.meshgrid(prompts, outputs, indexing="ij")
        joint = share[:, np.newaxis] * weight
        return _of_pairs(request.requests_per_s, inputs.ravel(), grid.ravel(), joint.ravel(), 1.0)


def points(lengths: Lengths) -> tuple[Array, Array]:
    """Lengths that stand for a distribution, in order, and their shares.

    A mean and a coefficient of variation are those of a log-normal distribution, cut into parts of known probability
    with the mean of each.
    """
    if lengths.values is not None:
        weights = np.asarray(lengths.weights or [1.0] * len(lengths.values))
        order = np.argsort(lengths.values)
        return np.asarray(lengths.values, dtype=np.float64)[order], weights[order] / weights.sum()
    assert lengths.mean is not None, "lengths have values or a mean"
    if lengths.cv == 0.0:
        return np.array([lengths.mean]), np.array([1.0])
    sigma, normal = sqrt(log(1.0 + lengths.cv**2)), NormalDist()
    shares = np.array([high - low for low, high in pairwise((*EDGES, 1.0))])
    below = [0.0, *(normal.cdf(normal.inv_cdf(edge) - sigma) for edge in EDGES[1:]), 1.0]
    return lengths.mean * np.diff(below) / shares, shares


def _of_pairs(rate: float, prompts: Array, outputs: Array, weights: Array, arrivals: float) -> Load:
    """The load of requests of these lengths, prompt by prompt with its output."""

    def mean(values: Array) -> float:
        return float(weights @ values)

    if mean(outputs) <= 1.0:
        raise RequestError("output_len: is 1; must be above 1 on average: prefills alone share no steps")
    lengths, index = np.unique(prompts, return_inverse=True)
    shares = np.bincount(index.ravel(), weights).astype(np.float64)
    steps, tokens_in, tokens_out = outputs - 1.0, mean(prompts), mean(outputs)
    return Load(
        requests_per_s=rate,
        prompt_tokens=lengths,
        prompt_fraction=shares,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        context_tokens=mean(prompts * steps) / mean(steps) + mean(steps**2) / (2.0 * mean(steps)),
        longest_tokens=float(np.max(prompts) + np.max(outputs)),
        input_variation=max(mean(prompts**2) / tokens_in**2 - 1.0, 0.0),
        output_variation=max(mean(steps**2) / mean(steps) ** 2 - 1.0, 0.0),
        joint_variation=mean(prompts * steps) / (tokens_in * mean(steps)) - 1.0,
        arrival_variation=arrivals,
    )


def _of_trace(path: str, rate: float | None) -> Load:
    rows = _rows(path)
    arrivals, prompts, outputs = (np.array(column) for column in zip(*rows, strict=True))
    gaps = np.diff(np.sort(arrivals))
    if gaps.size == 0 or gaps.sum() <= 0.0:
        raise RequestError(f"trace: {path} spans no time; must have arrivals at two times at least")
    weights = np.full(prompts.size, 1.0 / prompts.size)
    measured = 1.0 / float(gaps.mean())
    load = _of_pairs(rate or measured, prompts, outputs, weights, float(gaps.var() / gaps.mean() ** 2))
    return load if load.prompt_tokens.size <= len(EDGES) else _grouped(load)


def _grouped(load: Load) -> Load:
    """The load with prompts grouped by rank, each group at its mean."""
    cumulated = np.cumsum(load.prompt_fraction)
    group = np.searchsorted(EDGES, cumulated - load.prompt_fraction / 2.0, side="right") - 1
    shares = np.bincount(group, load.prompt_fraction).astype(np.float64)
    sums = np.bincount(group, load.prompt_fraction * load.prompt_tokens)
    kept = shares > 0.0
    return replace(load, prompt_tokens=sums[kept] / shares[kept], prompt_fraction=shares[kept])


def _rows(path: str) -> list[tuple[float, float, float]]:
    """Arrival and lengths of each request of a CSV file."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise RequestError(f"trace: {path} has no column {missing[0]}; must have {', '.join(COLUMNS)}")
            rows = [_row(path, number, row) for number, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise RequestError(f"trace: cannot read {path}: {reason}") from None
    if not rows:
        raise RequestError(f"trace: {path} has no requests")
    return rows


def _row(path: str, number: int, row: Mapping[str, str | None]) -> tuple[float, float, float]:
    found: list[float] = []
    for name, least in zip(COLUMNS, (0.0, 1.0, 1.0), strict=True):
        try:
            value = float(row[name] or "")
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf"):
            raise RequestError(
                f"trace: {path} line {number}: {name} is {row[name]!r}; must be a number of at least {least:.0f}"
            )
        found.append(value)
    return found[0], found[1], found[2]
