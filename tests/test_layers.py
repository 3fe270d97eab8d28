"""Who may import whom: the table of ARCHITECTURE.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/lmanet"
MODELS = (
    "errors", "convolution", "ops", "backbones", "memory", "fusion",
    "streaming", "segmenter", "labelmemory", "labelsegmenter", "trainingfree", "wrapping",
)  # fmt: skip
MAY_IMPORT = {
    "errors": (),
    "atomic": ("errors",),
    "convolution": (),
    "ops": ("errors",),
    "backbones": ("errors", "convolution"),
    "memory": ("errors", "convolution"),
    "fusion": ("errors", "convolution"),
    "streaming": ("errors", "backbones", "memory"),
    "segmenter": MODELS,
    "labelmemory": MODELS,
    "labelsegmenter": MODELS,
    "trainingfree": MODELS,
    "wrapping": MODELS,
    "session": MODELS,
    "zoo": (*MODELS, "atomic", "data.base"),
    "data": ("errors",),
    "video": ("errors", "atomic", "data.base"),
    "training": (
        *MODELS,
        "atomic",
        "session",
        "zoo.architectures",
        "zoo.files",
        "data.base",
        "evaluation.metrics",
    ),
    "evaluation": (*MODELS, "atomic", "session", "data.base"),
    "demo": (*MODELS, "session", "zoo", "data", "video", "evaluation"),
}
FILE_LIBRARIES = {"os", "pathlib", "shutil", "sys", "io", "av", "cv2", "PIL", "safetensors"}


def imports(file: Path) -> set[str]:
    """Full names of what a module imports; imports that only type checkers see are left out."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(part: str) -> list[Path]:
    found = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").is_file() else (PACKAGE / part).rglob("*.py")
    return sorted(found)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    allowed = tuple(f"lmanet.{name}." for name in (part, *MAY_IMPORT[part]))
    assert files(part)
    for file in files(part):
        wrong = [x for x in imports(file) if x.startswith("lmanet.") and not f"{x}.".startswith(allowed)]
        assert not wrong, f"{file.name} imports {wrong}"


@pytest.mark.parametrize("part", MODELS)
def test_models_know_no_files(part: str) -> None:
    for file in files(part):
        assert not {x.split(".")[0] for x in imports(file)} & FILE_LIBRARIES, file.name


def test_every_part_has_a_rule() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert parts - {"benchmarks", "cli", "reproduce"} == set(MAY_IMPORT)
