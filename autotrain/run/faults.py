"""What went wrong, in the words a person can act on."""

from __future__ import annotations

from autotrain.device import out_of_memory
from autotrain.errors import AutotrainError, DoesNotFitError
from autotrain.events import StopReason
from autotrain.run.data import LoaderDiedError, described
from autotrain.run.state import NotFiniteError


def lost_workers(error: BaseException) -> bool:
    """Whether loader workers died. torch may say so from its SIGCHLD handler, anywhere."""
    return isinstance(error, LoaderDiedError) or "DataLoader worker" in str(error)


def explained(error: Exception, doing: str) -> AutotrainError:
    """The error to raise in its place; an AutotrainError stays what it is."""
    if isinstance(error, AutotrainError):
        return error
    if lost_workers(error):
        return LoaderDiedError.of(error)
    if out_of_memory(error):
        return DoesNotFitError(
            f"{doing}: out of memory: {error}",
            "plan again with a smaller batch.micro_batch (accumulation keeps the global batch),"
            " or free memory, then --resume",
        )
    return AutotrainError(f"{doing}: {described(error)}", "--verbose shows where it comes from")


def reason_of(error: Exception) -> StopReason:
    """What a run that ends with this error says as its reason."""
    if isinstance(error, NotFiniteError):
        return "not_finite"
    return "out_of_memory" if out_of_memory(error) else "error"
