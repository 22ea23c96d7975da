"""Recipes: how pairs of a clean and a degraded picture are made.

All that is drawn follows from (seed, key, patch) alone, and is written into the pair's JSON. So a pair can be made
again from either: from those three, or from the JSON and the clean picture.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.degradation.chains import arrays_of, draw_steps, operators_of, replay_all
from models.degradation.protocol import Degradation, Image, Shape, Step
from models.degradation.quantisation import RoundTo8Bit
from models.recipes.channels import CHANNELS, with_channels
from models.recipes.patches import Cut, Patches, difference_hash, inner
from transforms.errors import ConfigurationError
from transforms.planes import Planes, to_planes
from transforms.randomness import generator
from transforms.value_range import Samples, from_float, to_float

STORES = ("png", "npy")
ARRAYS = ("kernel", "mask", "motion")
_STEP_CUT, _STEP_DEGRADE = 0, 1  # independent draws: another way of cutting leaves the noise as it is
# Of clean pictures: pairs so far are degraded together, step by step, so that each step's code and tables stay in a core's
# cache. One by one, a pair of 128 x 128 takes a sixth longer; twice as many are a fiftieth faster and take some MiB more.
_TOGETHER_BYTES = 1 << 20
_FLOAT_BYTES = 16 << 20  # so large may a picture get that is converted before its patches are cut


@dataclass(frozen=True)
class Pair:
    """A clean and a degraded picture.

    Attributes:
        clean: float32, H x W x C, [0, 1]; both pictures lie in memory plane by plane.
        degraded: float32; may leave [0, 1] unless the recipe rounds it. Or uint8, where that was allowed.
        parameters: plain JSON: `channels`, `cut` and the drawn `degradation`: all that `Recipe.replay` needs.
        patch: its number in the picture.
        rejected: places that were drawn before this one and not taken, by reason.
        arrays: kernels, masks and motion fields, those that the recipe asks for.
        variant: its number among several degradations of the same place.
    """

    clean: Image
    degraded: Image
    parameters: dict[str, Any]
    patch: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    variant: int = 0


@dataclass(frozen=True)
class Drawn:
    """A pair before its degradation: `parameters` as in `Pair`, and the clean picture still with the margin around it."""

    clean: Image
    parameters: dict[str, Any]

    @property
    def margin(self) -> int:
        """Pixels at each side that are to be cut off after the degradation, from both pictures."""
        return int(self.parameters.get("margin", 0))


@dataclass(frozen=True)
class Rejection:
    """No pair for this patch; `reason` is the last one ("too_small", "flat", "blurred", "duplicate"), `detail` is for a
    person, `rejected` counts all places that were not taken, by reason."""

    patch: int
    reason: str
    detail: str
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A degradation with its patches and its way of storing.

    Attributes:
        name: default: that of the file, without its ending.
        degradation: an operator or a chain.
        description, source: for a person: what it is for, and the paper and section that it follows.
        channels: the clean picture is taken "as_is", or made "gray", "luma" or "rgb" (`models.recipes.channels`) before all else.
        patches: None for whole pictures.
        store: file type of the degraded picture: "png" clips and rounds, "npy" keeps float32 as it is.
        crop_to_multiple: the clean picture loses rows at the bottom and columns at the right until both sides are
            multiples of this (MATLAB scripts call it modcrop).
        arrays: which arrays a pair carries beside its pictures: "kernel", "mask", "motion".

    Raises:
        ConfigurationError: unknown `channels`, `store` or `arrays`, or patches that are no multiple.
    """

    name: str
    degradation: Degradation
    description: str = ""
    source: str = ""
    channels: str = "as_is"
    patches: Patches | None = None
    store: str = "png"
    crop_to_multiple: int = 1
    arrays: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        words = [("channels", self.channels, CHANNELS), ("store", self.store, STORES)]
        for name, word, known in words + [("arrays", word, ARRAYS) for word in self.arrays]:
            if word not in known:
                raise ConfigurationError(f"recipe {self.name!r}: {name}: {word!r} is not one of {known}")
        if self.crop_to_multiple < 1:
            raise ConfigurationError(f"recipe {self.name!r}: crop_to_multiple: {self.crop_to_multiple} is less than 1")
        self._patches(None)

    def pair(self, samples: Samples, *, key: str, patch: int, seed: int, size: int | None = None) -> Pair | Rejection:
        """Makes one pair.

        Args:
            samples: the clean picture, H x W x C with C of 1 or 3, uint8, uint16 or float32.
            key: the record's key.
            patch: any number from 0; each gives another place and another draw.
            seed: the run's.
            size: side of the patch in pixels, instead of the recipe's.

        Raises:
            ValueError: samples of another shape.
            TypeError: samples of another type.
        """
        found = self._cut(_Source(samples, self.channels), self._patches(size), key, patch, seed)
        if isinstance(found, Rejection):
            return found
        drawn = self._drawn(found, key, seed)
        return self._finished(drawn, self.degrade(drawn.clean, drawn.parameters), patch, found.rejected)

    def draw(self, samples: Samples, *, key: str, patch: int, seed: int, size: int | None = None) -> Drawn | Rejection:
        """All that is random in `pair` with the same arguments; nothing is degraded yet."""
        found = self._cut(_Source(samples, self.channels), self._patches(size), key, patch, seed)
        return found if isinstance(found, Rejection) else self._drawn(found, key, seed)

    def pairs(
        self,
        samples: Samples,
        *,
        key: str,
        seed: int,
        per_image: int | None = None,
        size: int | None = None,
        patches: Collection[int] | Mapping[int, Collection[int]] | None = None,
        variants: int = 1,
        eight_bit: bool = False,
    ) -> Iterator[Pair | Rejection]:
        """Makes the pairs 0, 1, ... of a picture, or those of them that `patches` names, each in so many variants, or in
        those that `patches` maps it to.

        Variants have one clean picture and independent degradations; the first is what `pair` makes.

        A picture that is too small gives a single rejection. A duplicate is left out whatever `patches` names: whether a
        patch is one depends on those before it, which are cut, though not degraded, if they are not asked for.

        With `eight_bit`, degraded pictures whose last step rounds them to 8 bit come as the integers: the same values.
        """
        wanted = range((self.patches.per_image if self.patches else 1) if per_image is None else per_image)
        settings = self._patches(size)
        hashes: list[int] = []
        compares = settings is not None and settings.minimum_hash_distance > 0
        source = _Source(samples, self.channels, len(wanted) * settings.side**2 if settings else 0)
        waiting: list[tuple[_Found, Drawn, int] | Rejection] = []
        for patch in wanted:
            asked = patches is None or patch in patches
            if not asked and not compares:
                continue
            found = self._cut(source, settings, key, patch, seed)
            if isinstance(found, _Found) and settings is not None and compares:
                found = _unless_duplicate(found, hashes, settings.minimum_hash_distance)
            if asked and isinstance(found, Rejection):
                waiting.append(found)
            elif asked and isinstance(found, _Found):
                for variant in range(variants):
                    if not isinstance(patches, Mapping) or variant in patches[patch]:
                        waiting.append((found, self._drawn(found, key, seed, variant), variant))
                        if len(waiting) * found.clean.nbytes >= _TOGETHER_BYTES:
                            yield from self._made(waiting, eight_bit)
            if isinstance(found, Rejection) and found.reason == "too_small":
                break
        yield from self._made(waiting, eight_bit)

    def _made(
        self, waiting: list[tuple[_Found, Drawn, int] | Rejection], eight_bit: bool = False
    ) -> Iterator[Pair | Rejection]:
        """The pairs, degraded together, and the rejections between them, in order. The list is emptied."""
        drawn = [each[1] for each in waiting if isinstance(each, tuple)]
        degraded = deque(_degraded([each.clean for each in drawn], [each.parameters for each in drawn], eight_bit))
        entries = deque(waiting)
        waiting.clear()
        drawn.clear()
        while entries:  # what was handed on is not kept
            entry = entries.popleft()
            if isinstance(entry, Rejection):
                yield entry
            else:
                found, own, variant = entry
                del entry
                yield self._finished(own, degraded.popleft(), found.patch, {} if variant else found.rejected, variant)
                del found, own

    def _drawn(self, found: _Found, key: str, seed: int, variant: int = 0) -> Drawn:
        rng = generator(seed, key, found.patch, _STEP_DEGRADE + variant)
        steps = draw_steps(self.degradation, rng, _shape(found.clean))
        parameters = {"channels": self.channels, "cut": found.cut.to_json(), "degradation": steps}
        return Drawn(found.clean, parameters | ({"margin": found.margin} if found.margin else {}))

    def _finished(
        self, drawn: Drawn, degraded: Image, patch: int, rejected: Mapping[str, int], variant: int = 0
    ) -> Pair:
        clean, parameters = drawn.clean, drawn.parameters
        arrays: dict[str, NDArray[Any]] = {}
        if self.arrays:
            known = arrays_of(_shape(clean), parameters["degradation"])
            arrays = {name: array for name, array in known.items() if name.rstrip("0123456789") in self.arrays}
        if margin := int(parameters.get("margin", 0)):
            size = clean.shape[:2]
            degraded, clean = (
                np.moveaxis(inner(np.moveaxis(each, 2, 0), margin, size), 0, 2) for each in (degraded, clean)
            )
            arrays = {
                name: array if name.startswith("kernel") else inner(array, margin, size)
                for name, array in arrays.items()
            }
        return Pair(clean, degraded, parameters, patch, rejected, arrays, variant)

    def degrade(self, clean: Image, parameters: Mapping[str, Any]) -> Image:
        """The degraded picture again, from the clean picture (with its margin, if it has one) and its parameters."""
        (degraded,) = _degraded([clean], [parameters])
        return degraded

    def replay(self, samples: Samples, parameters: Mapping[str, Any], patch: int = 0) -> Pair:
        """The whole pair again, from the picture that it was cut from and its parameters: the same bytes."""
        clean = _Source(samples, parameters["channels"]).cut(Cut.from_json(parameters["cut"]))
        return self._finished(Drawn(clean, dict(parameters)), self.degrade(clean, parameters), patch, {})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with every default written out; `load_recipe` reads it."""
        words = {"name": self.name, "description": self.description, "source": self.source}
        return {"kind": "degradation", **words, **self._deciding()}

    def fingerprint(self) -> str:
        """Hash of all that decides the bytes of a pair: neither the name nor words for people; of files what is in them."""
        operators = list(operators_of(self.degradation))
        digests = [digest for each in operators if (digest := each.content_digest()) is not None]
        paths = {path: PurePosixPath(path).name for each in operators for path in each.paths()}
        deciding = _renamed(self._deciding(), paths) | ({"files": digests} if digests else {})
        canonical = json.dumps(_canonical(deciding), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _deciding(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "patches": asdict(self.patches) if self.patches else None,
            "degradation": {self.degradation.name: self.degradation.to_json()},
            "store": self.store,
            "crop_to_multiple": self.crop_to_multiple,
            "arrays": list(self.arrays),
        }

    def _patches(self, size: int | None) -> Patches | None:
        patches = self.patches
        if size is not None and (patches is None or patches.size != size):
            patches = replace(patches, size=size) if patches else Patches(size)
        for name in ("size", "margin"):
            if patches is not None and getattr(patches, name) % self.crop_to_multiple:
                raise ConfigurationError(
                    f"recipe {self.name!r}: a patch {name} of {getattr(patches, name)} pixels is no multiple of crop_to_multiple "
                    f"{self.crop_to_multiple}; choose another"
                )
        return patches

    def _cut(self, source: _Source, patches: Patches | None, key: str, patch: int, seed: int) -> _Found | Rejection:
        samples = source.samples
        height, width = (side - side % self.crop_to_multiple for side in samples.shape[:2])
        side = patches.side if patches else self.crop_to_multiple
        if min(height, width) < (side if patches else 1):
            detail = f"the picture's {samples.shape[1]}x{samples.shape[0]} pixels hold no patch of {side}x{side}"
            return Rejection(patch, "too_small", detail, {"too_small": 1})
        if patches is None:
            cut = Cut(0, 0, height, width)
            return _Found(patch, cut, source.cut(cut), {})
        rng = generator(seed, key, patch, _STEP_CUT)
        rejected: Counter[str] = Counter()
        for _ in range(patches.attempts):
            cut = patches.draw(rng, *samples.shape[:2])
            clean = source.cut(cut)
            reason = patches.complaint(_inside(clean, patches.margin))
            if reason is None:
                return _Found(patch, cut, clean, rejected, patches.margin)
            rejected[reason] += 1
            last = reason
        detail = f"{patches.attempts} places, all flat or blurred by the recipe's limits"
        return Rejection(patch, last, detail, rejected)


@dataclass(frozen=True)
class _Found:
    """A place that was taken, with its clean picture and the margin around it."""

    patch: int
    cut: Cut
    clean: Image
    rejected: Mapping[str, int]
    margin: int = 0


def _unless_duplicate(found: _Found, hashes: list[int], minimum_distance: int) -> _Found | Rejection:
    mine = difference_hash(_inside(found.clean, found.margin))
    if any((mine ^ other).bit_count() < minimum_distance for other in hashes):
        detail = f"looks like an earlier patch of this picture: fewer than {minimum_distance} of 64 hash bits differ"
        return Rejection(found.patch, "duplicate", detail, Counter(found.rejected) + Counter(duplicate=1))
    hashes.append(mine)
    return found


def _inside(image: Image, margin: int) -> Image:
    return image[margin : image.shape[0] - margin, margin : image.shape[1] - margin] if margin else image


def _shape(image: Image) -> Shape:
    height, width, channels = image.shape
    return height, width, channels


class _Source:
    """A clean picture that patches are cut from.

    Args:
        channels: those of the patches.
        pixels: of all patches together. Where they are more than the picture's, it is converted once and for all.
    """

    def __init__(self, samples: Samples, channels: str, pixels: int = 0) -> None:
        self.samples, self._channels = samples, channels
        self._converted: Samples | None = None
        size = samples.shape[0] * samples.shape[1]
        # Other channels are sums of products, which need not be the same to the last bit in a picture of another size.
        if channels in ("as_is", "rgb") and size < pixels and 3 * size * np.float32().nbytes <= _FLOAT_BYTES:
            self._converted = _planar_floats(with_channels(samples, channels))

    def cut(self, cut: Cut) -> Image:
        """Float32 in [0, 1], H x W x C, laid out plane by plane: what the operators work on is then this very memory."""
        if self._converted is not None:
            turned = cut.turn(cut.crop(self._converted))
            return np.ascontiguousarray(turned.transpose(2, 0, 1)).transpose(1, 2, 0)
        return _planar_floats(cut.turn(with_channels(cut.crop(self.samples), self._channels)))


def _planar_floats(samples: Samples) -> Image:
    planes = np.empty((samples.shape[2], *samples.shape[:2]), samples.dtype)
    for channel, plane in enumerate(planes):  # channel by channel, of small integers: in a third of the time
        plane[:] = samples[..., channel]
    return to_float(planes).transpose(1, 2, 0)


def _degraded(
    pictures: Sequence[Image], parameters: Sequence[Mapping[str, Any]], eight_bit: bool = False
) -> list[Image]:
    """Each clean picture degraded by the steps that were drawn for it; as uint8 if the last one rounds to 8 bit."""
    steps = [each["degradation"] for each in parameters]
    rounded = [eight_bit and _ends_in_8_bit(each) for each in steps]
    exact = [each[:-1] if last else each for each, last in zip(steps, rounded, strict=True)]
    made: list[Planes] = replay_all([to_planes(clean) for clean in pictures], exact)
    for index, last in enumerate(rounded):
        if last:
            made[index] = from_float(made[index], np.uint8)
    images = [planes.transpose(1, 2, 0) for planes in made]
    # A chain of which every step stayed away hands the clean picture back; the two halves must not share memory.
    return [
        image.copy() if np.may_share_memory(image, clean) else image
        for image, clean in zip(images, pictures, strict=True)
    ]


def _ends_in_8_bit(steps: Sequence[Step]) -> bool:
    return bool(steps) and RoundTo8Bit.name in steps[-1]


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Plain JSON with some of its texts replaced."""
    if isinstance(value, dict):
        return {key: _renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def _canonical(value: Any) -> Any:
    """Numbers in one spelling: 1 and 1.0 are the same setting."""
    if isinstance(value, dict):
        return {key: _canonical(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
