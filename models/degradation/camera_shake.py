"""Blur by a hand that shakes: random trajectories, drawn as the time that the picture spends at each place.

A trajectory is a list of positions at equal times, in pixels. It is never stored: the stream in the parameters makes it
again.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.degradation.blur import KernelBlur
from models.degradation.blur_kernels import Kernel, identity
from models.degradation.distributions import Drawable
from models.degradation.protocol import Parameters, Quantity
from transforms.randomness import from_stream

Positions: TypeAlias = NDArray[np.float64]  # T

SHAKE_SAMPLES = 2000  # Boracchi and Foi's; the turns per sample belong to it
SHAKE_CANVAS = 64.0
SHAKE_LENGTH = 60.0
# A walk's path is seldom longer than four times its extent of at most some 20 pixels: three samples for a pixel.
WALK_SAMPLES = 256


def drawn_kernel(rows: Positions, columns: Positions) -> Kernel:
    """The share of time at each pixel, each position shared out bilinearly; (0, 0) is the origin. Sides are odd."""
    (kernel,) = drawn_kernels(np.array([[rows, columns]]))
    return kernel


def drawn_kernels(places: NDArray[np.float64]) -> list[Kernel]:
    """The same for K x 2 x T rows and columns of K trajectories, which are changed; kernels are small, and calls take longer
    than what they compute."""
    half = np.maximum(np.ceil(np.abs(places).max(axis=2, keepdims=True) - 1e-9), 1)
    places += half
    np.clip(places, 0, 2 * half, out=places)  # an end may lie a rounding outside
    # At the very end the sample before is the last but one, and the way is all gone.
    before = np.minimum(np.floor(places), 2 * half - 1)
    places -= before
    shares = np.stack(
        [1 - places, places], axis=1
    )  # K x (of the sample before, of the next) x (by rows, by columns) x T
    sides = 2 * half.astype(np.intp) + 1
    width = sides[:, 1]
    ends = np.cumsum(sides[:, 0] * width)  # of each kernel's elements among those of all
    corner = before[:, 0].astype(np.intp) * width + before[:, 1].astype(np.intp)
    corner[1:] += ends[:-1, np.newaxis]
    cells = np.empty((len(places), 2, 2, places.shape[2]), np.intp)
    cells[:, 0, 0], cells[:, 0, 1], cells[:, 1, 0], cells[:, 1, 1] = (
        corner,
        corner + 1,
        corner + width,
        corner + width + 1,
    )
    weights = shares[:, :, np.newaxis, 0] * shares[:, np.newaxis, :, 1]
    time = np.bincount(cells.ravel(), weights.ravel(), int(ends[-1])) / places.shape[2]
    kernels = np.split(time, ends[:-1])
    return [kernel.reshape(shape) for kernel, shape in zip(kernels, sides[..., 0].tolist(), strict=True)]


def shaken_trajectory(rng: np.random.Generator, anxiety: float) -> NDArray[np.complex128]:
    """A random trajectory of SHAKE_LENGTH pixels: inertia, a pull back to the start, jitter, and sudden reversals.

        v <- v + dv,  scaled to constant speed s = length / (T - 1);    x <- x + v
        dv = a s (G (N + iN') - C x)    and, with probability a P,  + 2 v e^(i (pi + U - 1/2))

    G, C, P are drawn once: at most 10, 0.7, 0.2.

    Source: Boracchi and Foi, "Modeling the performance of image restoration from motion blur", TIP 2012, section III;
    the constants are those of its widely used re-implementation in DeblurGAN (Kupyn et al., CVPR 2018).
    """
    pull, reversal, jitter, turn = (rng.random(4) * (0.7, 0.2, 10.0, 2 * np.pi)).tolist()
    steps = SHAKE_SAMPLES - 1
    speed = SHAKE_LENGTH / steps
    sudden = (rng.random(steps) < anxiety * reversal).tolist()
    angles = (np.pi + rng.random(steps) - 0.5).tolist()
    kicks = (anxiety * speed * jitter * rng.standard_normal(2 * steps).view(np.complex128)).tolist()
    pull *= anxiety * speed
    place, velocity = 0j, cmath.rect(speed, turn)
    path = [place]
    for is_sudden, angle, kick in zip(sudden, angles, kicks, strict=True):
        changed = velocity + kick - pull * place
        if is_sudden:
            changed += 2 * velocity * cmath.exp(1j * angle)
        velocity = changed * (speed / abs(changed))
        place += velocity
        path.append(place)
    return np.array(path)


def shake_kernel(rng: np.random.Generator, size: float, anxiety: float, exposure: float) -> Kernel:
    """The point spread function of the first part of a trajectory, centred on its mean, so that nothing is displaced."""
    path = shaken_trajectory(rng, anxiety) * (size / SHAKE_CANVAS)
    seen = path[: max(1, round(exposure * len(path)))]
    seen = seen - seen.mean()
    return drawn_kernel(-seen.imag, seen.real)


def walk_kernel(rng: np.random.Generator, size: float, turn_deg: float) -> Kernel:
    """The point spread function of a walk whose direction changes by a Gaussian angle at each of its equal steps.

    The larger side of its bounding box is `size` pixels, with the width of a pixel itself. It is centred on its mean, so that
    nothing is displaced: a network that sees the blurred picture alone could not know where the sharp one lies.
    """
    (kernel,) = walk_kernels([rng], [size], [turn_deg])
    return kernel


def walk_kernels(
    rngs: Sequence[np.random.Generator], sizes: Sequence[float], turns_deg: Sequence[float]
) -> list[Kernel]:
    """`walk_kernel` of several walks, in half the time for each."""
    walks = [index for index, size in enumerate(sizes) if size > 1]
    kernels = [identity() for _ in sizes]
    if not walks:
        return kernels
    directions = np.empty((len(walks), WALK_SAMPLES))
    for direction, index in zip(directions, walks, strict=True):
        rngs[index].standard_normal(out=direction)
        direction *= math.radians(turns_deg[index])
        direction[0] = 2 * np.pi * rngs[index].random()
    directions = directions.cumsum(axis=1)
    places = np.stack([np.sin(directions), np.cos(directions)], axis=1).cumsum(axis=2)
    highest, lowest = places.max(axis=2, keepdims=True), places.min(axis=2, keepdims=True)
    extents = np.array([sizes[index] for index in walks])[:, np.newaxis, np.newaxis] - 1
    scales = extents / (highest - lowest).max(axis=1, keepdims=True)
    places -= places.mean(axis=2, keepdims=True)
    places *= scales
    for index, kernel in zip(walks, drawn_kernels(places), strict=True):
        kernels[index] = kernel
    return kernels


@dataclass(frozen=True)
class CameraShakeBlur(KernelBlur):
    """A hand-held exposure: the time spent along a random trajectory,  k = share of time at each pixel.

    A full exposure follows a trajectory of 15/16 of `size` in length; a shorter one its first part, which is straighter.
    The kernel always sums to 1: a short exposure is not darker here.

    Source: Boracchi and Foi, "Modeling the performance of image restoration from motion blur", TIP 2012: canvas 64,
    length 60 to 96, exposures 0.01 to 1; anxiety 0.005, or U[0, 0.1].
    """

    name: ClassVar[str] = "camera_shake_blur"
    noisy: ClassVar[bool] = True
    size: Annotated[
        Drawable,
        Quantity(meaning="canvas in pixels; the whole trajectory is 15/16 of it long", minimum=1, maximum=1000),
    ] = 64
    anxiety: Annotated[
        Drawable, Quantity(meaning="how restless the hand is: 0 is a straight line", minimum=0, maximum=1)
    ] = 0.005
    exposure: Annotated[
        Drawable, Quantity(meaning="share of the trajectory for which the shutter is open", above=0, maximum=1)
    ] = 1.0

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        rng = from_stream(parameters["stream"])
        return shake_kernel(rng, parameters["size"], parameters["anxiety"], parameters["exposure"])


@dataclass(frozen=True)
class RandomWalkBlur(KernelBlur):
    """Motion by a random walk of a given extent, as for photographs of pages.

    Source: Hradis et al., "Convolutional neural networks for direct text deblurring", BMVC 2015, section 3: maximum size
    5 to 21 pixels. The paper gives no other number; 256 steps, each turned by N(0, turn_deg), are our choice.
    """

    name: ClassVar[str] = "random_walk_blur"
    noisy: ClassVar[bool] = True
    size: Annotated[Drawable, Quantity(meaning="larger side of the kernel in pixels", minimum=1, maximum=1000)]
    turn_deg: Annotated[
        Drawable,
        Quantity(meaning="standard deviation of the turn at each of 256 steps, degrees", minimum=0, maximum=180),
    ] = 10.0

    @staticmethod
    def kernel(parameters: Parameters) -> Kernel:
        return walk_kernel(from_stream(parameters["stream"]), parameters["size"], parameters["turn_deg"])

    @classmethod
    def each_kernel(cls, parameters: Sequence[Parameters]) -> list[Kernel]:
        rngs = [from_stream(own["stream"]) for own in parameters]
        return walk_kernels(rngs, [own["size"] for own in parameters], [own["turn_deg"] for own in parameters])
