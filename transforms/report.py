"""The report of a run: `report/index.html` for people, `summary.json` and `metrics.parquet` with the same figures for programs."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from transforms.charts import Histogram, draw_histogram
from transforms.comparison_charts import format_share
from transforms.drawn_parameters import compare_with_recipe
from transforms.drawn_section import lay_out_cards
from transforms.errors import ConservatorError, Reason
from transforms.gallery import Gallery
from transforms.metrics_table import MetricsTable
from transforms.plain_json import spell_infinities
from transforms.storage import OutputStore
from transforms.summary import BASELINES, Summary, is_baseline, metric_quantity, metric_unit, read_figure

REPORT_FOLDER = "report"
FORMAT = 1
_TEMPLATE = Path(__file__).with_name("report.html.j2")
_DIGITS = {"psnr": 2, "ssim": 4}

REASON_TEXTS: Mapping[str, str] = {
    Reason.EMPTY: "The file has no bytes.",
    Reason.TRUNCATED: "The file ends before its picture does.",
    Reason.CORRUPT: "It begins like a picture, but it cannot be decoded.",
    Reason.NOT_AN_IMAGE: "The bytes are no picture of a known kind.",
    Reason.WRONG_EXTENSION: "A picture, but not of the kind that its name says.",
    Reason.UNSUPPORTED: "A picture of a kind that cannot be restored without loss.",
    Reason.TOO_LARGE: "More pixels than the budget allows.",
    Reason.NO_IMAGE: "The record has no picture to work on.",
    Reason.AMBIGUOUS: "Several pictures, and no name says which one is meant.",
    Reason.DUPLICATE: "Its key or one of its fields came before in the same shard.",
    Reason.BAD_KEY: "The name is no valid key.",
    Reason.BAD_SHARD: "The shard is damaged from here on.",
    Reason.BAD_METADATA: "The record's own JSON cannot be read.",
    Reason.SIZE_MISMATCH: "Picture and reference differ in size.",
    Reason.UNPAIRED: "The picture or its reference is missing.",
    Reason.NON_FINITE: "The network answered NaN or infinity.",
    Reason.OUT_OF_MEMORY: "Even the smallest tile does not fit into memory.",
    Reason.OPERATOR_FAILED: "The network, solver or degradation failed.",
    Reason.ENCODE_FAILED: "The result cannot be written in the wanted format.",
}
REJECTION_TEXTS: Mapping[str, str] = {
    "too_small": "The picture is smaller than a patch; counted once for each such picture.",
    "flat": "Hardly anything varies in it.",
    "blurred": "Not sharp enough to learn sharpness from.",
    "duplicate": "Looks like an earlier patch of the same picture.",
}
_REJECTED = "rejected_"
_PAST = {"restore": "restored", "degrade": "degraded", "evaluate": "evaluated", "retry": "restored"}
_WORKING_STAGES = ("read", "decode", "operate", "measure", "encode", "write")


@dataclass(frozen=True)
class ReportOptions:
    """What the page shows of a run that may be large.

    Attributes:
        gallery_size: pictures among the worst, and among the best.
        dead_letter_rows: failures listed one by one.
        ranking: metric that ranks pictures; None takes the job's first, or the first PSNR.
    """

    gallery_size: int = 6
    dead_letter_rows: int = 200
    ranking: str | None = None


def write_report(
    output: OutputStore | str,
    summary: Summary,
    job: Mapping[str, Any],
    ledgers: Iterable[Mapping[str, Any]],
    options: ReportOptions = ReportOptions(),
) -> None:
    """Writes the report of a run below `report/`; `index.html` comes last.

    Memory depends on what the page shows, never on the number of records.

    Args:
        output: where the run's ledgers, samples and results are.
        summary: of exactly these ledgers.
        job: provenance, plain JSON. Known keys: `verb`; `command`; `date`; `metrics` (names, the first one ranks);
            `restorer` and `recipe` (with `name`); `output`; `wall_s`, seconds of this run, and `pixels_run`, the output
            pixels made in it, if some units were done before; `expected_draws`, what the counts of the ledgers' tallies mean
            (`transforms.drawn_parameters`). All but the last is shown under "Provenance".
        ledgers: the run's ledgers, read once.

    Raises:
        ConservatorError: the ledgers are not those of the summary.
    """
    store = OutputStore(output) if isinstance(output, str) else output
    ranking = _ranking_metric(summary, job, options)
    ranks = ranking is not None and job.get("verb") != "degrade"  # the samples of pairs show what is usual
    gallery = Gallery(store, summary.metrics[ranking] if ranking and ranks else None, options.gallery_size)
    letters = _DeadLetters(options.dead_letter_rows)
    with store.scratch() as folder:
        with MetricsTable(folder / "metrics.parquet", sorted(summary.metrics)) as table:
            for ledger in ledgers:
                table.add_ledger(ledger)
                letters.add_ledger(ledger)
                gallery.offer(ledger)
        if table.rows != summary.records:
            raise ConservatorError(
                f"the ledgers hold {table.rows} records and their summary {summary.records}; run the command again"
            )
        store.publish(folder / "metrics.parquet", f"{REPORT_FOLDER}/metrics.parquet")
    charts = _charts(summary)
    document = build_document(summary, job, ranking, letters.rows, charts)
    store.write(
        f"{REPORT_FOLDER}/summary.json", (json.dumps(document, indent=1, allow_nan=False, default=str) + "\n").encode()
    )
    store.write(f"{REPORT_FOLDER}/index.html", render_page(document, charts, gallery))


def _ranking_metric(summary: Summary, job: Mapping[str, Any], options: ReportOptions) -> str | None:
    asked = [options.ranking, *job.get("metrics", ())]
    return next((name for name in asked if name in summary.metrics), summary.primary_metric())


@dataclass
class _DeadLetters:
    """The first failures, in the order of the ledgers."""

    limit: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add_ledger(self, ledger: Mapping[str, Any]) -> None:
        room = self.limit - len(self.rows)
        self.rows += [{"unit": ledger["unit"], **letter} for letter in itertools.islice(ledger["dead_letters"], room)]


def build_document(
    summary: Summary,
    job: Mapping[str, Any],
    ranking: str | None,
    letters: list[dict[str, Any]],
    charts: list[Histogram],
) -> dict[str, Any]:
    """Everything that `summary.json` holds, and all figures that the page shows."""
    document = summary.to_json()
    document["dead_letters"]["first"] = letters
    throughput = measure_throughput(summary, job)
    tallies = document.pop("tallies")
    expected = job.get("expected_draws")
    prefix = summary.baseline()
    document |= {
        "format": FORMAT,
        "job": {name: value for name, value in job.items() if name != "expected_draws"},
        "ranking": ranking,
        "baseline": None if prefix is None else {"prefix": prefix, "meaning": BASELINES[prefix]},
        "throughput": throughput,
        "charts": [c.to_json() for c in charts],
        "places": count_places(summary),
        "drawn": None if expected is None else compare_with_recipe(expected, tallies),
    }
    plain: dict[str, Any] = spell_infinities(document)
    return plain


def measure_throughput(summary: Summary, job: Mapping[str, Any]) -> dict[str, float | None]:
    """Rates in megapixels and records written per second: of the whole run, and of one worker while it was working.

    Returns:
        `wall_s` (None where the job does not say), `mpix_per_s` (None without it), `mpix_per_worker_s`, `megapixels_out`,
        `records_per_s` (None without `wall_s`, or where this run did not make all of them), `records_per_worker_s`,
        `bytes_per_record`.
    """
    pixels, records = summary.counts.get("pixels_out", 0), summary.records
    worker_s = summary.timings_s.get("wall", 0.0)
    wall_s = job.get("wall_s")
    made_all = job.get("pixels_run", pixels) == pixels
    return {
        "wall_s": wall_s,
        "mpix_per_s": job.get("pixels_run", pixels) / 1e6 / wall_s if wall_s else None,
        "mpix_per_worker_s": pixels / 1e6 / worker_s if worker_s else None,
        "megapixels_out": pixels / 1e6,
        "records_per_s": records / wall_s if wall_s and made_all else None,
        "records_per_worker_s": records / worker_s if worker_s else None,
        "bytes_per_record": summary.counts.get("bytes_out", 0) / records if records else None,
    }


def count_places(summary: Summary) -> dict[str, Any]:
    """Places that were looked at to cut output records out of the pictures: `drawn`, `taken`, and `rejected` by reason."""
    rejected = {
        name.removeprefix(_REJECTED): count
        for name, count in sorted(summary.counts.items())
        if name.startswith(_REJECTED) and count
    }
    return {"drawn": summary.records + sum(rejected.values()), "taken": summary.records, "rejected": rejected}


def _charts(summary: Summary) -> list[Histogram]:
    """Restored against the baseline for each metric, then the gains; sizes where nothing was measured."""
    drawn: list[Histogram | None] = []
    prefix = summary.baseline() or ""
    for name in _own_metrics(summary.metrics):
        layers = {"input": summary.metrics.get(prefix + name) if prefix else None, "result": summary.metrics[name]}
        drawn.append(draw_histogram(name, metric_unit(name), {layer: one for layer, one in layers.items() if one}))
        if name in summary.gains:
            drawn.append(draw_histogram(f"gain in {name}", metric_unit(name), {"gain": summary.gains[name]}))
    if not summary.metrics:
        drawn.append(draw_histogram("picture size", "MPix", {"result": summary.megapixels}))
    return [chart for chart in drawn if chart is not None]


def _own_metrics(names: Iterable[str]) -> list[str]:
    return sorted((name for name in names if not is_baseline(name)), key=_metric_order)


def _metric_order(name: str) -> tuple[bool, str]:
    return metric_quantity(name) != "psnr", name


def render_page(document: Mapping[str, Any], charts: list[Histogram], gallery: Gallery) -> bytes:
    """The page, complete in itself. Every string from the data is escaped; the only script that may run is the page's own."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters.update(figure=format_figure, signed=_format_signed, seconds=format_seconds, size=format_size)
    environment.filters.update(share=format_share, rate=format_rate, chance=format_chance)
    source = _TEMPLATE.read_text("utf-8")
    page = environment.get_template(_TEMPLATE.name).render(
        document,
        is_ranked=gallery.ranking is not None,
        drawn_cards=lay_out_cards(document["drawn"]) if document["drawn"] else [],
        rejection_texts=REJECTION_TEXTS,
        charts=charts,
        worst=gallery.worst(),
        best=gallery.best(),
        past=_PAST.get(str(document["job"].get("verb")), "processed"),
        metric_names=_own_metrics(document["metrics"]),
        working_stages=_stage_shares(document["timings_s"]),
        reason_texts=REASON_TEXTS,
        script_digest=_script_digest(source),
    )
    return page.encode("utf-8")


def _script_digest(source: str) -> str:
    """SHA-256 of the page's own script as a content security policy names it; the script holds no expressions."""
    script = source.rpartition("<script>")[2].partition("</script>")[0]
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _stage_shares(timings_s: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(stage, seconds, share of the longest) of the stages that work on records."""
    stages = [stage for stage in _WORKING_STAGES if stage in timings_s]
    stages += sorted(set(timings_s) - set(_WORKING_STAGES) - {"wall"})
    longest = max((timings_s[stage] for stage in stages), default=0.0)
    return [(stage, timings_s[stage], timings_s[stage] / longest if longest else 0.0) for stage in stages]


def _printable(value: Any) -> Any:
    """Shows what would be invisible or turn the reading direction; plain characters stay."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in value)


def format_figure(value: Any, name: str) -> str:
    """A figure with as many digits as its metric deserves: 28.13 (psnr), 0.8012 (ssim), an infinity sign, a dash for none."""
    if value is None:
        return "–"
    number = read_figure(value)
    if math.isnan(number):
        return "undefined"
    return "∞" if math.isinf(number) else f"{number:.{_DIGITS.get(metric_quantity(name), 3)}f}".replace("-", "−")


def _format_signed(value: Any, name: str) -> str:
    text = format_figure(value, name)
    return f"+{text}" if value is not None and read_figure(value) > 0 else text


def format_seconds(seconds: float | None) -> str:
    """41.3 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_chance(chance: float) -> str:
    """A small probability: 3e-12, 1e-6."""
    digits, _, exponent = f"{chance:.0e}".partition("e")
    return f"{digits}e{int(exponent)}"


def format_rate(rate: float | None) -> str:
    """A number a second: 0.84, 23.7, 1,250."""
    return "–" if rate is None else f"{rate:,.{2 if rate < 10 else 1 if rate < 100 else 0}f}"


def format_size(count: float) -> str:
    """Bytes as 3.1 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
