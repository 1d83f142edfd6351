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
    storage: bool = False
    """A drive, which joins no devices."""

    @property
    def host_bytes_per_s(self) -> float:
        """Rate of a copy from host memory, which crosses once where a message between devices crosses twice."""
        return self.bytes_per_s * (1.0 if self.peer_access else 2.0)
