"""Who may import whom (DESIGN section 4), read from the source; how big a piece may grow."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autotrain"
TORCH = ("torch", "torchaudio", "torchvision")
HEAVY = (*TORCH, "numpy", "pydantic", "rich", "matplotlib")
PLAIN = (
    "autotrain.errors", "autotrain.units", "autotrain.schema", "autotrain.events",
    "autotrain.parsing", "autotrain.heldout",
)  # fmt: skip
FILES = ("glob", "io", "mmap", "os", "pathlib", "pickle", "shelve", "shutil", "sqlite3", "tempfile")
IO = (*FILES, "ctypes", "multiprocessing", "socket", "subprocess", "threading", "urllib")
STANDARD = tuple(sorted(sys.stdlib_module_names))
MODULE_LINES, FUNCTION_LINES = 300, 50


@dataclass(frozen=True)
class Import:
    """One import: the dotted name it asks for, and how early it happens."""

    name: str
    line: int
    at_module_level: bool
    typing_only: bool = False

    def of(self, *packages: str) -> bool:
        return any(self.name == p or self.name.startswith(f"{p}.") for p in packages)


@dataclass(frozen=True)
class Rule:
    """What the files of a room may import: only `may` (where given), and nothing of `never`.

    `lazily`: only inside functions, or for type checkers, save in the modules `eager`.
    `but`: exceptions to all of it.
    """

    room: str
    may: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    lazily: tuple[str, ...] = ()
    eager: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    def breach(self, found: Import, module: str = "") -> bool:
        if found.of(*self.but):
            return False
        eager = Import(module, 0, at_module_level=True).of(*self.eager)
        early = found.at_module_level and not found.typing_only and not eager
        return (
            (self.may is not None and not found.of(*self.may))
            or found.of(*self.never)
            or (early and found.of(*self.lazily))
        )


def rooms(*names: str) -> tuple[str, ...]:
    return tuple(f"autotrain.{name}" for name in names)


# What torch is to these is what pixels are to a camera. The rest of `probe`, the hardware above
# all, must answer without torch, and so imports them inside functions.
TRACING = rooms(
    "probe.model", "probe.steps", "probe.trial", "probe.trace", "probe.draws", "probe.range_test",
    "probe.noise", "probe.timings", "probe.zoo", "probe.race", "probe.replay", "probe.ways",
    "probe.taking",
)  # fmt: skip
TORCHSIDE = rooms(
    "averaging",
    "depth",
    "device",
    "foreign",
    "freezing",
    "optimizer",
    "prepare",
    "recompute",
    "repeats",
    "sparse",
)  # of the run, and of a trial of it
UPSTAIRS = rooms("cli", "cli_bench", "cli_use", "__main__", "commands")
RULES = [
    Rule("autotrain/errors.py", may=STANDARD),
    Rule("autotrain/units.py", may=STANDARD),
    Rule("autotrain/schema", may=(*STANDARD, "pydantic", *PLAIN)),
    Rule("autotrain/events.py", may=(*STANDARD, "pydantic", *PLAIN)),
    Rule(
        "autotrain/plan",
        may=(*STANDARD, "pydantic", *PLAIN, "autotrain.plan", "autotrain.__version__"),
        never=IO,
    ),
    Rule(
        "autotrain/probe",
        never=(*rooms("plan", "run", "report", "blocks"), *UPSTAIRS),
        lazily=(*TORCH, *TRACING, *TORCHSIDE),
        eager=TRACING,
        but=("autotrain.blocks.layouts",),
    ),
    Rule("autotrain/run", never=(*rooms("plan", "probe", "report", "blocks"), *UPSTAIRS)),
    Rule("autotrain/report", never=(*rooms("plan", "probe", "run"), *TORCH, *UPSTAIRS)),
    Rule("autotrain/blocks", never=(*rooms("plan", "probe", "run", "report"), *UPSTAIRS)),
    Rule(
        "autotrain/doctor",
        never=(*rooms("plan", "run", "report", "blocks"), *UPSTAIRS),
        lazily=(*TORCH, *rooms("probe", "schema", "doctor.stepping"), "pydantic", "psutil", "rich"),
        eager=rooms("doctor.stepping"),
    ),
    *(
        Rule(f"autotrain/{name}.py", never=(*rooms("plan", "probe", "run", "report"), *UPSTAIRS))
        for name in (
            "files",
            "parsing",
            "task",
            "usercode",
            "batches",
            "trust",
            "planfile",
            "amending",
            "averaging",
            "child",
            "depth",
            "device",
            "freezing",
            "optimizer",
            "prepare",
            "recompute",
            "repeats",
            "sparse",
        )
    ),
    Rule("autotrain/offspring.py", may=(*STANDARD, "psutil"), lazily=("psutil",)),
    Rule("autotrain/foreign", never=(*rooms("plan", "probe", "run", "report"), *UPSTAIRS)),
    *(
        Rule(
            f"autotrain/{name}.py",
            never=(*rooms("plan", "probe", "run", "report"), *UPSTAIRS, *TORCH),
        )
        for name in ("arrays", "confine", "media", "nvml", "rates", "sensors", "starving", "trends")
    ),
    Rule("autotrain/exporting", never=(*rooms("plan", "probe", "report"), *UPSTAIRS)),
    Rule("autotrain/bench", never=UPSTAIRS),
    Rule("autotrain/commands", never=rooms("cli", "cli_bench", "cli_use", "__main__")),
]


def imports(source: str, package: str = "") -> Iterator[Import]:
    """Every import of a source text, at any depth; `from a import b` asks for `a.b`.

    `package` is the dotted folder the source lies in, for relative imports.
    """

    def walk(node: ast.AST, top: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(a.name, node.lineno, top, typing) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(up if node.level else []), *([node.module] if node.module else [])])
            yield from (Import(f"{base}.{a.name}", node.lineno, top, typing) for a in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            in_body = guarded and isinstance(node, ast.If) and child in node.body
            yield from walk(child, top and not inside, typing or in_body)

    return walk(ast.parse(source), True, False)


def imports_of(file: Path) -> list[Import]:
    folder = file.parent.relative_to(ROOT)
    return list(imports(file.read_text(encoding="utf-8"), ".".join(folder.parts)))


def sources(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place] if place.is_file() else []


def breaches(rule: Rule) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{found.line}: imports {found.name}"
        for file in sources(ROOT / rule.room)
        for found in imports_of(file)
        if rule.breach(found, ".".join(file.relative_to(ROOT).with_suffix("").parts))
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.room)
def test_a_room_imports_only_what_it_may(rule: Rule) -> None:
    assert not breaches(rule)


def test_every_room_of_the_design_exists() -> None:
    """A rule about a folder that was renamed would pass for ever."""
    assert not [r.room for r in RULES if not sources(ROOT / r.room)]


def test_templates_come_in_by_the_users_own_door() -> None:
    """They import `autotrain`'s public names and `autotrain.blocks`, and nothing else of ours."""
    public = ast.literal_eval(
        next(
            node.value
            for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
    )
    door = {"autotrain", *(f"autotrain.{name}" for name in public)}
    files = sources(ROOT / "templates")
    assert files
    assert not [
        f"{file.relative_to(ROOT)}:{found.line}: imports {found.name}"
        for file in files
        for found in imports_of(file)
        if found.of("autotrain") and found.name not in door and not found.of("autotrain.blocks")
    ]


@pytest.mark.parametrize("name", ["__init__", "__main__", "cli", "cli_bench", "flags", "cli_use"])
def test_the_command_line_imports_nothing_heavy_at_module_level(name: str) -> None:
    ours = rooms("__version__", "cli", "cli_bench", "errors", "flags", "cli_use")
    light = (*STANDARD, "typer", *ours)
    early = [i for i in imports_of(PACKAGE / f"{name}.py") if i.at_module_level]
    assert not [i.name for i in early if not i.typing_only and not i.of(*light)]


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import json, sys, autotrain.cli;"
        "print(json.dumps([bool(autotrain.cli.app), *sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(json.loads(done.stdout))


def _functions(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                first = node.body[0]
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield f"{file.relative_to(ROOT)}:{node.lineno}: {node.name}", lines


def test_no_module_grows_past_what_one_sitting_reads() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in sources(PACKAGE)
    }
    assert {n: many for n, many in lengths.items() if many > MODULE_LINES} == {}


def test_no_function_grows_past_a_screen() -> None:
    """Counted from `def` to the last line, the docstring left out."""
    found = (pair for file in sources(PACKAGE) for pair in _functions(file))
    assert {name: n for name, n in found if n > FUNCTION_LINES} == {}


def test_the_reader_of_imports_sees_every_kind() -> None:
    """The rules are only as good as what is found."""
    source = """
import os.path
from autotrain import plan
from ..schema import Plan
from . import tracing
if TYPE_CHECKING:
    import torch
else:
    import rich
def late():
    import numpy
    class Inner:
        from a.b import c
"""
    found = {i.name: i for i in imports(source, "autotrain.probe")}
    assert list(found) == [
        "os.path", "autotrain.plan", "autotrain.schema.Plan", "autotrain.probe.tracing",
        "torch", "rich", "numpy", "a.b.c",
    ]  # fmt: skip
    assert [i.name for i in found.values() if not i.at_module_level] == ["numpy", "a.b.c"]
    assert [i.name for i in found.values() if i.typing_only] == ["torch"]


def test_a_rule_refuses_what_it_names() -> None:
    pure, lazy = RULES[4], RULES[5]
    assert (pure.room, lazy.room) == ("autotrain/plan", "autotrain/probe")
    assert pure.breach(Import("torch", 1, at_module_level=False))
    assert pure.breach(Import("pathlib.Path", 1, at_module_level=True))
    assert pure.breach(Import("autotrain.files.read_toml", 1, at_module_level=False))
    assert not pure.breach(Import("autotrain.schema.Plan", 1, at_module_level=True))
    assert lazy.breach(Import("torch.nn", 1, at_module_level=True))
    assert not lazy.breach(Import("torch.nn", 1, at_module_level=False))
    assert not lazy.breach(
        Import("torch.nn", 1, at_module_level=True), "autotrain.probe.trace.counter"
    )
    assert lazy.breach(Import("autotrain.probe.trace.counter.Counter", 1, at_module_level=True))
    assert not lazy.breach(Import("torch", 1, at_module_level=True, typing_only=True))
    assert not lazy.breach(Import("autotrain.blocks.layouts.Clip", 1, at_module_level=True))
    assert lazy.breach(Import("autotrain.blocks.audio", 1, at_module_level=True))
