"""The command line of what was trained: signatures only, as in `cli`."""

from typing import Annotated

import typer

from autotrain.flags import Checkpoint, Device, Json, Lines, Run, Trust, WhichStage


def evaluate(
    directory: Run,
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="valid, test, or train.")
    ] = "valid",
    checkpoint: Checkpoint = "best",
    stage: WhichStage = None,
    device: Device = None,
    trust: Trust = False,
    as_json: Json = False,
) -> int:
    """Count a trained model's figures over a split; of a classifier each class."""
    from autotrain.commands import evaluate as command
    from autotrain.commands.opened import Wanted

    wanted = Wanted(directory, checkpoint, stage, device, trust)
    return command.evaluate(wanted, split, as_json=as_json)


def predict(
    directory: Run,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...", help="Files, folders of them, or texts; -: a text a line of stdin."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FOLDER", help="For what is written (RUN/predictions)."
        ),
    ] = None,
    checkpoint: Checkpoint = "best",
    stage: WhichStage = None,
    device: Device = None,
    trust: Trust = False,
    as_json: Lines = False,
) -> int:
    """Ask a trained model: a class, a transcript, a sound, as its task answers."""
    from autotrain.commands import predict as command
    from autotrain.commands.opened import Wanted

    wanted = Wanted(directory, checkpoint, stage, device, trust)
    return command.predict(wanted, command.Asked(inputs or (), output, as_json))


def export(
    directory: Run,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="onnx, torchscript, or state-dict.")
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Where it goes (into the run)."),
    ] = None,
    checkpoint: Checkpoint = "best",
    stage: WhichStage = None,
    trust: Trust = False,
    as_json: Json = False,
) -> int:
    """Write a trained model for other programs, and check that it answers the same."""
    from autotrain.commands import export as command
    from autotrain.commands.opened import Wanted

    wanted = Wanted(directory, checkpoint, stage, None, trust)
    return command.export(wanted, to, output, as_json=as_json)
