"""Milliseconds of all the arithmetic of a plan, once the step is traced: every template on every
machine that has a profile.

python benchmarks/planning.py [--templates a,b=DATA,c.py] [--rounds 3]

Each plan that `autotrain plan --compare` makes is made again so often, each time as if it were the
first: nothing that was worked out before is kept. Its fastest counts, as other programs only ever
add.
"""

import argparse
import contextlib
import functools
import gc
import io
import statistics
import sys
from pathlib import Path
from time import perf_counter

from autotrain.__main__ import main as autotrain
from autotrain.commands import decide
from autotrain.errors import DoesNotFitError

HOUSE = Path(__file__).parents[1]
MACHINES = sorted(path.stem for path in HOUSE.glob("profiles/*.toml"))
make_plan = decide.make_plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--templates", default="starter,speech-autoencoder")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    every: list[float] = []
    for named in asked.templates.split(","):
        template, _, data = named.partition("=")
        own = template.endswith(".py")
        taken: list[float] = []

        def timed(*arguments, taken=taken, **more):
            """The plan, or the refusal, each timed."""
            rounds, made = [], None
            for _ in range(asked.rounds):
                forget()
                begun = perf_counter()
                try:
                    made = make_plan(*arguments, **more)
                except DoesNotFitError as error:
                    made = error
                rounds.append(perf_counter() - begun)
            taken.append(min(rounds))
            if isinstance(made, DoesNotFitError):
                raise made
            return made

        decide.make_plan = timed
        sys.argv = ["autotrain", "plan", *filter(None, [data]), "--json"]
        sys.argv += ["--task" if own else "--template", template]
        sys.argv += ["--compare", ",".join(MACHINES)]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            autotrain()
        every += taken
        said(Path(template).parent.name if own else template, taken)
    said("all", every)


def forget() -> None:
    """Empty the caches of all functions that work out a plan."""
    for each in gc.get_objects():
        if type(each) is functools._lru_cache_wrapper and "autotrain.plan" in each.__module__:
            each.cache_clear()


def said(name: str, taken: list[float]) -> None:
    ms = sorted(1e3 * seconds for seconds in taken)
    print(f"{name:20} {len(ms):4} plans: median {statistics.median(ms):.1f} ms, p90 "
          f"{ms[int(0.9 * len(ms))]:.1f} ms, worst {ms[-1]:.1f} ms", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
