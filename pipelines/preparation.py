"""What is done before the first unit begins. Nothing of it needs Beam, whose import takes longer than a small run: the workers
of this machine begin with the units meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pipelines.run import EMBEDDED_RUNNER, Run, divide
from transforms.earlier_outputs import units_in
from transforms.errors import ConfigurationError
from transforms.ledger import LEDGER_FOLDER, MANIFEST, read_ledgers
from transforms.local_pool import WorkerPool, workers_ahead
from transforms.shuffle import list_name
from transforms.storage import absolute_patterns
from transforms.units import Unit
from transforms.version import VERSION

LEFTOVERS_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class Prepared:
    """A run whose output holds all that its units need.

    Attributes:
        todo: the units to run.
        done: names of units that an earlier run has done.
        replaced: names of earlier units that are none of this run's and go when it has succeeded.
        started_s: when the run began, seconds since the epoch.
    """

    todo: Sequence[Unit]
    done: Sequence[str]
    replaced: Sequence[str]
    started_s: float


def prepare(run: Run) -> Prepared:
    """Checks the output and divides the plan, then writes the manifest and the lists that units read.

    Raises:
        ConfigurationError: refused; the output is as it was.
    """
    refuse_private_memory(run)
    run.store.check_writable()
    replaced = units_to_replace(run)
    run.store.sweep(LEFTOVERS_AFTER_S, time.time())
    todo, done = divide(run)
    started_s = time.time()
    if not run.is_retry:
        run.store.write(MANIFEST, json.dumps(_manifest(run), indent=1, sort_keys=True).encode())
    for unit in todo:
        if unit.kind == "references":
            run.store.write(list_name(unit.name), run.plan.lists[list_name(unit.name)])
    return Prepared(todo, done, replaced, started_s)


def units_begun(run: Run, todo: Sequence[Unit]) -> AbstractContextManager[None]:
    """While it is open, this machine's workers go through the units; the driver's pool takes the results."""
    return workers_ahead(WorkerPool(run.job, run.store, run.worker_options(), run.local_workers), todo)


def units_to_replace(run: Run) -> list[str]:
    """Units of earlier runs into this output that are none of this one's: degraded ones go when this run has succeeded.

    Raises:
        ConfigurationError: the output is that of another verb, whose results would be overwritten or removed.
    """
    if run.is_retry or not run.store.names(LEDGER_FOLDER):
        return []
    verbs = {json.loads(run.store.read(MANIFEST) or b"{}").get("verb", run.job.verb)}
    others = sorted(units_in(run.store) - set(run.plan.names))
    verbs |= {ledger["verb"] for ledger in read_ledgers(run.store, others)}
    if found := sorted(verbs - {run.job.verb}):
        raise ConfigurationError(
            f"the output {run.store.root!r} holds results of '{found[0]}', which '{run.job.verb}' would overwrite or remove; "
            "choose another output, or remove that folder first"
        )
    return others if run.job.verb == "degrade" else []


def refuse_private_memory(run: Run) -> None:
    urls = [run.store.root, *run.plan.input_urls]
    if run.local_workers and any(url.startswith("memory://") for url in urls):
        raise ConfigurationError(
            "memory:// lives inside one process, where worker processes can't see it; "
            f"add --runner {EMBEDDED_RUNNER}, or use another store"
        )


def _manifest(run: Run) -> dict[str, Any]:
    """How the run was started, and what `retry` and `replay` need of it in other working folders, where the relative paths
    among the options lead nowhere."""
    options = dict(vars(run.options))
    if "model" in options:
        options["model"] = ",".join(
            absolute_patterns(name) if name.strip().endswith(".onnx") else name for name in options["model"].split(",")
        )
    recipe = {"recipe": run.job.describe()["recipe"]} if run.job.verb == "degrade" else {}
    return recipe | {
        "verb": run.job.verb,
        "options": options,
        "input": absolute_patterns(getattr(run.options, "input", "")),
        "fingerprint": run.job.fingerprint(),
        "version": VERSION,
        "units": run.plan.names,
    }
