"""ONNX Runtime, told what we mean: model files by digest, providers that are really active, memory that does not grow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from transforms.errors import ConfigurationError
from transforms.storage import filesystem_of

PRECISIONS = ("float32", "fast")
PROVIDER_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# What onnxruntime says when memory is short; it has no error class for that.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate memory|bad_alloc|bad allocation|out of memory|out_of_memory|alloc_failed", re.IGNORECASE
)
# A tensor's external file in protobuf's wire format: field 1 (key) "location", field 2 (value), a length below 128, the name.
_EXTERNAL_FILE = re.compile(rb"\n\x08location\x12([\x01-\x7f])")
_BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class ModelFile:
    """A model's content, or its path where weights lie in files beside it.

    Attributes:
        url: as it was named.
        source: what onnxruntime gets.
        sha256: of the model file and the files beside it.
    """

    url: str
    source: bytes | str
    sha256: str


def read_model(url: str) -> ModelFile:
    """Reads a model file through fsspec.

    Raises:
        ConfigurationError: it can't be read, or a remote one keeps its weights in other files.
    """
    fs, path = filesystem_of(url)
    try:
        content: bytes = fs.cat_file(path)
        digest = hashlib.sha256(content)
        beside = sorted(set(_external_files(content)))
        if not beside:
            return ModelFile(url, content, digest.hexdigest())
        if not isinstance(fs, LocalFileSystem):
            raise ConfigurationError(
                f"model {url!r} keeps weights in {beside}: put them inside the .onnx file, or use a local copy"
            )
        for name in beside:
            _add_file(digest, Path(path).parent / name)  # a missing one is an error here as it would be in onnxruntime
    except OSError as error:
        raise ConfigurationError(f"cannot read the model {url!r}: {error}; expected an .onnx file") from error
    return ModelFile(url, path, digest.hexdigest())


def _external_files(content: bytes) -> Iterator[str]:
    for found in _EXTERNAL_FILE.finditer(content):
        name = content[found.end() : found.end() + found.group(1)[0]]
        yield name.decode("utf-8", errors="replace")


def _add_file(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)


@dataclass(frozen=True)
class SessionSettings:
    """How a model runs.

    Attributes:
        provider: where, a key of `PROVIDER_NAMES`.
        threads: inside one operator.
        precision: `float32`: as the model says. `fast`: TF32 on CUDA, float16 on TensorRT.
        allow_cpu_fallback: go on with the CPU where the provider is not to be had.
    """

    provider: str = "cpu"
    threads: int = 1
    precision: str = "float32"
    allow_cpu_fallback: bool = False


class OnnxRunError(RuntimeError):
    """onnxruntime refused an input or failed inside the network; not for lack of memory."""


class OnnxSession:
    """A session with one image input and one image output.

    Raises:
        ConfigurationError: not a model, or the provider is not really active.
    """

    def __init__(self, model: ModelFile, settings: SessionSettings) -> None:
        self._session = _open(model, settings)
        self.provider: str = self._session.get_providers()[0]
        wanted = PROVIDER_NAMES[settings.provider]
        if self.provider != wanted and not settings.allow_cpu_fallback:
            raise _not_active(wanted, f"onnxruntime chose {self.provider}")
        self.inputs = self._session.get_inputs()
        self.outputs = self._session.get_outputs()
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """N x C x H x W float32 -> the first output, float32.

        Raises:
            MemoryError: the device or the host has too little memory for this call.
            OnnxRunError: anything else.
        """
        kind = np.float16 if self.inputs[0].type == "tensor(float16)" else np.float32
        with np.errstate(over="ignore"):
            feed = np.ascontiguousarray(images, kind)
        try:
            (result,) = self._session.run([self.outputs[0].name], {self.inputs[0].name: feed})
        except Exception as error:
            if _OUT_OF_MEMORY.search(str(error)):
                raise MemoryError(f"onnxruntime: {str(error)[:300]}") from error
            raise OnnxRunError(str(error)) from error
        restored: NDArray[np.float32] = result.astype(np.float32, copy=False)
        return restored


def _open(model: ModelFile, settings: SessionSettings) -> Any:
    wanted = PROVIDER_NAMES[settings.provider]
    providers = _providers(settings)
    if wanted not in ort.get_available_providers():
        if not settings.allow_cpu_fallback:
            raise _not_active(wanted, f"this onnxruntime offers {ort.get_available_providers()}")
        providers = [(PROVIDER_NAMES["cpu"], {})]
    try:
        return ort.InferenceSession(model.source, _session_options(settings), providers=providers)
    except Exception as error:
        raise ConfigurationError(
            f"model {model.url!r} can't be loaded: {error}; expected an ONNX model that onnxruntime runs"
        ) from error


def _not_active(wanted: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"provider {wanted} was asked for, but {why}: install onnxruntime-gpu in place of onnxruntime and check the driver, "
        "or pass --allow_cpu_fallback"
    )


def _session_options(settings: SessionSettings) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Patterns are kept for every input shape ever seen: 344 MB against 212 MB for tiles of 512 on the 5-layer net, same speed.
    options.enable_mem_pattern = False
    # Threads that wait by spinning take the cores from decoding and encoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # failures come as exceptions; probing provokes some
    return options


def _providers(settings: SessionSettings) -> list[tuple[str, dict[str, str]]]:
    fast = settings.precision == "fast"
    # On CUDA growth by powers of two never gives memory back. (On the CPU the default keeps less: 207 MB against 409 MB
    # for mixed sizes.)
    cuda = {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "1" if fast else "0",
    }
    available = {
        "cpu": [(PROVIDER_NAMES["cpu"], dict[str, str]())],
        "cuda": [(PROVIDER_NAMES["cuda"], cuda), (PROVIDER_NAMES["cpu"], {})],
        "tensorrt": [
            (PROVIDER_NAMES["tensorrt"], {"trt_fp16_enable": "True" if fast else "False"}),
            (PROVIDER_NAMES["cuda"], cuda),
            (PROVIDER_NAMES["cpu"], {}),
        ],
    }
    return available[settings.provider]
