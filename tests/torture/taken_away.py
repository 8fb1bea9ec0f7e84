"""Take away one fsync, rename, digest check or lock at a time: some test must turn red.

    python tests/torture/taken_away.py [PART OF A FILE'S NAME]...

Runs in a copy of the checkout; prints who noticed, and ends with 1 where nobody did.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HOUSE = Path(__file__).parents[2]
WHERE = ("autotrain/files.py", "autotrain/run/lock.py", "autotrain/run/keeping/*.py",
         "autotrain/trust.py")  # fmt: skip
CALLS = {"sync", "fsync", "sync_folder", "rename", "replace", "verify", "acquire", "make_folder"}
CHECKED = ("sha256", "digest", "bytes", "size")
# The quickest first; whoever notices ends it.
TESTS = (
    "tests/run/test_checkpoint.py", "tests/test_files.py", "tests/test_trust.py",
    "tests/torture/test_strict.py", "tests/run/test_mirror.py",
    "tests/run/test_mirror_keeps.py", "tests/run/test_handover.py",
    "tests/run/test_background.py", "tests/run/test_loop.py", "tests/commands/test_from.py",
    "tests/commands/test_run_refuses.py",
    "tests/torture/test_kills.py", "tests/torture/test_power.py",
)  # fmt: skip


def called(node):
    """The last name of what a statement calls by itself; None if it does something else."""
    value = getattr(node, "value", None)
    if not isinstance(node, ast.Expr | ast.Assign) or not isinstance(value, ast.Call):
        return None
    name = getattr(value.func, "attr", getattr(value.func, "id", None))
    return name if name in CALLS else None


def checks(node):
    """Whether it raises where a digest or a size is another."""
    raises = isinstance(node, ast.If) and any(isinstance(inner, ast.Raise) for inner in node.body)
    return raises and any(word in ast.unparse(node.test) for word in CHECKED)


def without(node):
    """What stands in its place."""
    if isinstance(node, ast.If):
        node.test = ast.Constant(False)
        return node
    if isinstance(node, ast.Assign):
        node.value = node.value.func.value
        return node
    return ast.Pass()


def places(tree):
    """(list of statements, place in it, statement) of each that may be taken away."""
    for parent in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(parent, field, None)
            for number, node in enumerate(statements if isinstance(statements, list) else ()):
                if called(node) or checks(node):
                    yield statements, number, node


def noticed(copy):
    """The test that turns red, or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    red = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return red[0].split()[1].rpartition("/")[2] if red else (done.returncode or None)


def main(parts):
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "demo", ".*_cache")
        shutil.copytree(HOUSE, copy, ignore=ignored)
        assert noticed(copy) is None, "the tests fail before anything was taken away"
        for file in sorted(file for pattern in WHERE for file in copy.glob(pattern)):
            text = file.read_text()
            if parts and not any(part in str(file.relative_to(copy)) for part in parts):
                continue
            for number in range(len(list(places(ast.parse(text))))):
                tree = ast.parse(text)
                statements, at, node = list(places(tree))[number]
                line = ast.unparse(node).splitlines()[0]
                where = f"{file.relative_to(copy)}:{node.lineno}"
                statements[at] = without(node)
                file.write_text(ast.unparse(ast.fix_missing_locations(tree)))
                who = noticed(copy)
                survived += who is None
                print(f"{where:42} {line[:60]:60} {who or 'NOBODY NOTICED'}", flush=True)
            file.write_text(text)
    print(f"{survived} that nobody noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
