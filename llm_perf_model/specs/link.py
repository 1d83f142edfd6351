"""A link between devices: what its standard or datasheet states."""

from __future__ import annotations

from typing import Literal

from .base import FileSpec, Positive


class LinkSpec(FileSpec):
    """One lane bundle of a link, in one direction.

    What exchanges reach of it is in the `CollectiveSpec` of its kind.
    """

    kind: Literal["fabric", "bus", "network"]
    launch_year: int
    bytes_per_s: Positive
    peer_access: bool = True
    """False: each message stops in host memory on its way."""
