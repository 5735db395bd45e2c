"""The house itself: packages, links, layers at start-up, sizes."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import featcache

ROOT = Path(__file__).parent.parent
SOURCES = ("featcache", "backbones", "probes", "cli")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
HEAVY = ("torch", "zarr", "faiss", "sklearn", "scipy", "pandas", "timm", "pyarrow")


def source_files() -> list[Path]:
    return [path for name in SOURCES for path in walk(ROOT / name)]


def walk(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and path.name != "__pycache__":
            found += walk(path)
        elif path.suffix == ".py":
            found.append(path)
    return found


def test_the_packages_list_equals_the_directories_with_an_init_file():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = set()
    for path in source_files():
        if path.name == "__init__.py":
            parts = path.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "featcache" else ("featcache", *parts)))
    assert set(listed) == found


@pytest.mark.parametrize("room", ["backbones", "probes", "cli"])
def test_each_room_is_linked_into_the_package(room):
    link = ROOT / "featcache" / room
    assert link.is_symlink()
    assert link.resolve() == ROOT / room


def loaded_by(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(out.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import featcache",
        "import featcache.cli.app",
        "import sys; sys.argv = ['featcache', '--help']\n"
        "from featcache.cli import main\ntry: main()\nexcept SystemExit: pass",
    ],
)
def test_start_up_loads_nothing_heavy(code):
    assert not loaded_by(code) & set(HEAVY)


def test_the_public_names_are_pinned_and_load():
    assert featcache.__all__ == [
        "BackboneRequest",
        "DerivedSet",
        "ExtractionSpec",
        "FeatcacheError",
        "FeatureSet",
        "analyze",
        "derive",
        "extract",
        "native_head",
        "open",
        "plan",
        "probe",
        "results",
        "run",
        "store_view",
        "text_head",
    ]


def test_public_names_stay_what_they_are_when_submodules_are_imported():
    code = (
        "import pkgutil, featcache\n"
        "from featcache.registry import load_target\n"
        "for name, target in featcache._TARGETS.items():\n"
        "    assert getattr(featcache, name) is load_target(target), name\n"
        "names = {one.name for one in pkgutil.iter_modules(featcache.__path__)}\n"
        "assert not names & set(featcache.__all__), names & set(featcache.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'extrct'"):
        featcache.extrct  # noqa: B018


def test_no_file_is_longer_than_the_ceiling():
    long = {str(p): n for p in source_files() if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_no_function_is_longer_than_the_ceiling():
    long = {}
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                has_docstring = ast.get_docstring(node) is not None
                first = node.body[1] if has_docstring and len(node.body) > 1 else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{path.name}:{node.name}"] = lines
    assert long == {}
