"""Restores pictures with any image-to-image ONNX network: tile by tile, exactly where that is possible.

What happens to a tile: cut (reflected beyond the picture where the network wants a larger size), samples to float32 in [0, 1],
network, core cut out, finite?, rounded to the picture's own samples. Only tiles are ever float, and the session never
holds more than one batch of them. Where the network restores enlarged luma (`transforms.picture_views`), tiles are
enlarged one by one; only a result that has to be shrunk (three times is two times two, shrunk) is a plane of float32 first.

When it goes wrong: out of memory on a batch halves the batch, on a single tile halves the tile, down to the smallest that the halo
allows. A result that is not finite is computed again in float32 where the first try was in less. After that the *picture* fails: no
pixel is ever taken from anywhere but its own tile's result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from transforms.enlargement import CHROMA_KERNEL, Enlargement, enlarged_size
from transforms.errors import ConfigurationError, Reason, RecordError
from transforms.onnx_network import OnnxNetwork, load_network
from transforms.onnx_session import PRECISIONS, PROVIDER_NAMES, SessionSettings, read_model
from transforms.picture_views import ChannelsView, Colours, LumaView, PictureView, shrunk
from transforms.restorer import Restored
from transforms.tiled_picture import Tile, TiledPicture
from transforms.tiling import AxisRules, round_up

# On the CPU speed does not depend on the tile between 64 and 1024 pixels (5 layers of 64: 0.44 to 0.46 MPix/s); the halo
# wants large tiles and memory small ones. 512 wastes 4 % at a halo of 5; networks that see further get 768.
TILE = 512
TILE_OF_DEEP_NETWORKS = 768
DEEP_HALO = 13
# Where the network sees very far and its card says what that takes: at 12 halos three tenths of what is computed are thrown
# away, at the least, of 4, three quarters.
HALOS_ACROSS, LEAST_HALOS_ACROSS = 12, 4
# Of a network's tensors while it runs, where its card says what they take: a batch of tiles takes no more, and a worker
# stays below 2 GB. A network that keeps 64 features for each pixel takes 0.3 GB for a tile of 768; sparse coding with 256 atoms
# would take 3.5.
WORKING_BYTES = 3 * 2**29
# Out of memory does not go below this.
SMALLEST_TILE = 32
# Larger batches gain nothing on the CPU and cost memory.
CPU_PIXELS_PER_RUN = 512 * 512
# Window sizes are rounded up to multiples of about this: on a GPU few shapes keep the arena small and the kernels chosen.
CPU_QUANTUM = 8
GPU_QUANTUM = 64
LARGEST_TILE = 2**20


@dataclass(frozen=True)
class OnnxRestorerFactory:
    """Configuration of an `OnnxRestorer`; plain and picklable.

    Attributes:
        model: path or fsspec URL of an .onnx file.
        tile: largest side of what the network gets at once, in pixels; None: the measured default.
        batch: most tiles in one call of the network.
        session_threads: threads inside one operator of the network.
        provider: where it runs.
        allow_cpu_fallback: go on with the CPU where the provider is not to be had.
        precision: `float32` as the model says; `fast`: TF32 on CUDA, float16 on TensorRT.
    """

    model: str
    tile: int | None = None
    batch: int = 4
    session_threads: int = 1
    provider: str = "cpu"
    allow_cpu_fallback: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, choices in (("provider", PROVIDER_NAMES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        for name in ("tile", "batch", "session_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} is {value!r}; it must be at least 1")

    @cached_property
    def _sha256(self) -> str:
        """Kept with the configuration when it is pickled: all workers must find the file that the driver saw."""
        return read_model(self.model).sha256

    def load(self) -> OnnxRestorer:
        """Loads the network, or shares the one that this process has in use.

        Raises:
            ConfigurationError: unreadable or changed file, no image-to-image model, provider not active, tile too small.
        """
        model = read_model(self.model)
        if model.sha256 != self._sha256:
            raise ConfigurationError(
                f"model {self.model!r} has changed since the start: run again, so that all units are done alike"
            )
        settings = SessionSettings(self.provider, self.session_threads, self.precision, self.allow_cpu_fallback)
        return OnnxRestorer(load_network(model, settings), tile=self.tile, batch=self.batch)

    def fingerprint(self) -> dict[str, Any]:
        """The tile counts: results are the same after rounding to 8 bits, but not in floats, nor for networks that are blended."""
        return {"model_sha256": self._sha256, "tile": self.tile, "precision": self.precision}

    def describe(self) -> dict[str, Any]:
        """Loads the model and says what it is and how it runs."""
        return {
            "model": self.model,
            "model_sha256": self._sha256,
            "precision": self.precision,
            **self.load().describe(),
        }


class OnnxRestorer:
    """A network ready to restore. One thread at a time; keeps nothing between calls but its counters.

    Raises:
        ConfigurationError: the tile has no room for the halo.
    """

    def __init__(self, network: OnnxNetwork, *, tile: int | None = None, batch: int = 1) -> None:
        self._network = network
        self._batch = batch
        self._on_cpu = network.provider == PROVIDER_NAMES["cpu"]
        self._tile = tile or self._default_tile()
        self.counters: Counter[str] = Counter(
            tiles_run=0, oom_splits=0, oom_smaller_tiles=0, nonfinite_tiles=0, float32_retries=0
        )
        if self._tile < self._smallest_tile:
            far = "the whole picture" if network.field.halo is None else f"{network.field.halo} pixels far"
            raise ConfigurationError(
                f"tile {self._tile} is too small for {network.model.url!r}, which sees {far}: "
                f"pass at least {self._smallest_tile}, or 0 for the default"
            )

    @property
    def scale(self) -> int | Fraction:
        """Output pixels per input pixel along one axis, enlargement before the network included."""
        return self._network.contract.total_scale

    @property
    def channels(self) -> int:
        """What the network is made for."""
        return self._network.contract.channels

    @cached_property
    def exact(self) -> bool:
        """Whether tiles give what the whole picture would."""
        field = self._network.field
        if field.halo is None or field.obstacle:
            return False
        try:
            for fixed in self._network.contract.fixed:
                self._axis_rules(LARGEST_TILE, fixed, field.halo, field.period)
        except ValueError:  # the network's fixed size has no room
            return False
        return True

    def describe(self) -> dict[str, Any]:
        """What the network is and how it runs, as plain JSON."""
        contract, field = self._network.contract, self._network.field
        return {
            "name": contract.declared.name or self._network.model.url.rpartition("/")[2].removesuffix(".onnx"),
            "purpose": contract.declared.purpose,
            "channels": contract.channels,
            "color": contract.color,
            "scale": float(contract.total_scale),
            "enlarge": None if contract.declared.enlarge is None else contract.declared.enlarge.to_json(),
            "size_multiple": contract.size_multiple,
            "receptive_field": None if field.halo is None else 2 * field.halo + 1,
            "tiling": "exact" if self.exact else "blend",
            "tiling_obstacle": field.obstacle,
            "tile": [fixed or self._tile for fixed in contract.fixed],
            "provider": self._network.provider,
            "onnxruntime": onnxruntime.__version__,
            "card": dict(contract.declared.card),
        }

    def restore(self, samples: Sequence[NDArray[Any]], parameters: Sequence[Mapping[str, Any]]) -> list[Restored]:
        """As `Restorer.restore`; the parameters are not looked at.

        Raises:
            RecordError: `NON_FINITE`, in float32 too.
            MemoryError: not even the smallest tile fits.
        """
        if self._network.contract.color == "luma":
            return self._restore_luma(samples)
        return self._restore_views([ChannelsView(each, self.channels) for each in samples])

    def _restore_luma(self, samples: Sequence[NDArray[Any]]) -> list[Restored]:
        """A result that has to be shrunk is one whole plane of float32 before."""
        contract = self._network.contract
        enlarge = contract.declared.enlarge or Enlargement(1, CHROMA_KERNEL)
        colours = [Colours(each, enlarged_size(each, contract.total_scale)) for each in samples]
        kernel = enlarge.shrink
        if kernel is None or enlarge.factor * contract.scale == contract.total_scale:
            return self._restore_views(
                [LumaView(each, enlarge, own) for each, own in zip(samples, colours, strict=True)]
            )
        restored = self._restore_views([LumaView(each, enlarge, None) for each in samples])
        return [
            replace(each, samples=shrunk(each.samples, kernel, own))
            for each, own in zip(restored, colours, strict=True)
        ]

    def _restore_views(self, views: Sequence[PictureView]) -> list[Restored]:
        pictures = [self._tiled(view, self._tile) for view in views]
        self._run_all(pictures)
        return [self._finished(picture) for picture in pictures]

    def _tiled(self, view: PictureView, tile: int) -> TiledPicture:
        return TiledPicture(view, self._rules(tile), self._network.contract.scale, exact=self.exact)

    def _finished(self, picture: TiledPicture) -> Restored:
        """The result; where a tile did not fit into memory, by way of smaller and smaller tiles."""
        while picture.too_large:
            tile = max(picture.largest_side // 2, self._smallest_tile, SMALLEST_TILE)
            if tile >= picture.largest_side:
                raise MemoryError("not even the smallest tile fits: use fewer workers, or a provider with more memory")
            self.counters["oom_smaller_tiles"] += 1
            picture = self._tiled(picture.view, tile)
            self._run_all([picture])
        return picture.finish(self._network.field.obstacle)

    def _run_all(self, pictures: Sequence[TiledPicture]) -> None:
        """Runs the tiles of several pictures, those of equal size together."""
        queues: dict[tuple[int, int], list[Tile]] = {}
        for picture in pictures:
            for tile in picture.tiles():
                if picture.too_large:
                    break
                queue = queues.setdefault(tile.size, [])
                queue.append(tile)
                if len(queue) >= self._capacity(tile.size):
                    self._run_tiles(queue)
                    queue.clear()
        for queue in queues.values():
            self._run_tiles(queue)

    def _capacity(self, size: tuple[int, int]) -> int:
        """How many tiles of a size make one batch."""
        pixels = size[0] * size[1]
        most = min(self._batch, self._pixels_at_once // pixels)
        if self._on_cpu:
            most = min(most, int(CPU_PIXELS_PER_RUN / (pixels * self._growth**2)))
        return max(1, most)

    @property
    def _growth(self) -> int | Fraction:
        """A network that enlarges may hold its features in the size of the result."""
        return max(1, self._network.contract.scale)

    def _run_tiles(self, queue: Sequence[Tile]) -> None:
        """Runs equal tiles as one batch; out of memory halves it."""
        tiles = [tile for tile in queue if not tile.picture.too_large]
        if not tiles:
            return
        try:
            answers = self._network.run(np.stack([tile.pixels() for tile in tiles]))
        except MemoryError:
            answers = None  # go on outside, where the exception no longer holds the arrays
        if answers is not None:
            self.counters["tiles_run"] += len(tiles)
            for tile, answer in zip(tiles, answers, strict=True):
                tile.picture.put(tile, self._finite(tile, answer))
        elif len(tiles) == 1:
            tiles[0].picture.too_large = True
        else:
            self.counters["oom_splits"] += 1
            self._run_tiles(tiles[: len(tiles) // 2])
            self._run_tiles(tiles[len(tiles) // 2 :])

    def _finite(self, tile: Tile, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part of the answer that counts, computed again in float32 if it is not finite."""
        core = tile.picture.kept(tile, answer)
        if np.isfinite(core).all():
            return core
        self.counters["nonfinite_tiles"] += 1
        again = self._network.run_in_float32(tile.pixels()[None])
        if again is not None:
            self.counters["float32_retries"] += 1
            core = tile.picture.kept(tile, again[0])
            if np.isfinite(core).all():
                return core
        where = f"rows {tile.rows.start} to {tile.rows.stop}, columns {tile.columns.start} to {tile.columns.stop}"
        raise RecordError(Reason.NON_FINITE, f"the network answered NaN or infinity for {where}, in float32 too")

    def _default_tile(self) -> int:
        halo = self._network.field.halo or 0
        usual = int((TILE if halo < DEEP_HALO else TILE_OF_DEEP_NETWORKS) / self._growth)
        if self._network.contract.declared.bytes_per_pixel:
            usual = max(usual, HALOS_ACROSS * halo)
        usual = min(usual, max(SMALLEST_TILE, math.isqrt(self._pixels_at_once)))
        return max(usual, LEAST_HALOS_ACROSS * halo, self._smallest_tile)

    @property
    def _pixels_at_once(self) -> int:
        """Of the network's input, at the most; where its card is silent about memory, more than there ever are."""
        return WORKING_BYTES // (self._network.contract.declared.bytes_per_pixel or 1)

    @cached_property
    def _smallest_tile(self) -> int:
        """Along the axes whose size is free."""
        contract = self._network.contract
        if not self.exact:
            return round_up(max(contract.min_size, 5 * contract.size_multiple), contract.size_multiple)
        free = [rules.smallest_tile for rules in self._rules(LARGEST_TILE) if rules.fixed is None]
        return max(free, default=1)

    def _rules(self, tile: int) -> tuple[AxisRules, AxisRules]:
        """Windows along height and width; for a blend the overlap is a quarter of them."""
        contract, field = self._network.contract, self._network.field
        sides = []
        for fixed in contract.fixed:
            blended = ((fixed or tile) // 8, Fraction(contract.scale).denominator)
            halo, period = (field.halo or 0, field.period) if self.exact else blended
            sides.append(self._axis_rules(tile, fixed, halo, period))
        return sides[0], sides[1]

    def _axis_rules(self, tile: int, fixed: int | None, halo: int, period: int) -> AxisRules:
        contract = self._network.contract
        multiple = contract.size_multiple if fixed is None else Fraction(contract.scale).denominator
        quantum = CPU_QUANTUM if self._on_cpu else GPU_QUANTUM
        return AxisRules(fixed or tile, halo, multiple, period, contract.min_size, fixed, quantum)
