"""The dependency rule: pipelines -> export -> models -> transforms, Beam and torch only where they belong."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("transforms", "models", "export", "pipelines")  # a room may import itself and those before it
BEAM_IN_TRANSFORMS = {"transforms/stages.py"}
TORCH_ROOMS = ("models/", "export/")
TORCH_FREE_MODELS = ("models/degradation/", "models/recipes/", "models/zoo/")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import; absolute ones only"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_room_imports_one_above_it(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    room = ROOMS.index(name.split("/")[0])
    tops = {module.split(".")[0] for module in imports_of(path)}
    assert not tops & set(ROOMS[room + 1 :]), f"{name} imports a room above its own"
    assert "tests" not in tops
    if "apache_beam" in tops:
        assert name in BEAM_IN_TRANSFORMS or name.startswith("pipelines/"), f"{name} must not know Beam"
    if "torch" in tops:
        assert name.startswith(TORCH_ROOMS), f"{name} must not know torch"
        assert not name.startswith(TORCH_FREE_MODELS), f"{name} must not know torch: degrade and restore run without it"
    if name.startswith("transforms/") and name not in BEAM_IN_TRANSFORMS:
        assert "transforms.stages" not in imports_of(path), f"{name} would pull Beam in"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("pipelines.main", ("apache_beam", "torch", "onnxruntime")),  # `conservator --help` is quick
        ("pipelines.run", ("apache_beam", "torch")),  # workers load while Beam is imported
        ("pipelines.verbs", ("apache_beam", "torch")),
        ("pipelines.restore", ("apache_beam", "torch")),
        ("pipelines.degrade", ("apache_beam", "torch")),
        ("pipelines.motion", ("apache_beam", "torch")),
        ("transforms.local_pool", ("apache_beam", "torch")),
        ("transforms.onnx_restorer", ("apache_beam", "torch", "onnx")),
        ("models.training", ("apache_beam",)),
        ("export.onnx_export", ("apache_beam",)),
        ("export.card", ("apache_beam", "torch")),
    ],
)
def test_what_an_import_drags_in(module: str, forbidden: tuple[str, ...]) -> None:
    found = run_python(f"import sys, {module}; print(sorted(set({forbidden!r}) & set(sys.modules)))")
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


def test_our_names_resolve_to_our_rooms() -> None:
    """The room names are common words: nothing else that is installed may take them."""
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).parent == ROOT / room


FORBIDDEN_CALLS = {
    r"\bnp\.random\.(seed|rand|randn|randint|normal|uniform|choice|shuffle|permutation)\(": "the global NumPy generator",
    r"\btorch\.manual_seed\(": "the global torch generator",
    r"^import random$|\brandom\.(seed|random|randint|choice)\(": "the global Python generator",
    r"\bpickle\.loads?\(|allow_pickle=True|weights_only=False": "pickle in data or models",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_global_randomness_and_no_pickle(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for pattern, what in FORBIDDEN_CALLS.items():
        found = re.search(pattern, text, re.MULTILINE)
        assert found is None, f"{path.relative_to(ROOT)} uses {what}: {found.group(0) if found else ''}"


def test_the_rule_can_fail(tmp_path: Path) -> None:
    """The scan sees imports inside functions too."""
    (tmp_path / "x.py").write_text("def f():\n    import torch.nn\n    from apache_beam import io\n")
    assert imports_of(tmp_path / "x.py") == {"torch.nn", "apache_beam"}
