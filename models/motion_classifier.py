"""A classifier of linear motion as an ONNX file: N x C x H x W -> the confidences of 73 labels for each window. Free of torch.

A window is as large as the network's receptive field (30 pixels for `motion-patches`); windows lie a stride (4) apart, which
is found by running the network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.degradation.motion_labels import label_count
from transforms.errors import ConfigurationError
from transforms.onnx_contract import parse_metadata
from transforms.onnx_session import ModelFile, OnnxRunError, OnnxSession, SessionSettings

Confidences = NDArray[np.float32]
_PROBE_STRIDES = 32  # pixels beyond a window


class MotionClassifier:
    """The network with its geometry; thread-safe and without state.

    Attributes:
        channels: 1 or 3.
        window: side in pixels of what one answer looks at.
        stride: pixels between two windows.

    Raises:
        ConfigurationError: no ONNX model, or none that tells the 73 motions apart.
    """

    def __init__(self, model: ModelFile, settings: SessionSettings | None = None) -> None:
        self._session = OnnxSession(model, settings or SessionSettings())
        declared = parse_metadata(self._session.metadata, model.url)
        if declared.receptive_field is None or declared.channels is None:
            raise _not_one(model, "its metadata does not say conservator.receptive_field and conservator.channels")
        self.channels, self.window = declared.channels, declared.receptive_field
        self.stride = self._measured_stride(model)

    def confidences(self, planes: NDArray[np.float32]) -> Confidences:
        """N x C x H x W in [0, 1], H and W at least a window -> N x 73 x h x w, of sum 1 over the labels; window (i, j) begins
        at row i stride, column j stride."""
        return self._session.run(planes)

    def _measured_stride(self, model: ModelFile) -> int:
        shapes = []
        for side in (self.window, self.window + _PROBE_STRIDES):
            try:
                shapes.append(self.confidences(np.zeros((1, self.channels, side, side), np.float32)).shape)
            except OnnxRunError as error:
                raise _not_one(model, f"it fails on {side} x {side} pixels: {error}") from error
        labels = label_count(rotations=1)
        if shapes[0] != (1, labels, 1, 1) or len(shapes[1]) != 4 or shapes[1][2] < 2:
            raise _not_one(
                model, f"windows of {self.window} pixels give {list(shapes[0])}, expected [1, {labels}, 1, 1]"
            )
        return _PROBE_STRIDES // (int(shapes[1][2]) - 1)


def _not_one(model: ModelFile, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"model {model.url!r} does not classify motion: {why}; use the zoo's motion-patches, or export such a network"
    )
