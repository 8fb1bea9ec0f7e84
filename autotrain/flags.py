"""What flags and arguments the commands take, each with its help; `cli` puts them together."""

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
        "--template",
        metavar="NAME",
        help="fastspeech2-tts, hybrid-stt, image-classifier, sign-ctc, speech-autoencoder, "
        "starter.",
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
Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage", metavar="NAME[:KEY=VALUE,...]", help="A stage: hands its weights on to the next."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Fix a setting; the rest follows. KEY=auto: not fixed any more.",
    ),
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
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="STEP|URL", help="With --resume: step-1200, best, or a mirror of the run."
    ),
]
ImportWeights = Annotated[
    str | None,
    typer.Option(
        "--import-weights",
        metavar="FILE",
        help="Begin with the weights in a file (.safetensors, .pt).",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start anew; an earlier run is kept aside.")]
MaxSteps = Annotated[
    int | None, typer.Option("--max-steps", metavar="N", min=1, help="Stop after step N.")
]
Steps = Annotated[
    int, typer.Option("--steps", metavar="N", min=2, help="So many steps, stopped in the middle.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Run the plan's code though it is new here.")]
StageName = Annotated[
    str | None, typer.Option("--stage", metavar="NAME", help="Carry out this stage alone.")
]
NProc = Annotated[
    int | None,
    typer.Option("--nproc", metavar="N", min=1, help="Train in so many processes (here, or each)."),
]
NNodes = Annotated[
    int | None, typer.Option("--nnodes", metavar="N", min=1, help="On so many machines.")
]
Endpoint = Annotated[
    str | None,
    typer.Option("--rdzv-endpoint", metavar="HOST:PORT", help="With --nnodes: where they meet."),
]
NodeRank = Annotated[
    int | None,
    typer.Option("--node-rank", metavar="N", min=0, help="With --nnodes: this one; 0 writes."),
]
Events = Annotated[bool, typer.Option("--json", help="Print one event a line.")]
ForPlan = Annotated[
    str | None, typer.Option("--for", metavar="PLAN", help="Check what this plan needs, too.")
]
Step = Annotated[
    bool, typer.Option("--step/--no-step", help="Train for two seconds on each device.")
]
Paste = Annotated[
    bool, typer.Option("--paste", help="Print a block for an issue, with nothing private in it.")
]
Lines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Checkpoint = Annotated[
    str,
    typer.Option("--checkpoint", metavar="STEP", help="best, latest, or one such as step-1200."),
]
WhichStage = Annotated[
    str | None,
    typer.Option("--stage", metavar="NAME", help="Of a run with stages: which (the last)."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (the plan's)."),
]
PlanOrData = Annotated[
    str | None,
    typer.Argument(metavar="PLAN|DATA", help="A plan, or your data (by default: 20 clips)."),
]
Machines = Annotated[
    list[str] | None,
    typer.Option("--machine", metavar="NAME|FILE", help="Predict for this one too; repeatable."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price", metavar="NAME=MONEY", help="An hour of a machine, or of here: t4=0.35EUR/h."
    ),
]
MeasuredSeconds = Annotated[
    float, typer.Option("--seconds", metavar="N", min=1.0, help="Measure for about so long.")
]
Picture = Annotated[
    str, typer.Option("-o", "--output", metavar="FILE", help="Where the picture goes (PNG).")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, such as runs/my-task.")]
Runs = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="A run's folder; several are compared.")
]
Page = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="A page that compares runs: x.html."),
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", metavar="NAME", help="Send figures to wandb or mlflow too."),
]
