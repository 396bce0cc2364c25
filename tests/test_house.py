"""The house keeps its plan: few modules at the root, no circles, imports downward, and a config read without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lgap_bench"
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
AT_THE_ROOT = {"__init__", "cli", "demo", "run", "measure", "build", "defense", "record", "noise"}


def imported(file: Path) -> set[str]:
    """Modules of the package that a file imports, also inside functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lgap_bench"):
            found |= {name for a in node.names if (name := f"{node.module}.{a.name}") in MODULES} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return {name for name in found if name in MODULES}


GRAPH = {name: imported(file) for name, file in MODULES.items()}


def reachable(start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(GRAPH[start])
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += GRAPH[name]
    return seen


def test_no_module_imports_itself_through_others():
    assert [name for name in GRAPH if name in reachable(name)] == []


def test_the_root_holds_no_more_than_its_list():
    assert {file.stem for file in PACKAGE.glob("*.py")} <= AT_THE_ROOT


def test_the_package_never_imports_a_script():
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [each for each in names if each.split(".")[0] == "scripts"], name


@pytest.mark.parametrize(
    "module", ["lgap_bench.cell.prepare", "lgap_bench.cell.compose", "lgap_bench.cell.dry", "lgap_bench.run"]
)
def test_a_config_is_checked_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_cell_is_read_by_its_attributes_outside_its_own_package():
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        if file.parent != PACKAGE / "cell":
            assert 'cell["' not in file.read_text(), file


def test_no_private_name_crosses_a_module():
    crossing = []
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("lgap_bench", "scripts")):
                crossing += [
                    f"{file.name}: {a.name}" for a in node.names if a.name.startswith("_") and a.name != "__version__"
                ]
    assert crossing == []


def test_the_main_path_stays_one_screen():
    assert len((PACKAGE / "run.py").read_text().splitlines()) <= 90
    assert [f for f in PACKAGE.rglob("*.py") if len(f.read_text().splitlines()) > 300] == []


def test_the_benchmark_patches_nothing():
    for file in (ROOT / "scripts" / "bench").glob("*.py"):
        assert "mock" not in file.read_text(), file
