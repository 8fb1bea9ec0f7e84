"""The command line: signatures only. Bodies import what they need; `commands` does the work."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class Commands(TyperGroup):
    """A `--help` that is not asked for is False: for a None, Typer 0.29 loads pydantic (100 ms)."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help` of the group itself."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


app = typer.Typer(
    name="autotrain",
    cls=Commands,
    help="Sizes a PyTorch training run for your machine, says why, and carries it out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Start with `autotrain plan DATA`, or `autotrain new my-task`.",
)
bench = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench", help="Measure here how good the predictions are.")

Data = Annotated[str | None, typer.Argument(metavar="DATA", help="Your data: a folder or file.")]
PlanFile = Annotated[str, typer.Argument(metavar="PLAN", help="A plan, such as plan.toml.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
NoCalibrate = Annotated[
    bool, typer.Option("--no-calibrate", help="Skip the 10-second measurement of this machine.")
]
Within = Annotated[
    str | None,
    typer.Option("--within", metavar="TIME", help="Train as many epochs as fit: 6h, 90m, 1d12h."),
]
For = Annotated[
    str | None, typer.Option("--for", metavar="MONEY", help="As many epochs as 5usd pay for.")
]
Price = Annotated[
    str | None, typer.Option("--price", metavar="MONEY", help="Dollars for an hour, such as 0.35.")
]
TemplateName = Annotated[
    str | None,
    typer.Option(
        "--template", metavar="NAME", help="image-classifier, speech-autoencoder, or starter."
    ),
]
TaskFile = Annotated[
    str | None, typer.Option("--task", metavar="FILE", help="Your own task file (trusts it).")
]
Machine = Annotated[
    str | None,
    typer.Option("--machine", metavar="NAME|FILE", help="Plan for another machine."),
]
Compare = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="M1,M2,...",
        help="One table of several machines, no plan: names, files, here; t4=0.5 says a price.",
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="conservative, aggressive, regularized, overfit, finetune; yours; a TOML file.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Fix a setting; the rest follows."),
]
Refresh = Annotated[
    str | None,
    typer.Option(
        "--refresh",
        metavar="PLAN",
        help="Decide a plan anew for what is here now; what you set or edited stays.",
    ),
]
TrustRefreshed = Annotated[
    bool, typer.Option("--trust", help="With --refresh: its code may run though it is new.")
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Where the plan goes (plan.toml, or the one refreshed).",
    ),
]
Trial = Annotated[
    bool | None,
    typer.Option(
        "--trial/--no-trial",
        help="Take a few real steps and correct the plan by them (by default: where that"
        " takes seconds).",
        show_default=False,
    ),
]
FindLr = Annotated[
    bool,
    typer.Option("--find-lr", help="Find the learning rate by real steps; draw the curve."),
]
MeasureNoise = Annotated[
    bool,
    typer.Option("--measure-noise", help="Take the batch from how far gradients scatter."),
]


def _version(asked: bool) -> None:
    if asked:
        from autotrain import __version__

        typer.echo(f"autotrain {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the traceback of an error, in any command.")
    ] = False,
) -> None:
    """Sizes a PyTorch training run for your machine, says why, and carries it out."""


@app.command()
def probe(
    data: Data = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the machine's profile (TOML).")
    ] = None,
    as_json: Json = False,
    no_calibrate: NoCalibrate = False,
) -> int:
    """Show what this machine and your data are."""
    from autotrain.commands import probe as command

    return command.probe(data, output, as_json=as_json, calibrate=not no_calibrate)


@app.command()
def plan(
    data: Data = None,
    template: TemplateName = None,
    task: TaskFile = None,
    machine: Machine = None,
    compare: Compare = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    within: Within = None,
    spend: For = None,
    price: Price = None,
    refresh: Refresh = None,
    trust: TrustRefreshed = False,
    output: Output = None,
    as_json: Json = False,
    no_calibrate: NoCalibrate = False,
    trial: Trial = None,
    find_lr: FindLr = False,
    measure_noise: MeasureNoise = False,
) -> int:
    """Decide how to train here, and write it down with reasons."""
    from autotrain.commands import plan as command
    from autotrain.commands.limits import as_settings
    from autotrain.commands.measuring import Measures

    said = as_settings(settings or (), within, spend, price)
    wish = command.Wish(data, template, task, machine, recipe, said)
    if refresh is not None or trust:
        from autotrain.commands import refresh as again

        return again.refresh(
            refresh, wish, output, compare=compare, as_json=as_json, calibrate=not no_calibrate,
            trial=trial, measures=Measures(find_lr, measure_noise), trust=trust,
        )  # fmt: skip
    output = output or "plan.toml"
    if compare is not None:
        from autotrain.commands import compare as several

        steps = {"--trial": bool(trial), "--find-lr": find_lr, "--measure-noise": measure_noise}
        several.alone({"--machine": machine is not None, "-o": output != "plan.toml", **steps})
        return several.compare(wish, compare, json_asked=as_json, calibrate=not no_calibrate)
    return command.plan(
        wish,
        output,
        as_json=as_json,
        calibrate=not no_calibrate,
        trial=trial,
        measures=Measures(find_lr, measure_noise),
    )


@app.command()
def explain(
    plan_file: PlanFile,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="One setting, or a section.")
    ] = None,
) -> int:
    """Say why a setting of a plan is as it is."""
    from autotrain.commands import explain as command

    return command.explain(plan_file, key)


@app.command()
def run(
    plan_file: PlanFile,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew; an earlier run is kept aside.")
    ] = False,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", metavar="N", min=1, help="Stop after step N.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the plan's code though it is new here.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one event a line.")] = False,
) -> int:
    """Carry out a plan."""
    from autotrain.commands import run as command

    return command.run(
        plan_file, resume=resume, fresh=fresh, max_steps=max_steps, trust=trust, as_json=as_json
    )


@app.command()
def report(
    directory: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    as_json: Json = False,
) -> int:
    """Write a run's picture and figures again; print its summary."""
    from autotrain.commands import report as command

    return command.report(directory, as_json=as_json)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make.")],
    template: Annotated[
        str, typer.Option("--template", metavar="NAME", help="What to start from.")
    ] = "starter",
) -> int:
    """Make a task of your own, that trains as it is."""
    from autotrain.commands import new as command

    return command.new(name, template)


@bench.command("memory")
def bench_memory(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Data for the one task or template named.")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option("--template", metavar="NAME", help="A template (by default: all of them)."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="FILE", help="Your own task file (trusts it).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Fix a setting.")
    ] = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Follow the CPU's allocator too: slower.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Print predicted beside measured memory: a few real steps of each model, at a few sizes."""
    from autotrain.commands import bench as command

    return command.memory(
        data, template or (), task, settings or (), tensors=tensors, as_json=as_json
    )
