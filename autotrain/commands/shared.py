"""`--within` and `--for` of a plan with stages: each planned once more, with its part of them."""

from __future__ import annotations

from collections.abc import Sequence

from autotrain import __version__
from autotrain.commands.decide import Decision
from autotrain.errors import AutotrainError
from autotrain.plan import sharing
from autotrain.plan.planner import make_plan, shortest_run
from autotrain.plan.sharing import Part
from autotrain.schema import AUTO, Goal, HardwareProfile


def shared(
    hardware: HardwareProfile,
    asked: Goal,
    names: Sequence[str],
    goals: Sequence[Goal],
    made: Sequence[Decision],
) -> tuple[list[Goal], list[Decision]]:
    """Goals and decisions of all stages within what `asked` says of all together.

    What a stage leaves of its part, as epochs are whole, goes to those behind it. Raises
    DoesNotFitError where not even one epoch of each is within it.
    """
    said = sharing.limits({k: v for k, v in asked.user.items() if v is not AUTO})
    price = made[0].plan.train.price_per_hour
    limit = sharing.whole(said, price, hardware.name) if said and names else None
    if limit is None:
        return [*goals], [*made]
    parts = [
        Part(name, shortest_run(hardware, one.model, goal), one.plan.predicted.run_seconds.expected)
        for name, goal, one in zip(names, goals, made, strict=True)
    ]
    own_goals: list[Goal] = []
    found: list[Decision] = []
    left = 0.0
    for name, goal, one, part in zip(names, goals, made, sharing.shares(parts, limit), strict=True):
        # Rounding is not to take the one epoch that there is room for.
        seconds = (part + left) * (1 + 1e-9)
        own = sharing.with_limits(goal, limit.of(seconds))
        try:
            plan = make_plan(hardware, one.dataset, one.model, own, version=__version__)
        except AutotrainError as error:
            raise type(error)(f"stage {name}: {error.message}", error.hint) from error
        left = max(seconds - plan.predicted.run_seconds.expected, 0.0)
        own_goals.append(own)
        found.append(one._replace(plan=plan))
    return own_goals, found
