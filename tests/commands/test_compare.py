"""`autotrain plan --compare` as a person uses it, and a friend's machine in one file."""

import json
from pathlib import Path

import pytest

from autotrain import planfile
from autotrain.commands.decide import Case
from autotrain.commands.plan import Wish, goal_of, source_of
from autotrain.goal import parse_settings
from autotrain.probe import calibrate, rates
from autotrain.probe.hardware import load_machine
from autotrain.probe.model import ModelTracer

from .house import PLAN, SMALL, TASK, cli

THREE = ("--compare", "t4=0.5,rtx 4060,cpu-8-core")


def test_one_table_in_a_pipe_and_no_plan(planned_once, tmp_path, home, monkeypatch):
    """By the real command line: data on stdout, the rest on stderr."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(home))
    folder = tmp_path / "empty"
    folder.mkdir()
    task = planned_once[0] / "task.py"
    done = cli("plan", "--task", task, "--no-calibrate", *THREE, cwd=folder)
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[:2] == ["machine", "fits"]
    assert {line.split()[0] for line in lines[:3]} == {"t4-16gb", "rtx-4060-8gb", "cpu-8-core"}
    assert any(line.startswith("fastest: ") for line in lines)
    assert "cheapest: t4-16gb, " in done.stdout
    assert "the task got None" in done.stderr
    assert "no plan was written" in done.stderr
    assert f"next: autotrain plan --task {task} --machine " in done.stderr
    assert not list(folder.iterdir())


@pytest.fixture
def compared(folder, at):
    said = at(
        *PLAN, *SMALL, "--compare", "here,t4=0.5,rtx-4060,a100-40,cpu-8-core,cpu-4-core", "--json"
    )
    assert said.code == 0
    return {row["machine"]: row for row in json.loads(said.out)["machines"]}


def test_each_row_is_the_plan_that_one_would_get_there(folder, at, compared):
    """A trace that machines share gives each what a trace of its own would."""
    for name, row in compared.items():
        where = () if name == "here" else ("--machine", name)
        said = at(*PLAN, *SMALL, *where, "--no-trial", "--json", "-o", "alone.toml")
        alone = json.loads(said.out)
        keys = ("micro_batch", "accum_steps", "global_batch")
        assert {key: row[key] for key in keys} == {key: alone["batch"][key] for key in keys}
        assert row["dtype"] == alone["precision"]["dtype"]
        if name == "here":  # what is free changes from one moment to the next
            continue
        assert row["budget_bytes"] == alone["memory"]["budget_bytes"]
        memory, expected = row["device_peak_bytes"], alone["predicted"]["device_peak_bytes"]
        # What loading a task adds to a process is there once in the process of these tests.
        assert memory["expected"] == pytest.approx(expected["expected"], rel=0.2)


def opened(machine):
    """The task in this folder, opened for one machine."""
    wish = Wish(None, None, "task.py", machine, None, SMALL[1::2])
    source = source_of(wish)
    settings, options = parse_settings(list(wish.settings))
    goal = goal_of(wish, source, settings, options, Path("plan.toml"))
    return Case.open(source, load_machine(machine), goal)


@pytest.fixture
def traces(monkeypatch):
    """The device kind of every step that was really traced."""
    made, real = [], ModelTracer.trace

    def counted(tracer, *arguments, **more):
        made.append(tracer.device.kind)
        return real(tracer, *arguments, **more)

    monkeypatch.setattr(ModelTracer, "trace", counted)
    return made


def test_a_case_on_another_machine_is_as_if_it_were_opened_there(folder):
    """The same traces, in the same order, of a model that differs from device to device.

    What dies at the same moment dies in no order: a tape is compared by what was in it.
    """

    def seen(case):
        found = case.decide().model.traces
        return [t.model_copy(update={"tape": tuple(sorted(t.tape))}) for t in found]

    (folder / "task.py").write_text(TASK.replace("nn.ReLU()", "nn.LayerNorm(width), nn.Tanh()"))
    first = opened("rtx-4060")
    for name in ("t4", "a100-40gb", "m1", "h100", "rtx-4090", "a100-80gb"):
        there, own = first.on(load_machine(name)), opened(name)
        assert seen(there) == seen(own), name


def test_only_what_looks_different_is_traced_again(folder, at, traces):
    assert at(*PLAN, *SMALL, "--compare", "cpu-8-core").code == 0
    alone = len(traces)
    traces.clear()
    assert at(*PLAN, *SMALL, "--compare", "cpu-8-core,cpu-4-core,cpu-16-core,cpu-64-core").code == 0
    assert len(traces) == alone
    traces.clear()
    assert at(*PLAN, *SMALL, "--compare", "cpu-8-core,l4,rtx-4090,rtx-4060,t4").code == 0
    assert len(traces) == 3 * alone


def test_settings_hold_on_every_machine_and_a_price_of_its_own_comes_first(folder, at):
    said = at(
        *PLAN, "--set", "batch.micro_batch=4", "--set", "train.price_per_hour=2.0",
        "--compare", "t4=0.5,l4,cpu-4-core", "--json",
    )  # fmt: skip
    rows = {row["machine"]: row for row in json.loads(said.out)["machines"]}
    assert {row["micro_batch"] for row in rows.values()} == {4}
    assert {name: row["price_per_hour"] for name, row in rows.items()} == {
        "t4-16gb": 0.5, "l4-24gb": 2.0, "cpu-4-core": 2.0,
    }  # fmt: skip


def test_a_machine_on_which_it_does_not_fit_is_a_row_with_the_mildest_remedy(folder, at):
    wide = ("--set", "task.width=100000000")
    said = at(*PLAN, *wide, "--compare", "rtx-3050-laptop,h100", "--json")
    assert said.code == 0
    fits, lacks = json.loads(said.out)["machines"]
    assert (fits["machine"], fits["fits"]) == ("h100-80gb", True)
    assert (lacks["machine"], lacks["fits"]) == ("rtx-3050-laptop-4gb", False)
    assert "the budget on NVIDIA GeForce RTX 3050 Laptop GPU is" in lacks["why"]
    assert lacks["remedy"].startswith("what would make it fit: ")
    assert ", or " not in lacks["remedy"]
    said = at(*PLAN, *wide, "--compare", "rtx-3050-laptop")
    assert said.code == 4
    assert "fastest" not in said.out
    assert "next:" not in said.err


def test_a_machine_without_the_device_asked_for_is_a_row(folder, at):
    on_cuda = ("--set", "device.kind=cuda")
    said = at(*PLAN, *on_cuda, "--compare", "cpu-4-core,t4", "--json")
    last = json.loads(said.out)["machines"][-1]
    assert last["why"] == "cpu-4-core has no device cuda:0"
    said = at(*PLAN, *on_cuda, "--compare", "cpu-4-core,cpu-8-core")
    assert said.code == 1
    assert said.error == "error: cpu-4-core has no device cuda:0"


def test_all_that_is_wrong_with_the_machines_is_said_at_once(folder, at):
    (folder / "torn.toml").write_text('name = "torn"\n[cpu]\ncors = 4\n')
    said = at(*PLAN, "--compare", "t4,a100,t5,torn.toml,nowhere.toml,l4=cheap")
    assert said.code == 2
    assert said.out == ""
    for words in (
        "'a100' may be a100-40gb or a100-80gb",
        "no machine is called 't5'",
        "torn.toml: cpu.cors: unknown key",
        "torn.toml: devices: missing",
        "nowhere.toml: No such file",
        "--compare l4= cheap: not an amount of dollars",
    ):
        assert words in said.err
    assert "the task got" not in said.err


def test_the_next_command_keeps_the_price_and_drops_the_one_it_stands_above(folder, at):
    said = at(*PLAN, *SMALL, "--price", "2", "--compare", "rtx-4090=0.5")
    next_line = said.err.rpartition("next: ")[2]
    assert "--price 0.5 --machine rtx-4090-24gb" in next_line
    assert "price_per_hour" not in next_line
    said = at(*PLAN, *SMALL, "--price", "2", "--compare", "rtx-4090,cpu-4-core")
    assert "price_per_hour=2.0" in said.err.rpartition("next: ")[2]


def test_one_machine_has_one_price(folder, at):
    said = at(*PLAN, *SMALL, "--compare", "t4=1,rtx-4090,t4-16gb=2")
    assert said.code == 2
    assert said.error == "error: --compare t4-16gb: two prices for it, 1 and 2"
    said = at(*PLAN, *SMALL, "--compare", "t4=0,t4,t4=0", "--json")
    (row,) = json.loads(said.out)["machines"]
    assert row["price_per_hour"] == 0.0
    assert row["cost_dollars"]["expected"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--compare", ","), "--compare: no machine is named"),
        (("--compare", "t4", "--machine", "l4"), "--compare and --machine exclude each other"),
        (("--compare", "t4", "-o", "mine.toml"), "--compare and -o exclude each other"),
        (("--compare", "t4", "--trial"), "--compare and --trial exclude each other"),
        (("--compare", "t4", "--find-lr"), "--compare and --find-lr exclude each other"),
    ],
)
def test_what_only_one_machine_can_have_is_refused(folder, at, arguments, fault):
    said = at(*PLAN, *arguments)
    assert said.code == 2
    assert said.error == f"error: {fault}"


# --- one file for a friend -------------------------------------------------------------------


def test_a_plan_from_this_machines_file_is_the_plan_made_here(
    folder, at, monkeypatch, few_operators
):
    monkeypatch.setattr(calibrate, "CPU_SECONDS", 0.5)
    monkeypatch.setattr(calibrate, "measure", rates.measure)  # here, not in a child
    assert at("probe", "-o", "me.toml").code == 0
    here = at(*PLAN, "--no-trial", "--json", "-o", "here.toml")
    there = at(*PLAN, "--no-trial", "--machine", "me.toml", "--json", "-o", "there.toml")
    one, other = json.loads(here.out), json.loads(there.out)
    assert one["inputs"]["hardware"] == other["inputs"]["hardware"]
    for section in ("device", "batch", "precision", "optimizer", "schedule", "train", "loader"):
        assert one[section] == other[section], section
    step = one["predicted"]["step_seconds"]["expected"]
    assert other["predicted"]["step_seconds"]["expected"] == pytest.approx(step, rel=0.5)


def test_the_file_holds_nothing_of_whose_machine_it_is(folder, at):
    said = at("probe", "-o", "me.toml", "--no-calibrate")
    assert said.code == 0
    text = (folder / "me.toml").read_text()
    assert str(folder) not in text
    assert load_machine("me.toml").disk.path == "runs"
    assert "--machine me.toml" in said.err


def test_reasons_say_where_a_machines_figures_come_from(folder, at):
    """Nothing in a plan for a machine of a datasheet was measured there."""
    assert at(*PLAN, *SMALL, "--machine", "t4", "-o", "t4.toml").code == 0
    reasons = planfile.load(folder / "t4.toml").because
    assert reasons["memory"]["budget_bytes"].source.startswith("the profile t4-16gb")
    for section, key in (("device", "kind"), ("memory", "budget_bytes")):
        assert reasons[section][key].kind == "fixed"
    said = at("explain", "t4.toml")
    assert "this machine" not in said.out.replace("on this machine: a lid", "")
    assert "probe" not in said.out
    assert at(*PLAN, *SMALL, "-o", "own.toml").code == 0
    own = planfile.load(folder / "own.toml").because["memory"]["budget_bytes"]
    assert (own.kind, own.source.startswith("autotrain probe of ")) == ("measured", True)
