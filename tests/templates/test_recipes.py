"""Every shipped recipe on every template: the plan has its figures, and what it says is trained."""

import json
import random
import re
import sys

import pytest
from PIL import Image

from autotrain import planfile
from autotrain.__main__ import main
from autotrain.blocks.corpus import SHIPPED
from autotrain.files import shipped
from autotrain.recipe import read_recipe
from autotrain.task import load_module

from .test_image_classifier import write

# DESIGN section 9, by the key of the plan; warm-up in epochs.
FIGURES = {
    "conservative": {
        "batch.micro_batch": 8, "batch.accum_steps": 2, "optimizer.name": "adamw",
        "optimizer.lr": 3e-4, "optimizer.weight_decay": 1e-4, "optimizer.clip_norm": 1.0,
        "schedule.name": "cosine", "schedule.min_lr": 1e-6, "schedule.warmup_epochs": 5,
        "train.epochs": 150,
    },
    "aggressive": {
        "batch.micro_batch": 12, "batch.accum_steps": 1, "optimizer.name": "adam",
        "optimizer.lr": 5e-4, "optimizer.clip_norm": 0.5, "schedule.warmup_epochs": 3,
        "train.epochs": 100,
    },
    "regularized": {
        "batch.micro_batch": 8, "batch.accum_steps": 2, "optimizer.name": "adamw",
        "optimizer.lr": 2e-4, "optimizer.weight_decay": 1e-3,
        "schedule.name": "cosine_restarts", "schedule.warmup_epochs": 10, "train.epochs": 200,
    },
    "overfit": {
        "optimizer.weight_decay": 0.0, "schedule.name": "constant", "train.epochs": 300,
        "early_stop.patience": None,
    },
    "finetune": {
        "batch.global_batch": 32, "optimizer.name": "adamw", "optimizer.lr": 3e-5,
        "train.epochs": 20,  # of so few samples
    },
}  # fmt: skip
OPTIONS = {
    "conservative": {"dropout": 0.3},
    "aggressive": {"dropout": 0.25},
    "regularized": {"dropout": 0.4, "label_smoothing": 0.1, "mixup": 0.2},
}
# Those of a recipe that a template has no use for; it takes all others.
LEFT_OUT = {
    "hybrid-stt": {"mixup", "flip"},
    "speech-autoencoder": {"label_smoothing", "mixup", "augment", "flip", "by_heart"},
    "fastspeech2-tts": {"label_smoothing", "mixup", "augment", "flip", "by_heart"},
    "sign-ctc": set(),
    "image-classifier": set(),
}
STAGES = {"sign-ctc": ["teacher", "student"], "hybrid-stt": ["encoder", "ctc", "decoder", "joint"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    load_module(shipped("templates") / "sign-ctc" / "make_signs.py").write(
        folder / "signs", signers=6, sentences=5
    )
    write(folder / "pictures")
    return {
        "sign-ctc": folder / "signs",
        "image-classifier": folder / "pictures",
        "hybrid-stt": SHIPPED,
        "fastspeech2-tts": SHIPPED,
        "speech-autoencoder": shipped("templates") / "speech-autoencoder" / "clips",
    }


@pytest.fixture
def autotrain(tmp_path, monkeypatch):
    """The command line in this process, in a folder and with a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUTOTRAIN_BUSY", "ignore")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autotrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0

    return call


def planned(autotrain, data, template, recipe):
    """A plan without anything else said, and each of its stages."""
    autotrain("plan", data[template], "--template", template, "--recipe", recipe,
              "--no-trial", "--no-calibrate", "--set", "run.name=made")  # fmt: skip
    plan = planfile.load("plan.toml")
    return plan, [part for _, part in planfile.stages(plan)] or [plan]


def figure(plan, key):
    """A setting of the plan; warm-up as the recipe counts it, as the plan says beside its steps."""
    section, _, name = key.partition(".")
    if name != "warmup_epochs":
        return getattr(getattr(plan, section), name)
    said = plan.because["schedule"]["warmup_steps"].formula
    epochs, steps = map(int, re.match(r"the recipe sets (\d+) epochs x (\d+) steps", said).groups())
    assert plan.schedule.warmup_steps == epochs * steps
    return epochs


# Of these a plan takes up to minutes: the origins' recipes alone.
LARGE = ("hybrid-stt", "fastspeech2-tts")
QUICK = {("image-classifier", "regularized"), ("speech-autoencoder", "regularized")}
CASES = [
    pytest.param(template, recipe, marks=() if (template, recipe) in QUICK else pytest.mark.slow)
    for template in LEFT_OUT
    for recipe in (OPTIONS if template in LARGE else FIGURES)
]


@pytest.mark.parametrize(("template", "recipe"), CASES)
def test_a_plan_of_each_recipe_has_its_figures_on_each_template(autotrain, data, template, recipe):
    plan, parts = planned(autotrain, data, template, recipe)
    assert [stage.name for stage in plan.stage] == STAGES.get(template, [])
    options = read_recipe(recipe).options
    assert OPTIONS.get(recipe, {}).items() <= options.items()
    left = {name for name in options if name in LEFT_OUT[template]}
    for part in parts:
        found = {key: figure(part, key) for key in FIGURES[recipe]}
        assert found == FIGURES[recipe]
        taken = {name: part.task.options.get(name) for name in options if name not in left}
        assert taken == {name: options[name] for name in taken}
        assert not left & set(part.task.options)
        (said,) = [n for n in part.notes if n.startswith(f"the recipe {recipe} also")] or [""]
        assert {name for name in options if f"{name} = " in said} == left


RUN = [
    pytest.param("image-classifier", "regularized"),
    *(pytest.param("sign-ctc", name, marks=pytest.mark.slow) for name in OPTIONS),
]


@pytest.mark.parametrize(("template", "recipe"), RUN)
def test_a_recipe_is_trained_as_it_is_written(autotrain, data, tmp_path, template, recipe):
    """Three real steps of each stage: nothing to heal, nothing to warn of."""
    plan, parts = planned(autotrain, data, template, recipe)
    autotrain("run", "plan.toml", "--max-steps", "3")
    folders = [f"{n}-{stage.name}" for n, stage in enumerate(plan.stage, 1)] or ["."]
    for folder, part in zip(folders, parts, strict=True):
        run = tmp_path / "runs" / "made" / folder
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        assert events[-1]["step"] == 3
        assert not [event for event in events if event["event"] in ("healed", "warned")]
        averaged = run / "checkpoints" / "step-00000003" / "ema.safetensors"
        assert averaged.exists() is (part.train.ema_decay is not None)


@pytest.mark.slow
def test_pictures_are_learned_by_heart_by_the_recipe_as_it_is_written(autotrain, tmp_path):
    """Six of noise, of which no class can be told but by heart."""
    noise = random.Random(1)
    for name in "ab":
        (tmp_path / "six" / name).mkdir(parents=True)
        for number in range(3):
            picture = Image.frombytes("RGB", (32, 32), noise.randbytes(3 * 32 * 32))
            picture.save(tmp_path / "six" / name / f"{number}.png")
    autotrain("plan", "six", "--recipe", "overfit", "--no-trial", "--no-calibrate",
              "--set", "run.name=six")  # fmt: skip
    autotrain("run", "plan.toml")
    log = (tmp_path / "runs" / "six" / "events.jsonl").read_text()
    events = [json.loads(line) for line in log.splitlines()]
    assert [e["metrics"] for e in events if e["event"] == "evaluated"][-1] == {"accuracy": 1.0}
