"""What went wrong, in the words a person can act on."""

from __future__ import annotations

from autotrain.device import out_of_memory
from autotrain.errors import AutotrainError, DoesNotFitError, starved
from autotrain.events import StopReason
from autotrain.run.loading.lost import LoaderDiedError
from autotrain.run.loading.source import described
from autotrain.run.state import NotFiniteError


def lost_workers(error: BaseException) -> bool:
    """Whether loader workers died, and new ones in their place did not help."""
    return isinstance(error, LoaderDiedError)


def explained(error: Exception, doing: str) -> AutotrainError:
    """The error to raise in its place; an AutotrainError stays what it is."""
    if isinstance(error, AutotrainError):
        return error
    if out_of_memory(error):
        return DoesNotFitError(
            f"{doing}: out of memory: {error}",
            "plan again with a smaller batch.micro_batch (accumulation keeps the global batch),"
            " or free memory, then --resume",
        )
    if (no_room := starved(error)) is not None:
        return no_room
    return AutotrainError(f"{doing}: {described(error)}", "--verbose shows where it comes from")


def reason_of(error: Exception) -> StopReason:
    """What a run that ends with this error says as its reason."""
    if isinstance(error, NotFiniteError):
        return "not_finite"
    ran_out = out_of_memory(error) or isinstance(error, DoesNotFitError)
    return "out_of_memory" if ran_out else "error"
