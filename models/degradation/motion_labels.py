"""Sun et al.'s candidates of linear motion: a label for each pair of length and angle.

Lengths are 1, 3, ..., 25 pixels and angles 0, 30, ..., 150 degrees. Length 1 has no direction, so there are
12 * 6 + 1 = 73 labels: label 0 is no motion, and  1 + 6 i + j  is length 3 + 2 i at angle 30 j. Turning the picture by
6, 12, 18, 24 degrees makes it 30 angles, 6 degrees apart, and 12 * 30 + 1 = 361 labels.

Source: Sun, Cao, Xu and Ponce, "Learning a convolutional neural network for non-uniform motion blur removal", CVPR 2015,
section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.degradation import blur_kernels
from models.degradation.blur import KernelBlur
from models.degradation.blur_kernels import Kernel
from models.degradation.distributions import Choice, Constant, Distribution, Drawable, Uniform
from models.degradation.protocol import Parameters, Quantity, Shape
from transforms.errors import ConfigurationError

LENGTHS = tuple(range(3, 26, 2))  # those with a direction
ANGLES = 6  # in the half turn; a motion and its opposite are the same blur


def label_count(rotations: int) -> int:
    """73 for 1 rotation, 361 for 5."""
    return len(LENGTHS) * ANGLES * rotations + 1


def motion_of_label(label: int, rotations: int) -> tuple[int, float]:
    """Length in pixels and angle in degrees, [0, 180).

    Raises:
        ValueError: no such label.
    """
    if not 0 <= label < label_count(rotations):
        raise ValueError(f"label {label} is not one of 0 .. {label_count(rotations) - 1} ({rotations} rotations)")
    if label == 0:
        return 1, 0.0
    length, angle = divmod(label - 1, ANGLES * rotations)
    return LENGTHS[length], 180.0 * angle / (ANGLES * rotations)


def label_of_motion(length_px: float, angle_deg: float, rotations: int) -> int:
    """The label whose motion is nearest: first the length, up to 2 being none, then the angle, modulo 180 degrees."""
    if length_px <= 2:
        return 0
    length = min(max(round((length_px - LENGTHS[0]) / 2), 0), len(LENGTHS) - 1)
    angles = ANGLES * rotations
    return 1 + length * angles + round(angle_deg * angles / 180) % angles


def label_shares(length_px: float, angle_deg: float) -> NDArray[np.float32]:
    """How a motion of one of the lengths is shared out over the 73 labels: an angle between two of theirs belongs to both, to
    the nearer one more; of sum 1."""
    shares = np.zeros(label_count(1), np.float32)
    lower, part = divmod(angle_deg * ANGLES / 180, 1)
    for angle, share in ((lower, 1 - part), (lower + 1, part)):
        shares[label_of_motion(length_px, angle * 180 / ANGLES, 1)] += share
    return shares


def motion_vector(length_px: float, angle_deg: float) -> tuple[float, float]:
    """(u, v) = l (cos t, -sin t): to the right and down, in pixels, as `motion` arrays have it; its opposite is the same blur."""
    angle = math.radians(angle_deg)
    return length_px * math.cos(angle), -length_px * math.sin(angle)


def label_vectors(rotations: int) -> NDArray[np.float64]:
    """The motion vectors of all labels, K x 2; that of label 0 is zero."""
    moving = [motion_vector(*motion_of_label(label, rotations)) for label in range(1, label_count(rotations))]
    return np.array([(0.0, 0.0), *moving])


def end_point_error(vectors: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """min(|a - b|, |a + b|) of ... x 2 motion vectors, in pixels: a motion and its opposite are the same blur."""
    error: NDArray[np.float64] = np.minimum(
        np.linalg.norm(vectors - others, axis=-1), np.linalg.norm(vectors + others, axis=-1)
    )
    return error


def drawn_motion(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `motion_label_blur` drew for a pair: `label`, `length_px`, `angle_deg`, `rotations`.

    Raises:
        ConfigurationError: the pair's recorded parameters have no such step.
    """
    for step in parameters.get("degradation", ()):
        if MotionLabelBlur.name in step:
            drawn: Mapping[str, Any] = step[MotionLabelBlur.name]
            return drawn
    raise ConfigurationError(
        f"a pair's parameters have no step {MotionLabelBlur.name!r}, so it has no label to learn; degrade by a recipe such as "
        "motion-patches"
    )


def motion_of_vector(u: float, v: float) -> tuple[float, float]:
    """Length and angle of a motion vector, the angle in [0, 180)."""
    return math.hypot(u, v), math.degrees(math.atan2(-v, u)) % 180


@dataclass(frozen=True)
class MotionLabelBlur(KernelBlur):
    """One of Sun et al.'s 73 or 361 linear motions, each as likely; its `label` is the class that a network learns.

    Source: Sun et al., CVPR 2015, section 3; the kernels are those of MATLAB's fspecial('motion').
    """

    name: ClassVar[str] = "motion_label_blur"
    rotations: Annotated[
        Drawable,
        Quantity(meaning="1: 73 labels, 30 degrees apart; 5: 361, 6 degrees", minimum=1, maximum=30, integer=True),
    ] = 1

    def sample(self, rng: np.random.Generator, shape: Shape, clean_shape: Shape | None = None) -> Parameters:
        drawn = super().sample(rng, shape, clean_shape)
        label = int(rng.integers(label_count(drawn["rotations"])))
        length, angle = motion_of_label(label, drawn["rotations"])
        return {**drawn, "label": label, "length_px": length, "angle_deg": angle}

    def further_draws(self) -> Mapping[str, tuple[Quantity, Distribution]]:
        if not isinstance(self.rotations, Constant):
            return {}
        rotations = int(self.rotations.value)
        label = Quantity(meaning="class of the motion; 0 is none", integer=True)
        length = Quantity(meaning="length of the motion in pixels", integer=True)
        each = (float(ANGLES * rotations),) * len(LENGTHS)
        return {
            "label": (label, Uniform(0, label_count(rotations) - 1)),
            "length_px": (length, Choice((1, *LENGTHS), (1.0, *each))),
        }

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        return blur_kernels.line(parameters["length_px"], parameters["angle_deg"])
