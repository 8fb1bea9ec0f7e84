"""The command line: signatures only. Bodies import what they need; `commands` does the work."""

from typing import Annotated

import typer

from autotrain import cli_use
from autotrain.cli_bench import bench
from autotrain.flags import (
    Commands,
    Compare,
    Data,
    Endpoint,
    Events,
    FindLr,
    For,
    ForPlan,
    Fresh,
    From,
    ImportWeights,
    Json,
    Machine,
    MaxSteps,
    MeasureNoise,
    NNodes,
    NoCalibrate,
    NodeRank,
    NProc,
    Output,
    Page,
    Paste,
    PlanFile,
    Price,
    RecipeName,
    Refresh,
    Resume,
    Run,
    Runs,
    Settings,
    StageName,
    Stages,
    Step,
    Steps,
    TaskFile,
    TemplateName,
    Track,
    Trial,
    Trust,
    TrustRefreshed,
    Within,
)

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
app.add_typer(
    bench,
    name="bench",
    help="Measure here: devices, predictions, loading, the loop.",
)


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
def doctor(
    plan_file: ForPlan = None,
    step: Step = True,
    as_json: Json = False,
    paste: Paste = False,
) -> int:
    """Find out whether this machine is fit to train, and what mends it where it is not."""
    from autotrain.commands import doctor as command

    return command.doctor(plan_file, step=step, as_json=as_json, as_block=paste)


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
    stages: Stages = None,
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
    wish = command.Wish(data, template, task, machine, recipe, said, tuple(stages or ()))
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
        wish, output, as_json=as_json, calibrate=not no_calibrate, trial=trial,
        measures=Measures(find_lr, measure_noise),
    )  # fmt: skip


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
    resume: Resume = False,
    back_to: From = None,
    fresh: Fresh = False,
    import_weights: ImportWeights = None,
    max_steps: MaxSteps = None,
    trust: Trust = False,
    stage: StageName = None,
    nproc: NProc = None,
    nnodes: NNodes = None,
    rdzv_endpoint: Endpoint = None,
    node_rank: NodeRank = None,
    track: Track = None,
    as_json: Events = False,
) -> int:
    """Carry out a plan."""
    from autotrain.commands import run as command
    from autotrain.commands.places import Asked, Processes

    asked = Asked(
        plan_file, resume, fresh, max_steps, trust, as_json, stage, back_to=back_to,
        import_weights=import_weights, track=tuple(track or ()),
    )  # fmt: skip
    processes = Processes(nproc, nnodes, rdzv_endpoint, node_rank)
    if processes.asked:
        from autotrain.commands import launch

        return launch.launch(asked, processes)
    return command.run(asked)


@app.command()
def verify(
    plan_file: PlanFile,
    steps: Steps = 10,
    trust: Trust = False,
    as_json: Json = False,
) -> int:
    """Show that a run of this plan, stopped and resumed, ends as one that never was."""
    from autotrain.commands import verify as command

    return command.verify(plan_file, steps, trust=trust, as_json=as_json)


@app.command()
def report(directories: Runs, output: Page = None, as_json: Json = False) -> int:
    """Say what a run came to and what to change; of several, how they differ."""
    from autotrain.commands import report as command

    return command.report(directories, output, as_json=as_json)


@app.command()
def watch(directory: Run, track: Track = None, as_json: Events = False) -> int:
    """Show a run while it goes on elsewhere."""
    from autotrain.commands import watch as command

    return command.watch(directory, track or (), as_json=as_json)


for each in (cli_use.evaluate, cli_use.predict, cli_use.export):
    app.command()(each)


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


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> int:
    """Print what has a shell complete autotrain's words: eval "$(autotrain completion bash)"."""
    from autotrain.commands import completion as command

    return command.completion(shell)


def offer(shell: str, words: list[str]) -> int:
    """What a shell offers for the last of these words: `completion SHELL -- WORD...`."""
    from autotrain.commands import completion as command

    return command.offer(shell, words, typer.main.get_command(app))
