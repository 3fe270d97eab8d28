"""Who may import whom: the table of ARCHITECTURE.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/lmanet"
MODELS = ("errors", "classes", "nn", "ops", "backbones", "methods")
MAY_IMPORT = {
    "errors": (),
    "classes": ("errors",),
    "words": (),
    "atomic": ("errors",),
    "devices": ("errors",),
    "imagefile": ("errors",),
    "flow": ("errors",),
    "nn": (),
    "ops": ("errors",),
    "backbones": ("errors", "classes", "nn"),
    "methods": (*MODELS, "flow"),
    "session": MODELS,
    "zoo": (*MODELS, "atomic"),
    "data": ("errors", "classes", "words", "atomic", "imagefile"),
    "video": ("errors", "classes", "words", "atomic", "imagefile", "data.protocols"),
    "training": (
        *MODELS,
        "words",
        "atomic",
        "session",
        "zoo.architectures",
        "zoo.files",
        "data.protocols",
        "evaluation.metrics",
    ),
    "evaluation": (*MODELS, "atomic", "flow", "session", "data.protocols"),
    "third_party": (*MODELS, "zoo.architectures"),
    "find": (*MODELS, "third_party", "zoo.architectures", "zoo.files", "zoo.names"),
    "labelling": (*MODELS, "session", "evaluation.shares", "video"),
    "api": (
        *MODELS,
        "devices",
        "find",
        "session",
        "zoo.names",
        "data.spec",
        "evaluation.models",
        "evaluation.run",
        "labelling",
        "video",
    ),
    "demo": (*MODELS, "session", "zoo", "data", "video", "evaluation"),
}
"""Beside itself. What only type checkers see is free."""
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
    found = [path for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"]
    parts = {path.stem for path in found if not path.name.startswith("_")}
    assert parts - {"cli", "research"} == set(MAY_IMPORT)


def test_nothing_of_the_product_imports_its_research() -> None:
    verbs = {PACKAGE / "cli/bench.py", PACKAGE / "cli/reproduce.py"}
    for file in set(PACKAGE.rglob("*.py")) - verbs:
        if PACKAGE / "research" not in file.parents:
            assert not [x for x in imports(file) if x.startswith("lmanet.research")], file


def test_names_of_files_recur_in_two_rooms_at_most() -> None:
    rooms: dict[str, set[Path]] = {}
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name != "cli":  # named by the verbs, which are those of rooms
            rooms.setdefault(file.stem, set()).add(file.parent)
    often = {name: where for name, where in rooms.items() if len(where) > 2}
    assert not {name for name in often if name not in ("__init__", "base")}, often


def asks_for(name: str, tree: ast.AST) -> bool:
    """Whether anything is asked to be an instance of a class of this name, alone or among others."""
    asked = [
        call.args[1]
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "isinstance"
    ]
    names = [node for kinds in asked for node in ast.walk(kinds)]
    return any(
        (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.Attribute) and node.attr == name)
        for node in names
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("isinstance(x, VideoModel)", True),
        ("if not isinstance(f(x), (Backbone, base.VideoModel)): pass", True),
        ("isinstance(x, Backbone | VideoModel)", True),
        ("issubclass(x, VideoModel); isinstance(VideoModel, type); VideoModel(x)", False),
        ("isinstance(x, TrainableVideoModel)", False),
    ],
)
def test_the_rule_below_sees_what_it_should(code: str, expected: bool) -> None:
    assert asks_for("VideoModel", ast.parse(code)) is expected


def test_nobody_outside_of_methods_asks_what_is_a_video_model() -> None:
    """All methods keep one contract, a network by itself among them: there is nothing to tell apart."""
    for file in PACKAGE.rglob("*.py"):
        if PACKAGE / "methods" not in file.parents:
            assert not asks_for("VideoModel", ast.parse(file.read_text())), file
