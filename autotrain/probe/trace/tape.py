"""Changes to a traced step's tape (`schema.StepTrace` says how to read one)."""

from __future__ import annotations

from collections.abc import Sequence

from autotrain.schema import StepTrace


def inserted(made: StepTrace, found: dict[int, int]) -> StepTrace:
    """The trace with a birth and a death at each of those places of its tape."""
    if not found:
        return made
    tape: list[int] = []
    numbers: list[int] = []  # of each storage on the old tape, on the new one
    births = 0
    moved = {mark: mark for mark in made.marks}
    for place in range(len(made.tape) + 1):
        if place in found:
            tape += [found[place], -1 - births]
            births += 1
        if place in moved:
            moved[place] = len(tape)
        if place < len(made.tape):
            event = made.tape[place]
            if event > 0:
                numbers.append(births)
                births += 1
            tape.append(event if event > 0 else -1 - numbers[-1 - event])
    marks = tuple(moved[mark] for mark in made.marks)
    first, later, evaluate = _peaks(tape, marks)
    return made.model_copy(
        update={
            "tape": tuple(tape),
            "marks": marks,
            "peak_bytes": first,
            "accumulate_peak_bytes": later,
            "evaluate_peak_bytes": evaluate,
        }
    )


def _peaks(tape: Sequence[int], marks: Sequence[int]) -> list[int]:
    """Most bytes alive in the first micro-batch, the later one, and the evaluation."""
    sizes: list[int] = []
    alive = [0]
    for event in tape:
        if event > 0:
            sizes.append(event)
        alive.append(alive[-1] + (event if event > 0 else -sizes[-1 - event]))
    ends = (*marks[2:], len(tape))
    return [max(alive[start : end + 1]) for start, end in zip(marks[1:], ends, strict=True)]
