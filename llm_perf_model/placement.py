"""Which layouts a model and a device allow: what divides, and which links join the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .errors import InfeasibleError
from .machine import Connection
from .specs.attention import GroupedQueryAttention, LatentAttention
from .specs.catalog import load
from .specs.collective import CollectiveSpec
from .specs.ffn import MoeFfn
from .specs.gpu import GpuSpec
from .specs.layout import LayoutSpec
from .specs.link import LinkSpec
from .specs.model import LayerGroup, ModelSpec
from .specs.network import NetworkSpec

MOST_RANKS = 1024
"""Ranks that are tried for one that divides a model."""

NODE_RANKS = 8
"""Cards that share one host."""


class Links(NamedTuple):
    """The links that a request names."""

    inside: LinkSpec | None = None
    """Between the ranks of a node; None: the device's fastest."""
    network: LinkSpec | None = None
    """Between nodes; None: the device's usual one."""
    oversubscription: float = 1.0
    """Rate of the devices' ports over that of the switches above them."""


NO_LINKS = Links()


class Joints(NamedTuple):
    """What joins the ranks of a replica."""

    inside: Connection | None = None
    """Inside a node; None where it holds one rank."""
    network: Connection | None = None
    """Between nodes; None where there is one."""
    node_ranks: int = 1
    """Ranks of the replica on each node."""


def check_layout(model: ModelSpec | NetworkSpec, layout: LayoutSpec) -> None:
    """Refuse layouts that the model cannot run in.

    Raises:
        InfeasibleError: something does not divide, or has nothing to share.
    """
    for problem in _contradictions(layout):
        raise InfeasibleError(problem)
    if not isinstance(model, ModelSpec):
        if layout.replica_ranks > 1:
            raise InfeasibleError(
                f"{model.name} is a network of layers: only tp = 1 and layer_split = 1 are answered; use dp"
            )
        return
    _check_divides(model, layout)
    _check_stages(model, layout)
    _check_experts(model, layout)
    _check_context(model, layout)


def _contradictions(layout: LayoutSpec) -> Iterator[str]:
    """What is wrong with a layout of any model."""
    if layout.layer_split > 1 and layout.stage_ranks * layout.pp > 1:
        other = next(word for word in ("tp", "pp", "attention_dp", "cp") if getattr(layout, word) > 1)
        yield f"{other} and layer_split exclude each other: give one of them"
    if layout.stage_ranks % layout.ep:
        possible = ", ".join(str(n) for n in range(1, layout.stage_ranks + 1) if layout.stage_ranks % n == 0)
        yield (
            f"ep = {layout.ep} does not divide the {layout.stage_ranks} ranks of a stage (tp x attention_dp x cp); "
            f"possible: {possible}"
        )
    if layout.micro_batches is not None and layout.pp == 1:
        yield f"micro_batches = {layout.micro_batches} needs stages that work side by side: give pp above 1"
    if layout.sequence_parallel and layout.tp == 1:
        yield "sequence_parallel shares tokens among tp ranks: give tp above 1"
    if layout.expert_imbalance is not None and layout.ep == 1:
        yield "expert_imbalance is one of ranks that hold whole experts: give ep above 1"
    if layout.nodes is not None and layout.ranks % layout.nodes:
        yield f"nodes = {layout.nodes} does not divide the {layout.ranks} devices"


def _check_stages(model: ModelSpec, layout: LayoutSpec) -> None:
    word = "pp" if layout.pp > 1 else "layer_split"
    if model.encoder is not None and layout.stages > 1:
        raise InfeasibleError(
            f"{word} = {layout.stages}: {model.name} has an encoder and a decoder, which are not split by "
            "layers; use tp or dp"
        )
    if layout.stages > model.layer_count:
        raise InfeasibleError(f"{word} = {layout.stages} exceeds the {model.layer_count} layers of {model.name}")


def _check_experts(model: ModelSpec, layout: LayoutSpec) -> None:
    experts = [group.ffn.experts for group in model.groups if isinstance(group.ffn, MoeFfn)]
    if not experts and layout.ep > 1:
        raise InfeasibleError(f"ep = {layout.ep}: {model.name} has no experts to spread; use tp, pp or dp")
    if not experts and layout.attention_dp > 1:
        raise InfeasibleError(
            f"attention_dp = {layout.attention_dp}: {model.name} has no experts that its ranks would share, "
            f"so that is dp = {layout.attention_dp}"
        )
    if experts and layout.ep > min(experts):
        possible = [n for n in range(1, min(experts) + 1) if layout.stage_ranks % n == 0]
        raise InfeasibleError(
            f"ep = {layout.ep} exceeds the {min(experts)} experts of {model.name}; possible: "
            f"{', '.join(map(str, possible))}"
        )


def _check_context(model: ModelSpec, layout: LayoutSpec) -> None:
    if layout.cp == 1:
        return
    if model.encoder is not None or not model.causal:
        raise InfeasibleError(f"cp = {layout.cp}: answered for decoders alone; use tp or dp for {model.name}")
    for group in model.layers:
        mixed = (group.attention, group.beside_attention)
        other = next((m for m in mixed if m and not isinstance(m, GroupedQueryAttention | LatentAttention)), None)
        if other is not None:
            raise InfeasibleError(
                f"cp = {layout.cp}: {model.name} has layers of kind {other.kind}, whose tokens ranks cannot share; "
                "use tp, pp or dp"
            )


def _check_divides(model: ModelSpec, layout: LayoutSpec) -> None:
    for group in model.groups:
        if not _divides(group, layout.tp, layout.expert_tp):
            counts = [n for each in model.groups for block in each.blocks for n in block.shared.values()]
            split = [n for g in model.groups for b in g.blocks if b is not g.ffn for n in b.shared.values()]
            most = min(split, default=max(counts))  # what divides all is at most the least
            others = layout.sharers / layout.ep
            possible = [
                n for n in range(1, min(most, MOST_RANKS) + 1) if all(_divides(g, n, n * others) for g in model.groups)
            ]
            sizes = {word: count for block in group.blocks for word, count in (block.shared | block.copied).items()}
            text = ", ".join(f"{word} {n}" if "width" in word else f"{n} {word}" for word, n in sizes.items())
            beside = f" (each expert over {layout.expert_tp} ranks)" if layout.expert_tp != layout.tp else ""
            raise InfeasibleError(
                f"tp = {layout.tp}{beside} does not divide {model.name}: {text}; possible: "
                f"{', '.join(map(str, possible)) or 'none, with another ep perhaps'}"
            )


def divides(model: ModelSpec | NetworkSpec, tp: int) -> bool:
    """Whether so many ranks can share each layer of a model."""
    return isinstance(model, ModelSpec) and all(_divides(group, tp, tp) for group in model.groups)


def _divides(group: LayerGroup, tp: int, expert_tp: float) -> bool:
    """What ranks share splits evenly; what they may copy splits evenly or is copied evenly."""
    if expert_tp != tp and isinstance(group.ffn, MoeFfn):
        if expert_tp < 1.0 or group.ffn.intermediate % expert_tp:
            return False
        shared_width = group.ffn.shared_intermediate or 0
        counts = [shared_width, *(n for block in group.blocks if block is not group.ffn for n in block.shared.values())]
    else:
        counts = [count for block in group.blocks for count in block.shared.values()]
    copied = (n for block in group.blocks for n in block.copied.values())
    return all(count % tp == 0 for count in counts) and all(n % tp == 0 or tp % n == 0 for n in copied)


def joints(gpu: GpuSpec, layout: LayoutSpec, named: Links = NO_LINKS) -> Joints:
    """The links that join the ranks of a replica, and how many of these lie on each node.

    A named link inside joins all of them where no network or number of nodes is given.

    Raises:
        InfeasibleError: a node does not hold as many, and there is no network between nodes.
    """
    ranks, most = layout.replica_ranks, node_ranks(gpu)
    if ranks == 1:
        return Joints()
    if layout.nodes is None and (ranks <= most or (named.inside is not None and named.network is None)):
        return Joints(connection(gpu, ranks, named.inside), None, ranks)
    on_node = _ranks_on_node(gpu, layout, most)
    inside = connection(gpu, on_node, named.inside)
    if on_node == ranks:
        return Joints(inside, None, ranks)
    network = named.network or (load(LinkSpec, gpu.network) if gpu.network else None)
    if network is None:
        raise InfeasibleError(
            f"{ranks} devices are more than one node of {gpu.name} holds ({on_node if layout.nodes else most}); "
            "name the network with --network, or one link for all with --link"
        )
    return Joints(inside, _joined(network, 1, named.oversubscription), on_node)


def _ranks_on_node(gpu: GpuSpec, layout: LayoutSpec, most: int) -> int:
    """Ranks of a replica on each node: as many nodes as are given, or as few as hold them evenly."""
    ranks = layout.replica_ranks
    if layout.nodes is None:
        return next(n for n in range(min(most, ranks), 0, -1) if ranks % n == 0)
    held = layout.ranks // layout.nodes
    if held > most:
        raise InfeasibleError(
            f"nodes = {layout.nodes}: {held} devices on each are more than one node of {gpu.name} holds ({most}); "
            f"give at least {-(-layout.ranks // most)}"
        )
    return min(held, ranks)


def node_ranks(gpu: GpuSpec) -> int:
    """Cards of a node, or of a rack that is one."""
    return max(NODE_RANKS, gpu.scale_up.ranks if gpu.scale_up else 0)


def _joined(link: LinkSpec, bundles: int, oversubscription: float = 1.0) -> Connection:
    if link.storage:
        raise InfeasibleError(f"link: {link.name} is a drive, which joins no devices; name another link")
    return Connection(link, bundles, load(CollectiveSpec, link.kind), oversubscription)


def connection(gpu: GpuSpec, ranks: int, link: LinkSpec | None) -> Connection | None:
    """The fastest link that joins so many cards of a node: the fabric where it reaches, else the host bus."""
    if ranks == 1:
        return None
    fabric = gpu.scale_up
    if link is not None:
        return _joined(link, fabric.links if fabric is not None and fabric.link == link.name else 1)
    if fabric is not None and ranks <= fabric.ranks:
        return _joined(load(LinkSpec, fabric.link), fabric.links)
    if ranks <= NODE_RANKS:
        return _joined(load(LinkSpec, gpu.host_link), 1)
    raise InfeasibleError(
        f"{ranks} devices are more than one node of {gpu.name} holds ({node_ranks(gpu)}); "
        "name the network with --network, or one link for all with --link"
    )
