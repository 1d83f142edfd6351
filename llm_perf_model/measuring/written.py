"""A PyTorch graph written node by node, whose modules hold the weights."""

from __future__ import annotations

from typing import Any


class Writer:
    """Keeps nodes in the order in which they run, and modules and weights by the names by which nodes call them.

    Modules and weights are made on PyTorch's current default device.
    """

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.nn = torch.nn
        self.graph = torch.fx.Graph()
        self.parts: dict[str, Any] = {}
        self.given = self.graph.placeholder("samples")

    def module(self, made: Any) -> Any:
        """All that has been written as one `torch.nn.Module`, which returns the value of the node `made`."""
        self.graph.output(made)
        return self.torch.fx.GraphModule(self.parts, self.graph)

    def call(self, name: str, module: Any, *given: Any) -> Any:
        """A node that calls a module, which is kept under a name."""
        self.parts[name] = module
        return self.graph.call_module(name, given)

    def do(self, function: Any, *given: Any, **options: Any) -> Any:
        """A node that calls a function."""
        return self.graph.call_function(function, given, options)

    def get(self, name: str, values: Any) -> Any:
        """A node that gives a tensor, which is kept under a name."""
        self.parts[name] = values
        return self.graph.get_attr(name)

    def weights(self, name: str, *sizes: int) -> Any:
        """A node that gives weights which belong to no module of PyTorch."""
        return self.get(name, self.nn.Parameter(0.02 * self.torch.randn(*sizes)))

    def reshape(self, x: Any, *sizes: int) -> Any:
        """The values of each sample, or of each window of one, in another shape."""
        return self.graph.call_method("reshape", (x, -1, *sizes))

    def transpose(self, x: Any, one: int, other: int) -> Any:
        """Two axes exchanged."""
        return self.graph.call_method("transpose", (x, one, other))

    def permute(self, x: Any, *axes: int) -> Any:
        """All axes in another order."""
        return self.graph.call_method("permute", (x, *axes))
