"""A prefill on devices of its own: the cache that moves to those of the decode, and when it is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .case import Case
from .generate import Phase, Steps, passes
from .graph.exchanges import cache_transfer
from .numeric import maximum, minimum
from .peak import sequence_cache_bytes
from .rates import Exchange
from .specs.catalog import load
from .specs.collective import CollectiveSpec
from .specs.link import LinkSpec
from .types import Num


@dataclass(frozen=True)
class Handover:
    """The devices of the prefill, and the cache on its way from them."""

    case: Case
    """Of the prefill."""
    link: LinkSpec
    transfer: Phase

    def exposed_s(self, prefill_s: Num) -> Num:
        r"""Seconds for which the decode waits for the cache, :math:`\max(P, X) + \min(P, X) / L - P`.

        A prefill of P seconds sends the cache of each of L layers as soon as that is done, X seconds for all.
        """
        sent_s, layers = self.transfer.time_s, float(self.case.model.layer_count)
        return maximum(prefill_s, sent_s) + minimum(prefill_s, sent_s) / layers - prefill_s


def handover(prefilling: Case, link: LinkSpec, decoding: Case, batch_size: Num, input_len: Num) -> Handover:
    """The cache of prompts from one case's devices to another's, as fast as the busiest device sends or takes."""
    sent, taken = (
        case.layout.kept_sequences(batch_size) * sequence_cache_bytes(case.allocation, input_len)
        for case in (prefilling, decoding)
    )
    reached, cycle_s = load(CollectiveSpec, link.kind), 1.0 / prefilling.gpu.boost_hz
    start_s, hop_s = reached.start_cycles * cycle_s, reached.hop_cycles * cycle_s
    exchange = Exchange(link.bytes_per_s * reached.link_efficiency, start_s, hop_s, 0.0)
    idle = replace(prefilling.machine, host_link=None, dispatch_s=0.0, launch_s=0.0, layers_host_s=0.0)
    idle = replace(idle, exchange=exchange, step_s=0.0, sequence_s=0.0)
    return Handover(prefilling, link, passes((cache_transfer(maximum(sent, taken)),), idle, Steps(1.0, 0.0), 1.0))
