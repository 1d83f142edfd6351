"""What exchanges between ranks reach on one kind of link, whatever its rate."""

from __future__ import annotations

from .base import CoefficientSpec, Efficiency, NonNegative, Positive, Spec


class OneKernelAllReduce(Spec):
    """An all-reduce in one kernel whose ranks read each other's memory, up to `max_bytes`.

    It starts in `start_cycles` and `rank_cycles` for each other rank; in two shots the ranks meet once
    more, for `barrier_cycles` each.
    """

    start_cycles: NonNegative
    rank_cycles: NonNegative
    barrier_cycles: NonNegative
    link_efficiency: Efficiency
    max_bytes: Positive


class CollectiveSpec(CoefficientSpec):
    """Coefficients of exchanges over the kind of link that the file is named after.

    Latencies are cycles of the device's boost clock, because kernels on the devices carry them out. A
    ring starts in `start_cycles`, pays `hop_cycles` a step and cuts its bytes into pieces that cost
    `chunk_cycles` each; it reaches `link_efficiency` of the link's rate.
    """

    start_cycles: NonNegative
    hop_cycles: NonNegative
    chunk_cycles: NonNegative
    link_efficiency: Efficiency
    buffer_bytes: NonNegative | None = None
    """Device memory that the exchange library keeps for its channels; None: not known."""
    one_kernel: OneKernelAllReduce | None = None
    copy_efficiency: Efficiency | None = None
    """Share of the link's rate that large copies from pinned host memory reach; None: no host is on such a link."""
