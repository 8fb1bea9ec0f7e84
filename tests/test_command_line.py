"""The command line is a promise: every command, argument and option, and how it answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

from autotrain import __version__, flags
from autotrain.__main__ import main
from autotrain.cli import app

# What several benches take.
MEASURED = {
    "[what]": "",
    "template": "--template",
    "task": "--task",
    "settings...": "--set",
    "seconds": "--seconds",
    "no_calibrate": "--no-calibrate",
    "trust": "--trust",
    "as_json": "--json",
}
# command -> parameter -> its flags; an argument has none, and stands in brackets if optional.
FROZEN = {
    "": {"version": "--version", "verbose": "--verbose"},
    "doctor": {
        "plan_file": "--for",
        "step": "--step --no-step",
        "as_json": "--json",
        "paste": "--paste",
    },
    "probe": {
        "[data]": "",
        "output": "-o --output",
        "as_json": "--json",
        "no_calibrate": "--no-calibrate",
    },
    "plan": {
        "[data]": "",
        "template": "--template",
        "task": "--task",
        "machine": "--machine",
        "compare": "--compare",
        "recipe": "--recipe",
        "settings...": "--set",
        "stages...": "--stage",
        "within": "--within",
        "spend": "--for",
        "price": "--price",
        "refresh": "--refresh",
        "trust": "--trust",
        "output": "-o --output",
        "as_json": "--json",
        "no_calibrate": "--no-calibrate",
        "trial": "--trial --no-trial",
        "find_lr": "--find-lr",
        "measure_noise": "--measure-noise",
    },
    "explain": {"plan_file": "", "[key]": ""},
    "run": {
        "plan_file": "",
        "resume": "--resume",
        "back_to": "--from",
        "fresh": "--fresh",
        "import_weights": "--import-weights",
        "max_steps": "--max-steps",
        "trust": "--trust",
        "stage": "--stage",
        "nproc": "--nproc",
        "nnodes": "--nnodes",
        "rdzv_endpoint": "--rdzv-endpoint",
        "node_rank": "--node-rank",
        "track...": "--track",
        "as_json": "--json",
    },
    "verify": {"plan_file": "", "steps": "--steps", "trust": "--trust", "as_json": "--json"},
    "report": {"directories": "", "output": "-o --output", "as_json": "--json"},
    "watch": {"directory": "", "track...": "--track", "as_json": "--json"},
    "evaluate": {
        "directory": "",
        "split": "--split",
        "checkpoint": "--checkpoint",
        "stage": "--stage",
        "device": "--device",
        "trust": "--trust",
        "as_json": "--json",
    },
    "predict": {
        "directory": "",
        "[inputs]": "",
        "output": "-o --output",
        "checkpoint": "--checkpoint",
        "stage": "--stage",
        "device": "--device",
        "trust": "--trust",
        "as_json": "--json",
    },
    "export": {
        "directory": "",
        "to": "--to",
        "output": "-o --output",
        "checkpoint": "--checkpoint",
        "stage": "--stage",
        "trust": "--trust",
        "as_json": "--json",
    },
    "new": {"name": "", "template": "--template"},
    "completion": {"shell": ""},
    "bench": {},
    "bench cpu-vs-gpu": {
        "[what]": "",
        "template": "--template",
        "task": "--task",
        "machines...": "--machine",
        "prices...": "--price",
        "settings...": "--set",
        "seconds": "--seconds",
        "picture": "-o --output",
        "no_calibrate": "--no-calibrate",
        "trust": "--trust",
        "as_json": "--json",
    },
    "bench loop": MEASURED,
    "bench data": MEASURED,
    "bench choice": MEASURED,
    "bench memory": {
        "[data]": "",
        "template...": "--template",
        "task": "--task",
        "settings...": "--set",
        "tensors": "--tensors",
        "as_json": "--json",
    },
}
# What `--help` may load of these: nothing. torch alone takes seconds.
HEAVY = {"torch", "numpy", "pydantic", "rich", "matplotlib", "psutil", "safetensors", "PIL"}


def described(command) -> dict[str, str]:
    found = {}
    for parameter in command.params:
        if parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        name = f"{parameter.name}{'...' if getattr(parameter, 'multiple', False) else ''}"
        name = f"[{name}]" if argument and not parameter.required else name
        found[name] = "" if argument else " ".join([*parameter.opts, *parameter.secondary_opts])
    return found


def test_every_command_argument_and_option_is_as_promised():
    assert commands("", typer.main.get_command(app)) == FROZEN


def commands(name, command) -> dict[str, dict[str, str]]:
    """A command and all below it."""
    found = {name: described(command)}
    for below, each in getattr(command, "commands", {}).items():
        found |= commands(f"{name} {below}".strip(), each)
    return found


def test_defaults_are_as_promised():
    plan = typer.main.get_command(app).commands["plan"]
    defaults = {p.name: p.default for p in plan.params}
    assert (defaults["output"], defaults["trial"]) == (
        None,
        None,
    )  # plan.toml, or the one refreshed


def words(*arguments, code=0):
    """(stdout, stderr) of the command line, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "autotrain", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plan", "--help"], ["run", "--help"], ["bench", "cpu-vs-gpu", "--help"]],
)
def test_help_loads_nothing_heavy(arguments):
    """Which keeps it under 150 ms; modules are counted, not this machine's milliseconds."""
    code = (
        "import json, sys; sys.argv = ['autotrain', *sys.argv[1:]]\n"
        "from autotrain.__main__ import main\n"
        "try: main()\n"
        "finally: print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stderr)
    assert not HEAVY & set(loaded)
    assert not [name for name in loaded if name.startswith("autotrain.commands")]
    assert len(loaded) < 400


def test_help_names_every_command_and_where_to_start():
    out, err = words("--help")
    assert not err
    assert all(f"\n  {name} " in out for name in FROZEN if name and " " not in name)
    assert "autotrain plan DATA" in out
    assert words("--version") == (f"autotrain {__version__}\n", "")


def test_the_script_and_the_module_are_one_command_line():
    script = Path(sys.executable).with_name("autotrain")
    if not script.exists():
        pytest.skip("no script beside this interpreter")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"autotrain {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["plna"], "no such command 'plna'. Did you mean 'plan'?", "autotrain --help"),
        (
            ["plan", "--taks", "x"],
            "no such option: --taks (possible options: --task, --trial, --trust)",
            "autotrain plan --help",
        ),
        (["plan", "a", "b"], "unexpected extra argument", "autotrain plan --help"),
        (["run"], "missing argument 'PLAN'", "autotrain run --help"),
        (["plan", "--set"], "'--set' requires an argument", "autotrain --help"),
        (["run", "x", "--max-steps", "0"], "'--max-steps'", "autotrain run --help"),
    ],
)
def test_wrong_usage_is_one_lower_case_line_and_a_hint(capsys, monkeypatch, arguments, says, hint):
    monkeypatch.setattr(sys, "argv", ["autotrain", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    print(err)
    assert end.value.code == 2
    assert out == ""
    line, blank, advice = err.splitlines()
    assert line.startswith("error: ")
    assert not line[len("error: ")].isupper()
    assert says.lower() in line.lower()
    assert (blank, advice) == ("", f"hint: {hint}")


def test_every_template_is_named_where_one_is_asked_for():
    _, option = get_args(flags.TemplateName)
    there = sorted(
        path.parent.name for path in Path(__file__).parents[1].glob("templates/*/task.py")
    )
    assert option.help == f"{', '.join(there)}."


def test_no_arguments_at_all_is_a_question_for_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["autotrain"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert "plan" in out + err
