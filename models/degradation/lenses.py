"""Lenses: radial and tangential distortion, and fisheye projections.

Coordinates are normalised: the centre of the picture is 0, 0 and the radius is 1 at its corners, whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from models.degradation.distributions import Distribution, Drawable, DrawableWord
from models.degradation.geometry import Coordinates, Geometry, Map
from models.degradation.protocol import Parameters, Quantity, Wording
from models.degradation.taps import Size
from models.degradation.warps import FilledWord, Reals, SamplingWord

PROJECTIONS = ("equidistant", "stereographic", "equisolid", "orthographic")

_LEAST_SLOPE = 0.1  # of the distorted over the true radius: below it the map is all but folded, and stretches tenfold
_WIDEST = 3.0  # true radius up to which the distorted corner is searched for
_NEWTON_STEPS = 20  # at most; 3 with an ordinary tangential part
_SMALL = 1e-7  # a step of Newton's method after which the error, its square, is rounding
_KNOTS = 4096


def radial(r2: Reals, k1: float, k2: float, k3: float) -> Reals:
    """1 + k1 r^2 + k2 r^4 + k3 r^6."""
    scale = r2 * k3
    scale += k2
    scale *= r2
    scale += k1
    scale *= r2
    scale += 1
    return scale


def distorted(x: Coordinates, y: Coordinates, lens: tuple[float, ...]) -> tuple[Coordinates, Coordinates]:
    """Where the lens puts a point, normalised coordinates.

        x_d = x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)
        y_d = y (1 + k1 r^2 + k2 r^4 + k3 r^6) + p1 (r^2 + 2 y^2) + 2 p2 x y

    Args:
        lens: k1, k2, k3, p1, p2.

    Source: Brown, "Decentering Distortion of Lenses", Photogrammetric Engineering 32(3), 1966; signs and order of p1, p2 as
    in OpenCV.
    """
    k1, k2, k3, p1, p2 = lens
    r2 = x * x + y * y
    scale = radial(r2, k1, k2, k3)
    if p1 == 0 and p2 == 0:
        return x * scale, y * scale
    scale += 2 * (p1 * y + p2 * x)  # 2 p1 x y + 2 p2 x^2 = x (2 p1 y + 2 p2 x), and likewise for y
    return x * scale + p2 * r2, y * scale + p1 * r2


def undistorted(
    x: Coordinates, y: Coordinates, lens: tuple[float, ...], widest: float
) -> tuple[Coordinates, Coordinates]:
    """The inverse of `distorted`, to 1e-11.

    Args:
        widest: a true radius up to which the map does not fold and inside which all results lie.
    """
    k1, k2, k3, p1, p2 = lens
    growth = true_over_distorted(x * x + y * y, k1, k2, k3, widest)
    u, v = x * growth, y * growth
    if p1 == 0 and p2 == 0:
        return u, v
    for _ in range(_NEWTON_STEPS):
        r2 = u * u + v * v
        scale = radial(r2, k1, k2, k3)
        scale += 2 * (p1 * v + p2 * u)
        off_x, off_y = u * scale, v * scale
        off_x += p2 * r2 - x
        off_y += p1 * r2 - y
        slope = 2 * _radial_slope(r2, k1, k2, k3)
        xx = scale + u * (slope * u + 4 * p2)
        yy = scale + v * (slope * v + 4 * p1)
        xy = slope * u * v + 2 * (p1 * u + p2 * v)
        determinant = xx * yy - xy * xy
        step_x = (yy * off_x - xy * off_y) / determinant
        step_y = (xx * off_y - xy * off_x) / determinant
        u -= step_x
        v -= step_y
        if max(abs(step_x.min()), step_x.max(), abs(step_y.min()), step_y.max()) < _SMALL:
            break
    return u, v


def true_over_distorted(seen2: Reals, k1: float, k2: float, k3: float, widest: float) -> Reals:
    """The true radius over the distorted one, whose square is `seen2`, without the tangential part.

    It is g with  g (1 + k1 r^2 + ...) = 1  at  r^2 = g^2 seen2:  a table, refined by a step of Newton's method.
    """
    true = np.linspace(0, widest, _KNOTS)
    seen = true * radial(true * true, k1, k2, k3)
    knots = np.linspace(0, seen[-1] ** 2, _KNOTS)
    table = np.ones(_KNOTS)
    table[1:] = np.interp(np.sqrt(knots[1:]), seen, true) / np.sqrt(knots[1:])
    place = np.minimum(seen2 * ((_KNOTS - 1) / knots[-1]), _KNOTS - 1.001)
    index = place.astype(np.intp)
    place -= index
    growth: Reals = np.diff(table)[index]
    growth *= place
    growth += table[index]
    r2 = growth * growth
    r2 *= seen2
    scale = radial(r2, k1, k2, k3)
    slope = _radial_slope(r2, k1, k2, k3)
    slope *= r2
    slope *= 2
    slope += scale
    scale *= growth
    scale -= 1
    scale /= slope
    growth -= scale
    return growth


def _radial_slope(r2: Reals, k1: float, k2: float, k3: float) -> Reals:
    """The derivative of `radial` in r^2."""
    slope = r2 * (3 * k3)
    slope += 2 * k2
    slope *= r2
    slope += k1
    return slope


def widest_radius(k1: float, k2: float, k3: float, tangential: float) -> float:
    """The true radius at which the lens puts nothing nearer than the picture's corners.

    The map does not fold up to that radius, and up to 1: there its Jacobian, which is symmetric, has no eigenvalue below
    min(d r_d / d r, r_d / r) - 6 r |p|,  and this stays above a tenth.

    Args:
        tangential: |p| = sqrt(p1^2 + p2^2).

    Raises:
        ValueError: there is no such radius.
    """
    r = np.linspace(0, _WIDEST, 3001)
    r2 = r * r
    slope = np.minimum(radial(r2, 3 * k1, 5 * k2, 7 * k3), radial(r2, k1, k2, k3)) - 6 * tangential * r
    nearest = r * radial(r2, k1, k2, k3) - 3 * tangential * r2
    reaching = np.flatnonzero(nearest >= 1)
    if not len(reaching) or slope[: max(int(reaching[0]), 1000) + 1].min() < _LEAST_SLOPE:
        raise ValueError(
            f"k1 {k1:g}, k2 {k2:g}, k3 {k3:g} with p1, p2 of {tangential:.3g} fold the picture before its corners are filled: "
            "the distortion has no inverse there. Radius 1 is the corner; with k1 alone, k1 must be at least -0.14"
        )
    return float(r[reaching[0]])


@dataclass(frozen=True)
class LensDistortion(Geometry):
    """Radial and tangential distortion (Brown-Conrady),  y(D p) = x(p)  with D of `distorted`.

    Radius 1 is the corner of the picture. k1 below 0 is a barrel, above 0 a pincushion. Ordinary lenses have |k1| up to 0.1,
    wide ones more; p1 and p2 are some thousandths.

    Raises:
        ValueError: settings with which the map could fold.

    Source: Brown, "Decentering Distortion of Lenses", Photogrammetric Engineering 32(3), 1966.
    """

    name: ClassVar[str] = "lens_distortion"
    k1: Annotated[Drawable, Quantity(meaning="radial, of r^3; r is 1 at the corner", minimum=-1, maximum=10)]
    k2: Annotated[Drawable, Quantity(meaning="radial, of r^5", minimum=-1, maximum=10)] = 0
    k3: Annotated[Drawable, Quantity(meaning="radial, of r^7", minimum=-1, maximum=10)] = 0
    p1: Annotated[Drawable, Quantity(meaning="tangential, vertical", minimum=-0.1, maximum=0.1)] = 0
    p2: Annotated[Drawable, Quantity(meaning="tangential, horizontal", minimum=-0.1, maximum=0.1)] = 0
    sampling: SamplingWord = "bilinear"
    boundary: FilledWord = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        # Smaller coefficients only fold earlier, so the smallest together stand for all that can be drawn.
        least = [min(_values(each)) for each in (self.k1, self.k2, self.k3)]
        tangential = math.hypot(*(max(abs(value) for value in _values(each)) for each in (self.p1, self.p2)))
        widest_radius(least[0], least[1], least[2], tangential)

    @staticmethod
    def source(parameters: Parameters, size: Size) -> Map:
        lens = _lens(parameters)
        widest = widest_radius(lens[0], lens[1], lens[2], math.hypot(*lens[3:]))
        return _normalised(size, lambda x, y: undistorted(x, y, lens, widest))

    @staticmethod
    def target(parameters: Parameters, size: Size) -> Map:
        lens = _lens(parameters)
        return _normalised(size, lambda x, y: distorted(x, y, lens))


def _values(setting: Any) -> tuple[float, ...]:
    drawn: Distribution = setting
    return drawn.values()


def _lens(parameters: Parameters) -> tuple[float, ...]:
    return tuple(float(parameters[name]) for name in ("k1", "k2", "k3", "p1", "p2"))


def _normalised(size: Size, mapped: Map) -> Map:
    """A map of normalised coordinates as one of pixels."""
    unit = math.hypot(*size) / 2

    def in_pixels(x: Coordinates, y: Coordinates) -> tuple[Coordinates, Coordinates]:
        across, down = mapped(x / unit, y / unit)
        across *= unit
        down *= unit
        return across, down

    return in_pixels


def bend(projection: str, t2: Reals) -> Reals:
    """Fisheye radius over f, over the tangent t of the angle from the axis; takes t^2.

    equidistant r = f a, stereographic r = 2 f tan(a / 2), equisolid r = 2 f sin(a / 2), orthographic r = f sin a.
    """
    if projection == "equidistant":
        t = np.sqrt(np.maximum(t2, 1e-16))
        return np.arctan(t) / t
    cosine = 1 / np.sqrt(1 + t2)
    if projection == "stereographic":
        return 2 * cosine / (1 + cosine)
    return cosine / np.sqrt((1 + cosine) / 2) if projection == "equisolid" else cosine


def unbend(projection: str, s2: Reals) -> Reals:
    """Tangent of the angle from the axis over s, the fisheye radius over f; takes s^2. The inverse of `bend`."""
    if projection == "equidistant":
        s = np.sqrt(np.maximum(s2, 1e-16))
        return np.tan(s) / s
    if projection == "stereographic":
        return 1 / (1 - s2 / 4)
    return np.sqrt(1 - s2 / 4) / (1 - s2 / 2) if projection == "equisolid" else 1 / np.sqrt(1 - s2)


@dataclass(frozen=True)
class Fisheye(Geometry):
    """What a fisheye lens makes of a picture that an ordinary lens took,  y(r) = x(f' tan a(r)),  a the angle from the axis.

    The centre and the corners stay where they are. In between, the picture bulges; at the middle of each side a part of it
    leaves the frame.

    Source: Kannala and Brandt, "A Generic Camera Model and Calibration Method for Conventional, Wide-Angle, and Fish-Eye
    Lenses", PAMI 28(8), 2006, equations 1 to 5.
    """

    name: ClassVar[str] = "fisheye"
    field_of_view_deg: Annotated[
        Drawable, Quantity(meaning="angle between opposite corners, in degrees", minimum=1, maximum=170)
    ]
    projection: Annotated[DrawableWord, Wording(meaning="how the angle becomes a radius", options=PROJECTIONS)] = (
        "equidistant"
    )
    sampling: SamplingWord = "bilinear"
    boundary: FilledWord = "reflect"

    @staticmethod
    def source(parameters: Parameters, size: Size) -> Map:
        tangent, radius = _corner(parameters)
        return _scaled(size, lambda r2: unbend(parameters["projection"], r2 * radius**2) * (radius / tangent))

    @staticmethod
    def target(parameters: Parameters, size: Size) -> Map:
        tangent, radius = _corner(parameters)
        return _scaled(size, lambda r2: bend(parameters["projection"], r2 * tangent**2) * (tangent / radius))


def _corner(parameters: Parameters) -> tuple[float, float]:
    """Of the ray through a corner: the tangent of its angle, and its fisheye radius over f."""
    tangent = math.tan(math.radians(parameters["field_of_view_deg"]) / 2)
    return tangent, tangent * float(bend(parameters["projection"], np.array(tangent**2)))


def _scaled(size: Size, scale: Callable[[Reals], Reals]) -> Map:
    """A map that moves each point along its radius; `scale` takes the square of the normalised radius."""

    def mapped(x: Coordinates, y: Coordinates) -> tuple[Coordinates, Coordinates]:
        factor = scale(x * x + y * y)
        return x * factor, y * factor

    return _normalised(size, mapped)
