"""`autotrain new`: a task of one's own, to edit."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from autotrain import trust
from autotrain.errors import AutotrainError
from autotrain.goal import read_template


def new(name: str, template: str) -> int:
    """Copy a template into a new folder that the person owns."""
    source, target = trust.template_path(template).parent, Path(name)
    if target.exists():
        raise AutotrainError(f"{target}: exists already", "choose another name")
    try:
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(source, target, ignore=skip)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise AutotrainError(
            f"{target}: {error.strerror}", "choose a folder you may write"
        ) from None
    print(f"wrote {target}/task.py", file=sys.stderr)
    print(f"\nnext: {_next(target)}", file=sys.stderr)
    return 0


def _next(target: Path) -> str:
    """What can be typed next: a template that brings no data says how to make some."""
    folder = shlex.quote(str(target))
    example = read_template(target).example
    if example is None:
        return f"autotrain plan --task {folder}/task.py"
    made = example.command.replace("{folder}", folder)
    return (
        f"{made}  # or data of your own: {folder}/README.md\n"
        f"      autotrain plan {example.data} --task {folder}/task.py"
    )
