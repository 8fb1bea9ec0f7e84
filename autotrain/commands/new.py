"""`autotrain new`: a task of one's own, to edit."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from autotrain import trust
from autotrain.errors import AutotrainError


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
    print(f"\nnext: autotrain plan --task {target}/task.py", file=sys.stderr)
    return 0
