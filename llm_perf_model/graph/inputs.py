"""What a stack reads -> the nodes before its layers: rows of tables, or sound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ..ops.dense import Embedding
from ..ops.node import Node
from ..specs.model import AudioInput
from .audio import frames
from .exchanges import all_reduce
from .parts import Parts
from .residual import layer_input_tables

TOKEN_TABLE = "embedding"


def inputs(parts: Parts, audio: AudioInput | None = None) -> Iterator[Node]:
    """Its tokens, or what it hears, as vectors of the model's width."""
    model = parts.model
    if audio is not None:
        yield from frames(parts, audio)
    else:
        yield Node(TOKEN_TABLE, "embedding", embedding(parts), place="first")
        yield from all_reduce(parts, "embedding_all_reduce", 1.0)
    if model.embedding_norm:
        yield parts.norm_node("embedding_norm", 1.0)
    if model.embedding_width is not None and audio is None:
        widening = parts.linear(float(model.embedding_width), float(model.hidden), bias=False)
        for node in parts.product("embedding_widening", "embedding", widening):
            yield replace(node, place="first")
    if model.layer_inputs is not None:
        for node in layer_input_tables(parts, model.layer_inputs, model.layer_count):
            yield replace(node, place="first")


def embedding(parts: Parts) -> Embedding:
    """The token table of one rank, and tables beside it."""
    m, p = parts.model, parts.precision
    rows = float(math.ceil(m.vocab / parts.tp))
    side_rows = tuple(float(rows) for rows in (m.learned_rows, m.token_types) if rows)
    width, b = float(m.embedding_width or m.hidden), p.wide_bytes if m.tied_embeddings else p.table_bytes
    return Embedding(rows, side_rows, width, parts.tp, b, p.activation_bytes, parts.borrows)
