"""`conservator restore`: options -> job."""

from __future__ import annotations

from models.zoo import zoo_path
from pipelines.options import RestoreOptions
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
    factories = [_factory(name.strip(), options, threads) for name in options.model.split(",") if name.strip()]
    restorer: RestorerFactory = factories[0] if len(factories) == 1 else PerChannelCount(tuple(factories))
    restorer.load()
    metrics = tuple(metric.name for metric in parse_metrics(options.metrics))
    encoding = EncodeOptions(png_level=options.png_level, jpeg_quality=options.jpeg_quality)
    return RestoreJob(restorer, metrics, options.output_format, encoding, options.max_pixels)


def _factory(name: str, options: RestoreOptions, threads: int) -> OnnxRestorerFactory:
    return OnnxRestorerFactory(
        model=name if name.endswith(".onnx") else str(zoo_path(name)),
        tile=options.tile or None,
        batch=options.batch,
        session_threads=threads,
        provider=options.provider,
        allow_cpu_fallback=options.allow_cpu_fallback,
    )
