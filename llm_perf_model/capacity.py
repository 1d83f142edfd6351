"""The answer of `memory`: the peak by part and moment, the pool of the engine, and the edge of what fits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .estimate import Estimate, plain
from .frontier import max_input_len
from .numeric import where
from .peak import MOMENTS, Memory
from .report.document import Report, Table
from .sizing import Alternatives, Point, alternatives, shortfall, worst_case, worst_point
from .specs.model import ModelSpec
from .summary import span, title
from .types import Mask, Num
from .units import binary_bytes, decimal, percent

PARTS = {
    "weights": "weights_bytes",
    "KV cache": "kv_cache_bytes",
    "live activations": "live_bytes",
    "logits": "logits_bytes",
    "workspace": "workspace_bytes",
    "fragments": "fragment_bytes",
    "communication buffers": "comm_buffer_bytes",
    "captured graphs": "graph_bytes",
    "context and libraries": "context_bytes",
}
"""Part of the peak in words -> field of `Memory`."""

_MOMENT_WORDS = {"prefill": "prefill", "logits": "logits of the prefill", "decode": "last decode step"}


@dataclass(frozen=True)
class Capacity:
    """What a request takes of each device's memory, and how much more would fit.

    Numbers are floats, or arrays of the broadcast shape of the request; `what_fits` is about the worst point.
    """

    estimate: Estimate

    @property
    def memory(self) -> Memory:
        """What one device holds at its worst moment, by part."""
        return self.estimate.memory

    @property
    def fits(self) -> Mask:
        """Whether each device holds it."""
        return self.memory.fits

    @property
    def max_batch_size(self) -> Num:
        """The largest batch of these lengths."""
        return self.estimate.max_batch_size

    @cached_property
    def max_input_len(self) -> Num:
        """The longest prompt of this batch and output."""
        e = self.estimate
        w = e.workload
        output_len = w.output_len if e.case.model.causal else 0.0
        model = e.case.model
        return max_input_len(e.case.allocation, w.batch_size, output_len, model.max_positions, model.source_positions)

    @property
    def max_context(self) -> Num:
        """Tokens of a sequence with the longest prompt; 0 where none fits."""
        longest, e = self.max_input_len, self.estimate
        return where(longest > 0.0, longest + (e.workload.output_len if e.case.model.causal else 0.0), 0.0)

    @cached_property
    def point(self) -> Point:
        """The workload that lacks most memory, or has least to spare."""
        return worst_point(self.estimate)

    @cached_property
    def what_fits(self) -> Alternatives:
        """Single changes with which the worst point fits: the fewest ranks among them."""
        return alternatives(worst_case(self.estimate), self.point)

    def to_dict(self) -> dict[str, Any]:
        """The answer in SI units: numbers, lists, text and None."""
        e, m = self.estimate, self.memory
        moments = {name: plain(value) for name, value in zip(MOMENTS, m.moment_bytes, strict=True)}
        pool = {name: _finite(value) for name, value in m.pool._asdict().items()}
        frontier = {name: plain(getattr(self, name)) for name in ("max_batch_size", "max_input_len", "max_context")}
        return {
            "request": e.request.plain(),
            "memory": e.memory_dict(),
            "moments": moments,
            "pool": pool | {"block_tokens": e.case.engine.block_tokens},
            "fits": plain(self.fits),
            "frontier": frontier,
            "what_fits": self.what_fits.to_dict() | {"devices": self.what_fits.devices},
        }

    def report(self) -> Report:
        """Tables for people."""
        tables = (self._parts(), self._moments(), self._frontier(), *self._pool())
        return Report(title(self.estimate), tables, self._notes(), self.to_dict())

    def _parts(self) -> Table:
        m = self.memory
        named = {word: getattr(m, field) for word, field in PARTS.items()}
        rows = [(word, value) for word, value in named.items() if np.any(np.asarray(value) > 0.0)]
        rows += [("peak", m.peak_bytes), ("capacity", m.capacity_bytes)]
        if np.any(np.asarray(m.limit_bytes) < m.capacity_bytes):
            rows.append(("of which the engine takes", m.limit_bytes))
        cells = tuple(
            (word, span(value, binary_bytes), span(value / m.capacity_bytes, percent)) for word, value in rows
        )
        return Table(("memory per device", "", "of capacity"), cells)

    def _moments(self) -> Table:
        largest = set(np.unique(self.memory.moment).tolist())
        rows = tuple(
            (_MOMENT_WORDS[name], span(value, binary_bytes), "peak" if name in largest else "")
            for name, value in zip(MOMENTS, self.memory.moment_bytes, strict=True)
            if name == "prefill"
            or (name == "logits" and self.estimate.case.model.head == "lm")
            or np.any(np.asarray(self.estimate.decode_steps) > 0.0)
        )
        return Table(("moment", "", ""), rows)

    def _frontier(self) -> Table:
        found = self.what_fits
        none = "none fits"
        of_lengths = " of these lengths" if isinstance(self.estimate.case.model, ModelSpec) else ""
        rows = [
            (f"largest batch{of_lengths}", span(self.max_batch_size, _count(none))),
        ]
        if isinstance(self.estimate.case.model, ModelSpec):
            rows.append(("longest prompt of this batch", span(self.max_input_len, _count(none))))
            rows.append(("fewest tensor-parallel ranks", str(found.tp or none)))
        if found.layer_split:
            rows.append(("fewest stages of a layer split", str(found.layer_split)))
        return Table(("frontier", ""), tuple(rows))

    def _pool(self) -> tuple[Table, ...]:
        pool, engine = self.memory.pool, self.estimate.case.engine
        grown = engine.concatenates(self.estimate.case.allocation.cache)
        if grown or engine.workspace or not np.all(np.isfinite(pool.tokens)):
            return ()
        rows = [("room for the cache", span(np.maximum(pool.pool_bytes, 0.0), binary_bytes))]
        rows.append(("tokens", span(pool.tokens, lambda v: decimal(v, ""))))
        if engine.block_tokens:
            rows.append((f"blocks of {engine.block_tokens} tokens", span(pool.blocks, _count("0"))))
        rows.append(("sequences of this length at a time", span(pool.concurrency, _count("0"))))
        return (Table(("pool", ""), tuple(rows)),)

    def _notes(self) -> tuple[str, ...]:
        fits = np.asarray(self.fits)
        if fits.all():
            return ("fits",)
        text, _ = shortfall(self.estimate)
        return (text if fits.ndim == 0 else f"fits at {fits.mean():.0%} of the points; at the worst: {text}",)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


def _finite(value: Any) -> Any:
    """As plain data, None where there is no bound."""
    return plain(value) if np.all(np.isfinite(value)) else None


def _count(none: str) -> Any:
    return lambda value: f"{value:.0f}" if value > 0.0 else none
