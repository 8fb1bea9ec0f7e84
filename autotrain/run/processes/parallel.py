"""A window's gradient when several processes share its micro-batches.

Micro-batch k goes to rank k mod world, with the random numbers that it has in one process. Each
rank adds up the gradients of its own; those of all ranks are added up by DistributedDataParallel
during the last backward pass, or in shared memory behind it. Then the ranks meet: the window's
weight is known, and one factor makes the gradient that one process would have had, to rounding.

Nobody waits for anybody before that. A rank that fails still does its part in what the others
wait for, so that they get to the place where all are told, and none commits.
"""

from __future__ import annotations

from autotrain.run.healing import faults
from autotrain.run.loading.feed import NOTHING
from autotrain.run.meter import Number
from autotrain.run.processes.board import Board, board
from autotrain.run.processes.ddp import Adding
from autotrain.run.processes.ranks import Ranks
from autotrain.run.processes.sharing import Buffers
from autotrain.run.processes.window import Part, backward, expected, told
from autotrain.run.state import Run
from autotrain.run.step import Rows, _not_zero


def accumulate(run: Run, window: list[int]) -> tuple[Rows, Number, Number] | None:
    """Gradients of the window, its weight, and what they are to be multiplied with.

    The same on all ranks. None: asked to stop. Raises on all ranks what failed on one.
    """
    ranks, doing = run.ranks, f"step {run.state.step + 1}"
    assert ranks is not None
    adding = _ready(run, ranks)
    part, divisor = Part(), expected(ranks, window)
    try:
        _own(run, adding, part, ranks.mine(len(window)), divisor)
    except Exception as error:
        part.error = error
    try:
        if part.error is not None:
            with ranks.meeting():
                adding.finish()
        met = told(run, part, doing)
    except BaseException:
        ranks.drop()
        raise
    if met is None:
        ranks.drop()
        return None
    sums, found = met
    if not found["taken"]:
        return [], 0.0, 1.0
    adding.done()
    return [sums], sums["weight"], divisor / _not_zero(sums["weight"])


def _own(run: Run, adding: Adding | Board, part: Part, mine: range, divisor: Number) -> None:
    """A rank's share."""
    for number in mine:
        taken = run.feed.take(run.state.step // run.cadence.steps_per_epoch)
        if taken is NOTHING:
            continue
        batch = run.form.batch(taken)
        run.draws.before(run.state.step, number)
        total = adding.total(batch, last=number == mine[-1])
        part.add(adding.loss.taken())
        backward(run, total, divisor)
    adding.end()


def _ready(run: Run, ranks: Ranks) -> Adding | Board:
    """What adds gradients up, made anew for other parameters; the model's buffers, as rank 0's."""
    trained = [id(parameter) for parameter in run.parameters]
    if ranks.adding is None or ranks.buffers is None or ranks.trained != trained:
        try:
            ranks.adding = board(run, ranks) or Adding(run)
        except (RuntimeError, ValueError) as error:  # the others wait in there: not to be healed
            raise faults.explained(error, f"step {run.state.step + 1}") from error
        ranks.buffers, ranks.trained = Buffers(run.model), trained
    ranks.buffers.follow()
    ranks.adding.begin()
    return ranks.adding
