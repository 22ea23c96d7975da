"""`conservator restore`: options -> job."""

from __future__ import annotations

from models.zoo import INTERPOLATIONS, zoo_path
from pipelines.options import RestoreOptions
from transforms.errors import ConfigurationError
from transforms.interpolation import InterpolatorFactory
from transforms.metrics import parse_metrics
from transforms.onnx_restorer import OnnxRestorerFactory
from transforms.pictures import EncodeOptions
from transforms.restoration import RestoreJob
from transforms.restorer import PerChannelCount, RestorerFactory


def restore_job(options: RestoreOptions, workers: int, cores: int) -> RestoreJob:
    """Finds the model and checks everything that can be known before a worker starts: the model is loaded once here.

    Raises:
        ConfigurationError: unknown zoo name, unreadable model, a metric or provider that is not to be had.
    """
    threads = options.session_threads or max(1, cores // max(workers, 1))
    names = [name.strip() for name in options.model.split(",") if name.strip()]
    restorer = _interpolator(names, options) or _networks(names, options, threads)
    restorer.load()
    metrics = tuple(metric.name for metric in parse_metrics(options.metrics))
    encoding = EncodeOptions(png_level=options.png_level, jpeg_quality=options.jpeg_quality)
    return RestoreJob(restorer, metrics, options.output_format, encoding, options.max_pixels)


def _interpolator(names: list[str], options: RestoreOptions) -> RestorerFactory | None:
    """If a name is that of an interpolation."""
    found = [name for name in names if name in INTERPOLATIONS]
    if not found:
        return None
    if len(names) > 1:
        raise ConfigurationError(f"{found[0]!r} takes pictures of all channel counts: name it alone")
    if options.provider != "cpu" and not options.allow_cpu_fallback:
        raise ConfigurationError(f"{found[0]!r} is computed on the CPU: leave out --provider, or allow the CPU")
    kernel, factor = INTERPOLATIONS[found[0]]
    return InterpolatorFactory(found[0], kernel, factor)


def _networks(names: list[str], options: RestoreOptions, threads: int) -> RestorerFactory:
    factories = [_factory(name, options, threads) for name in names]
    return factories[0] if len(factories) == 1 else PerChannelCount(tuple(factories))


def _factory(name: str, options: RestoreOptions, threads: int) -> OnnxRestorerFactory:
    return OnnxRestorerFactory(
        model=name if name.endswith(".onnx") else str(zoo_path(name)),
        tile=options.tile or None,
        batch=options.batch,
        session_threads=threads,
        provider=options.provider,
        allow_cpu_fallback=options.allow_cpu_fallback,
    )
