"""What was trained by a template is used where its data is gone, has grown, or has other names."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from commands.house import typist

from autotrain.__main__ import main
from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.corpus.espeak import is_here
from autotrain.commands.opened import Wanted, open_run
from autotrain.files import shipped
from autotrain.report import figures
from autotrain.task import load_module

from .test_image_classifier import write

LITTLE = (
    "--no-trial", "--no-calibrate", "--set", "run.name=mine", "--set", "device.threads=1",
    "--set", "batch.micro_batch=2", "--set", "batch.accum_steps=1", "--set", "train.epochs=1",
    "--set", "precision.dtype=fp32", "--set", "loader.workers=0",
)  # fmt: skip
SMALL = {
    "image-classifier": {"size": 32},
    "sign-ctc": {"width": 16},
    "hybrid-stt": {"width": 16, "heads": 2, "blocks": 1, "layers": 1, "kernel": 3, "units": 60},
    "fastspeech2-tts": {
        "width": 16, "inner": 32, "encoder_blocks": 1, "decoder_blocks": 1, "max_seconds": 10
    },
    "speech-autoencoder": {"width": 16, "latent": 8},
}  # fmt: skip
STAGE = {"sign-ctc": ["--stage", "teacher"], "hybrid-stt": ["--stage", "joint"]}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def quick(home, monkeypatch):
    """One home for all, and no picture of a tiny run."""
    monkeypatch.setenv("AUTOTRAIN_HOME", str(home))
    monkeypatch.setenv("AUTOTRAIN_BUSY", "ignore")
    monkeypatch.setattr(figures, "png", lambda result, plan: b"\x89PNG, nearly")


@pytest.fixture
def at(capsys, monkeypatch):
    """The command line in this process."""
    return typist(capsys, monkeypatch)


def corpus(folder):
    """Six clips of one speaker for training; copies of two are for validation, and of one for the
    test: what a held-out clip has is known."""
    (folder / "wavs").mkdir(parents=True)
    lines = (SHIPPED / "metadata.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[:3] for line in lines[:6]]
    parts = [*((row, row[0], "train") for row in rows), (rows[0], "v0", "valid")]
    parts += [(rows[1], "v1", "valid"), (rows[2], "t0", "test")]
    for row, name, _ in parts:
        for path in (SHIPPED / "wavs").glob(f"{row[0]}.*"):
            shutil.copy(path, folder / "wavs" / path.name.replace(row[0], name))
    table = [f"{name}|{text}|{norm}|en-us|{part}\n" for (_, text, norm), name, part in parts]
    (folder / "metadata.csv").write_text("".join(table), encoding="utf-8")


def written(template, folder):
    """Data for a template, and an input for its `predict`."""
    if template == "image-classifier":
        for split, each in (("train", 4), ("valid", 2), ("test", 2)):
            write(folder / split, each=each)
        return "data/test/b/00.png"
    if template == "sign-ctc":
        module = load_module(shipped("templates") / template / "make_signs.py")
        module.write(folder, signers=6, sentences=2)
        return sorted(folder.glob("*.npz"))[0]
    if template == "speech-autoencoder":
        shutil.copytree(shipped("templates") / template / "clips" / "wavs", folder)
        for path in sorted(folder.iterdir())[6:]:
            path.unlink()
        return sorted(folder.iterdir())[0]
    corpus(folder)
    if template == "fastspeech2-tts":
        return "The broken white violin."
    return sorted((folder / "wavs").glob("*.flac"))[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, home):
    """template -> a folder with data, a run of two steps on it, and an input: made once."""
    made = {}

    def of(template):
        if template in made:
            return made[template]
        folder = tmp_path_factory.mktemp(template)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("AUTOTRAIN_HOME", str(home))
            given = written(template, Path("data"))
            options = [f"task.{name}={value}" for name, value in SMALL[template].items()]
            more = [word for each in options for word in ("--set", each)] + STAGE.get(template, [])
            for words in (
                ["plan", "data", "--template", template, *LITTLE, *more],
                ["run", "plan.toml", "--max-steps", "2", "--json"],
            ):
                patch.setattr(sys, "argv", ["autotrain", *words])
                with pytest.raises(SystemExit) as end:
                    main()
                assert end.value.code == 0
        made[template] = folder, given
        return made[template]

    return of


@pytest.fixture
def used(trained, tmp_path, monkeypatch):
    """template -> an input: the test works in a copy of that folder, to spoil."""

    def copied(template):
        folder, given = trained(template)
        shutil.copytree(folder, tmp_path / "copy")
        # Where the data was when it was trained there is nothing on another machine.
        for plan in (tmp_path / "copy/runs/mine").rglob("plan.toml"):
            plan.write_text(plan.read_text().replace(str(folder), str(tmp_path / "copy")))
        monkeypatch.chdir(tmp_path / "copy")
        shutil.copytree("data", "elsewhere")
        return str(given).replace("data/", "elsewhere/")

    return copied


def answer(at, given):
    said = at("predict", "runs/mine", given, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


@pytest.mark.parametrize("template", SMALL)
def test_a_copied_run_answers_and_is_exported_where_its_data_is_gone(used, at, template):
    given = used(template)
    before = answer(at, given)
    shutil.rmtree("data")
    after = answer(at, given)
    names = {"wav", "picture"}
    assert {k: v for k, v in after.items() if k not in names} == {
        k: v for k, v in before.items() if k not in names
    }
    said = at("export", "runs/mine", "--to", "state-dict", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["checked"]["invented"] is True
    said = at("evaluate", "runs/mine")
    assert said.code == 1
    assert "data: no such folder" in said.err


def evaluated(at, split):
    said = at("evaluate", "runs/mine", "--split", split, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    return {key: found[key] for key in ("loss", "metrics", "samples")}


def of_others(template):
    """The files of the data that are not for the test."""
    if template == "image-classifier":
        return [*Path("data/train").rglob("*.png"), *Path("data/valid").rglob("*.png")]
    if template == "sign-ctc":
        lines = next(Path("data").glob("*.csv")).read_text().splitlines()[1:]
        return [Path("data") / line.split(",")[0] for line in lines if not line.endswith(",test")]
    return [*Path("data/wavs").glob("0*.*"), *Path("data/wavs").glob("v*.*")]


@pytest.mark.parametrize("template", ["image-classifier", "sign-ctc", "hybrid-stt"])
def test_the_files_of_other_splits_may_be_gone(used, at, template):
    used(template)
    before = evaluated(at, "test")
    others = of_others(template)
    assert others
    for path in others:
        path.unlink()
    assert evaluated(at, "test") == before


def test_the_runs_own_figures_come_again_from_what_was_kept(used, at):
    used("hybrid-stt")
    lines = next(Path("runs/mine").rglob("events.jsonl")).read_text().splitlines()
    told = [event for line in lines if (event := json.loads(line))["event"] == "evaluated"][-1]
    found = evaluated(at, "valid")
    assert (found["loss"], found["metrics"]) == (told["loss"], told["metrics"])


def test_classes_that_came_later_are_named_and_change_no_answer(used, at, caplog):
    given = used("image-classifier")
    before, said = answer(at, given), evaluated(at, "test")
    for split in ("train", "valid", "test"):
        shutil.copytree(f"data/{split}/b", f"data/{split}/aardvark")  # it would be the first
    assert answer(at, given) == before
    assert evaluated(at, "test") == said
    assert "left out: aardvark: not among the classes of the model" in caplog.text


def test_a_resume_with_other_classes_names_them(used, at):
    used("image-classifier")
    for split in ("train", "valid", "test"):
        Path(f"data/{split}/a").rename(f"data/{split}/zebra")  # as many, in another order
    said = at("run", "plan.toml", "--resume")
    assert said.code == 1
    assert "classes: 'zebra' new and 'a' gone" in said.err


def test_a_letter_that_came_later_is_named(used, at, caplog):
    used("hybrid-stt")
    table = Path("data/metadata.csv")
    rows = table.read_text(encoding="utf-8").splitlines()
    changed = [
        row.replace("|Please", "|Žyx please") if row.startswith("v0") else row for row in rows
    ]
    table.write_text("\n".join(changed) + "\n", encoding="utf-8")
    assert evaluated(at, "valid")["samples"] == 1
    assert "v0.flac: not among the" in caplog.text
    assert "'ž'" in caplog.text


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning")
def test_what_is_exported_of_a_speaker_speaks(used, at):
    """Of unit ids alone, at lengths it was not traced at, as the model itself does."""
    used("fastspeech2-tts")
    shutil.rmtree("data")
    said = at("export", "runs/mine", "--to", "torchscript", "-o", "voice.ts")
    assert said.code == 0, said.err
    assert "phonemes [batch, length] int64" in said.out
    extra = {"facts": ""}
    voice = torch.jit.load("voice.ts", _extra_files=extra)
    assert len(json.loads(extra["facts"])["phonemes"]) > 20
    model = open_run(Wanted("runs/mine", device="cpu")).load().model
    wish = sys.modules[type(model).__module__].Wish("")
    given = torch.randint(2, 20, (1, 41)), torch.tensor([41]), torch.tensor([0])
    with torch.no_grad():
        mels, lasts = voice(*given)
        wanted, frames = model.speak(*given, wish)
    assert torch.equal(lasts, frames)
    assert mels.shape == (1, int(frames.sum()), 80)
    assert torch.allclose(mels, wanted, atol=1e-4)


def test_a_long_clip_is_rebuilt_whole(used, at):
    given = Path(used("speech-autoencoder"))
    samples, rate = soundfile.read(given)
    plan = Path("runs/mine/plan.toml")
    plan.write_text(plan.read_text().replace("latent = 8", "latent = 8\nmax_seconds = 0.7"))
    found = answer(at, given)
    rebuilt, its_rate = soundfile.read(found["wav"])
    assert len(rebuilt) / its_rate == pytest.approx(len(samples) / rate, abs=0.03)
    assert len(samples) / rate > 1.4


FORMATS = [
    pytest.param(template, to, marks=pytest.mark.slow)
    for template in SMALL
    for to in ("onnx", "torchscript")
]


@pytest.mark.parametrize(("template", "to"), FORMATS)
def test_each_template_is_exported_to_each_format_without_its_data(used, at, template, to):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    used(template)
    shutil.rmtree("data")
    said = at("export", "runs/mine", "--to", to, "--json")
    assert said.code == 0, said.err
    assert "batch" in str(json.loads(said.out)["inputs"])


def typed(folder, line):
    """A line as a person types it, in the environment of the tests; a plan without its trials."""
    words = shlex.split(line, comments=True)
    if words[0] == "autotrain":
        words[:1] = [sys.executable, "-m", "autotrain"]
        words += ["--no-trial", "--no-calibrate"]
    elif words[0] == "python":
        words[0] = sys.executable
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "template",
    [
        "starter",
        "speech-autoencoder",
        pytest.param("sign-ctc", marks=pytest.mark.slow),
        pytest.param("image-classifier", marks=pytest.mark.slow),
        pytest.param("hybrid-stt", marks=pytest.mark.slow),
        pytest.param("fastspeech2-tts", marks=pytest.mark.slow),
    ],
)
def test_the_lines_that_new_ends_with_can_be_typed(at, tmp_path, monkeypatch, template):
    if template in ("hybrid-stt", "fastspeech2-tts") and not is_here():
        pytest.skip("espeak-ng is not installed")
    monkeypatch.chdir(tmp_path)
    said = at("new", "my own", "--template", template)
    assert said.code == 0
    lines = said.err.rpartition("next: ")[2].splitlines()
    for line in lines:
        done = typed(tmp_path, line.strip())
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "plan.toml").is_file()
