"""A network file as a PyTorch module with random weights: the layers that an estimate counts, made to run."""

from __future__ import annotations

from typing import Any

from ..errors import RequestError
from ..specs.layer import Shape, text_of
from ..specs.network import NetworkSpec
from .torch_layers import write_layers
from .written import Writer

SETTLED_BY = 4
"""Samples from which batch norms take what they subtract and divide by."""


def built(network: NetworkSpec, device: Any = "cpu", dtype: Any = None, input_shape: Shape | None = None) -> Any:
    """A `torch.nn.Module` of the layers of a network, with random weights, ready for inference.

    Its modules bear the names that operators have in a breakdown. Before a weight is made, a pass without values shows
    that each layer makes the shape that it has in the estimate.

    Args:
        network: layers, and the shape of a sample
        device: where the weights are made, as PyTorch names it
        dtype: of weights and activations; None: 32 bits
        input_shape: shape of a sample in place of the network's

    Raises:
        InfeasibleError: the layers do not take samples of the shape.
        RequestError: a layer of the module makes another shape than that of the file.
    """
    import torch

    shape = network.samples_of(input_shape)
    with torch.device("meta"):
        _check_shapes(network.name, _written(network, shape), torch.empty(1, *shape))
    with torch.device(device):
        module = _written(network, shape)
        _settle_norms(module, torch.randn(SETTLED_BY, *shape))
    return module.to(dtype or torch.float32).eval()


def samples(network: NetworkSpec, batch_size: int, device: Any, dtype: Any, input_shape: Shape | None = None) -> Any:
    """Random samples on a device: a tensor whose first axis counts them."""
    import torch

    return torch.randn(batch_size, *(input_shape or network.input), device=device, dtype=dtype)


def parameters(module: Any) -> int:
    """Weights of a module; what batch norms have counted of their inputs is none."""
    return sum(weights.numel() for weights in module.parameters())


def _written(network: NetworkSpec, shape: Shape) -> Any:
    to = Writer()
    return to.module(write_layers(to, network.layers, to.given, shape))


def _settle_norms(module: Any, given: Any) -> None:
    """Let batch norms take means and variances from a pass, as training does.

    Without it values halve from layer to layer, and processors are slow where they come near zero.
    """
    import torch

    norms = [part for part in module.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of this pass alone
    if norms:
        with torch.no_grad():
            module.train()(given)


def _check_shapes(name: str, module: Any, given: Any) -> None:
    """Refuse a module one of whose layers makes another shape than the file's."""
    from torch.fx.passes.shape_prop import ShapeProp

    ShapeProp(module).propagate(given)
    for node in module.graph.nodes:
        if "made" not in node.meta:
            continue
        (layer, told), made = node.meta["made"], tuple(node.meta["tensor_meta"].shape[1:])
        if made != told:
            raise RequestError(f"{name}: layer {layer} makes {text_of(made)} in PyTorch, {text_of(told)} in the file")
