"""autotrain: sizes a PyTorch training run for your machine, says why, and carries it out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotrain.task import Kept, Loss, Task

__version__ = "0.1.0"
__all__ = ["Kept", "Loss", "Task", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Kept", "Loss", "Task"):
        from autotrain import task

        return getattr(task, name)
    raise AttributeError(f"module 'autotrain' has no attribute {name!r}")
