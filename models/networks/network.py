"""What every restoration network says about itself, for its card."""

from __future__ import annotations

from torch import nn


class RestorationNetwork(nn.Module):
    """Maps N x C x H x W float32, [0, 1] in principle (noise may exceed it), to restored pictures, not clipped, or to
    scores of classes.

    Attributes:
        receptive_field: side, in input pixels, of the square around a pixel that its restored value depends on.
        scale: output size / input size.
        size_multiple: height and width must be multiples of it.
        training_border: pixels of each side that the result lacks while the network trains, where nothing is padded.
        min_size: smallest height and width that it takes.
        output_name: of what it makes, in the ONNX file.
        residual: x = y + residual * body(y); 0 where the input is not added.
    """

    receptive_field: int
    scale: int = 1
    size_multiple: int = 1
    training_border: int = 0
    min_size: int = 1
    output_name: str = "restored"
    residual: int = 0
