"""A network of layers with random weights on a device, and the pass over samples that is timed."""

from __future__ import annotations

from ..specs.network import NetworkSpec
from .backends import Backend, prepared
from .device import Device
from .networks import built, samples
from .precisions import Precision
from .trials import Prepared, Trial


class Samples:
    """A network file as a module, as `Language` is one of a model file."""

    def __init__(self, network: NetworkSpec, device: Device, precision: Precision, backend: Backend) -> None:
        self._network, self._device, self._precision, self._backend = network, device, precision, backend
        self.module = built(network, device.target, backend.weights_of(precision.dtype))

    def engine(self, _trial: Trial) -> str:
        """The engine that records of a pass name."""
        return self._backend.recorded_engine(self._device)

    def prepared(self, trial: Trial) -> Prepared:
        """A pass over a batch of samples, which are on the device before."""
        dtype, device = self._precision.dtype, self._device
        given = samples(self._network, trial.batch_size, device.target, dtype)
        return Prepared(prepared(self._backend, self.module, (given,), dtype, device))
