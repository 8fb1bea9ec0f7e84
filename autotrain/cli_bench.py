"""The command line of `autotrain bench`: signatures only, as in `cli`."""

from typing import Annotated

import typer

from autotrain.flags import (
    Commands,
    Json,
    Machines,
    MeasuredSeconds,
    NoCalibrate,
    Picture,
    PlanOrData,
    Prices,
    Settings,
    TaskFile,
    TemplateName,
    Trust,
)

bench = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode=None)


@bench.command("cpu-vs-gpu")
def bench_cpu_vs_gpu(
    what: PlanOrData = None,
    template: TemplateName = None,
    task: TaskFile = None,
    machines: Machines = None,
    prices: Prices = None,
    settings: Settings = None,
    seconds: MeasuredSeconds = 45.0,
    picture: Picture = "cpu-vs-gpu.png",
    no_calibrate: NoCalibrate = False,
    trust: Trust = False,
    as_json: Json = False,
) -> int:
    """Is a GPU worth it? Measure what is here, predict what is named, beside each other."""
    from autotrain.commands.bench import cpu_vs_gpu as command
    from autotrain.commands.bench.asked import Named

    named = Named(what, template, task, tuple(settings or ()), trust)
    wanted = command.Wanted(tuple(machines or ()), tuple(prices or ()), seconds, picture, as_json)
    return command.cpu_vs_gpu(named, wanted, calibrate=not no_calibrate)


@bench.command("loop")
def bench_loop(
    what: PlanOrData = None,
    template: TemplateName = None,
    task: TaskFile = None,
    settings: Settings = None,
    seconds: MeasuredSeconds = 45.0,
    no_calibrate: NoCalibrate = False,
    trust: Trust = False,
    as_json: Json = False,
) -> int:
    """What does autotrain's loop add to a step? Time it beside one written by hand."""
    from autotrain.commands.bench import loop as command
    from autotrain.commands.bench.asked import Named

    named = Named(what, template, task, tuple(settings or ()), trust)
    return command.loop(named, seconds=seconds, as_json=as_json, calibrate=not no_calibrate)


@bench.command("data")
def bench_data(
    what: PlanOrData = None,
    template: TemplateName = None,
    task: TaskFile = None,
    settings: Settings = None,
    seconds: MeasuredSeconds = 45.0,
    no_calibrate: NoCalibrate = False,
    trust: Trust = False,
    as_json: Json = False,
) -> int:
    """Do samples come as fast as the model learns? Read them, and train on some."""
    from autotrain.commands.bench import data as command
    from autotrain.commands.bench.asked import Named

    named = Named(what, template, task, tuple(settings or ()), trust)
    return command.data(named, seconds=seconds, as_json=as_json, calibrate=not no_calibrate)


@bench.command("choice")
def bench_choice(
    what: PlanOrData = None,
    template: TemplateName = None,
    task: TaskFile = None,
    settings: Settings = None,
    seconds: MeasuredSeconds = 45.0,
    no_calibrate: NoCalibrate = False,
    trust: Trust = False,
    as_json: Json = False,
) -> int:
    """Is the plan's way to take a step the fastest? Time it beside the others."""
    from autotrain.commands.bench import choice as command
    from autotrain.commands.bench.asked import Named

    named = Named(what, template, task, tuple(settings or ()), trust)
    return command.choice(named, seconds=seconds, as_json=as_json, calibrate=not no_calibrate)


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
    from autotrain.commands.bench import memory as command

    return command.memory(
        data, template or (), task, settings or (), tensors=tensors, as_json=as_json
    )
