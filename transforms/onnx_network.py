"""A loaded network: session, contract and receptive field, shared by all restorers of a process."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from transforms.errors import ConfigurationError
from transforms.onnx_contract import METADATA_PREFIX, Contract, read_contract
from transforms.onnx_session import PROVIDER_NAMES, ModelFile, OnnxRunError, OnnxSession, SessionSettings
from transforms.receptive_field import Field, ProbeRules, measure_field

# Beyond this a tile would be mostly halo; the network is then treated like one that looks at the whole picture.
LARGEST_HALO = 512


class OnnxNetwork:
    """N x C x H x W in [0, 1] -> N x C x sH x sW in [0, 1], not clipped; thread-safe and without state.

    Raises:
        ConfigurationError: the model is not image-to-image, breaks its own contract, or its provider is not active.
    """

    def __init__(self, model: ModelFile, settings: SessionSettings) -> None:
        self.model = model
        self._settings = settings
        self._session = OnnxSession(model, settings)
        # Other providers have convolutions that smear a NaN over a block of outputs (Winograd, FFT): probes run on the CPU.
        on_cpu = self._session if self._on_cpu else self._cpu_session
        self.contract: Contract = read_contract(on_cpu, model.url)
        self.field: Field = self._checked_field(on_cpu)
        if not self._on_cpu:
            self._try_once()
            self.__dict__.pop("_cpu_session", None)

    @property
    def provider(self) -> str:
        """The provider that is really active."""
        return self._session.provider

    @property
    def _on_cpu(self) -> bool:
        return self._session.provider == PROVIDER_NAMES["cpu"]

    @cached_property
    def _cpu_session(self) -> OnnxSession:
        """onnxruntime computes float16 networks in float32 on the CPU."""
        return OnnxSession(self.model, replace(self._settings, provider="cpu", precision="float32"))

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs a batch of equal tiles.

        Raises:
            MemoryError: too little memory for this batch.
        """
        return self._run(self._session, images)

    def run_in_float32(self, images: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The same in float32 arithmetic, or None where `run` was that already."""
        reduced = self.contract.is_half or self._settings.precision == "fast"
        return self._run(self._cpu_session, images) if reduced and not self._on_cpu else None

    def _run(self, session: OnnxSession, images: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = self.contract.declared.value_range
        inside = images if (low, high) == (0.0, 1.0) else images * np.float32(high - low) + np.float32(low)
        if self.contract.color == "bgr":
            inside = inside[:, ::-1]
        answer = self._run_batches(session, inside)
        if self.contract.color == "bgr":
            answer = answer[:, ::-1]
        return answer if (low, high) == (0.0, 1.0) else (answer - np.float32(low)) / np.float32(high - low)

    def _run_batches(self, session: OnnxSession, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """A model with a fixed batch size gets batches of just that size, the last one filled up with its last image."""
        size = self.contract.batch
        if size is None:
            return session.run(images)
        rest = -len(images) % size
        filled = np.concatenate([images, np.repeat(images[-1:], rest, axis=0)]) if rest else images
        answers = [session.run(filled[start : start + size]) for start in range(0, len(filled), size)]
        return np.concatenate(answers)[: len(images)] if len(answers) > 1 else answers[0][: len(images)]

    def _checked_field(self, session: OnnxSession) -> Field:
        """The receptive field as measured, or the larger one that is declared."""
        declared = self.contract.declared
        if declared.whole_picture:
            return Field(
                None, obstacle=f"{METADATA_PREFIX}receptive_field says that every output depends on the whole picture"
            )
        halo = (declared.receptive_field or 0) // 2
        if halo > LARGEST_HALO:
            return Field(
                None,
                obstacle=f"the declared receptive field of {declared.receptive_field} pixels is more than tiles can hold",
            )
        measured = self._measured_field(session, halo)
        if declared.receptive_field is not None and halo < measured.seen:
            raise ConfigurationError(
                f"model {self.model.url!r} declares {METADATA_PREFIX}receptive_field {declared.receptive_field}, but "
                f"changing a pixel moves results {measured.seen} pixels away: declare at least {2 * measured.seen + 1}, "
                "or null if it looks at the whole picture"
            )
        return measured if measured.halo is None else replace(measured, halo=max(halo, measured.halo))

    def _measured_field(self, session: OnnxSession, declared_halo: int) -> Field:
        contract = self.contract
        rules = ProbeRules(
            channels=contract.channels,
            scale=contract.scale,
            size_multiple=contract.size_multiple,
            min_size=contract.min_size,
            fixed=contract.fixed,
            value_range=contract.declared.value_range,
            dtype=contract.dtype,
            declared_halo=declared_halo,
        )
        try:
            return measure_field(lambda images: self._run_batches(session, images), rules)
        except OnnxRunError as error:
            raise ConfigurationError(
                f"model {self.model.url!r} failed while its receptive field was measured on oblong pictures: {error}"
            ) from error

    def _try_once(self) -> None:
        """Lets a provider that loads but can't compute fail here and not on the first record."""
        contract = self.contract
        sides = [fixed or contract.min_size for fixed in contract.fixed]
        try:
            self.run(np.zeros((1, contract.channels, *sides), np.float32))
        except OnnxRunError as error:
            raise ConfigurationError(
                f"model {self.model.url!r} does not run on {self.provider}: {error}; check the driver, or use --provider cpu"
            ) from error


_LOADED: weakref.WeakValueDictionary[tuple[str, str, SessionSettings], OnnxNetwork] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


def load_network(model: ModelFile, settings: SessionSettings) -> OnnxNetwork:
    """Loads a network, or hands out the one that this process has in use: sessions are large and immutable."""
    key = (model.url, model.sha256, settings)
    with _LOADING:
        network = _LOADED.get(key)
        if network is None:
            network = OnnxNetwork(model, settings)
            _LOADED[key] = network
        return network
