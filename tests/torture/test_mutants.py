"""What a stranger sends is data: one clear line, no import, nothing written outside, and soon."""

import hashlib
import json
import shutil
import tomllib

import pytest
import tomli_w
import torch

from autotrain.run.keeping import checkpoint
from autotrain.run.keeping.checkpoint import Snapshot
from autotrain.run.keeping.tensors import Flat

from . import mutants
from .strangers import Tried, hosted, reset

PLAN = (
    "plan", "--task", "task.py", "--no-calibrate", "--set", "train.epochs=2",
    "--set", "batch.micro_batch=8", "--set", "device.threads=1", "--set", "precision.dtype=fp32",
)  # fmt: skip
STAGES = ("--stage", "first:train.epochs=1", "--stage", "then:optimizer.lr=0.001")
# What is typed, how often among a hundred, and whether the code is trusted there.
WAYS = {
    "explain": (28, True, ("explain", "plan.toml")),
    "explain one": (6, True, ("explain", "plan.toml", "batch.micro_batch")),
    "run untrusted": (12, False, ("run", "plan.toml", "--max-steps", "1")),
    "run": (20, True, ("run", "plan.toml", "--max-steps", "1")),
    "run as json": (4, True, ("run", "plan.toml", "--max-steps", "1", "--json", "--fresh")),
    "resume": (10, True, ("run", "plan.toml", "--max-steps", "2", "--resume")),
    "refresh": (2, True, ("plan", "--refresh", "plan.toml", "--no-calibrate")),
    "refresh untrusted": (6, False, ("plan", "--refresh", "plan.toml")),
    "verify": (4, False, ("verify", "plan.toml")),
    "report": (8, True, ("report", "runs/mine")),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder, its plans with and without stages, and a run of one step, by the real thing."""
    with hosted(tmp_path_factory.mktemp("strangers")) as made:
        for name, more in (("staged", STAGES), ("alone", ())):
            said = made.type(*PLAN, *more)
            assert said["code"] == 0, said
            made.__dict__[name] = (made.folder / "plan.toml").read_text()
        said = made.type("run", "plan.toml", "--max-steps", "1", learns=True)
        assert said["code"] == 0, said
        made.runs = made.root / "home" / "runs"
        shutil.copytree(made.folder / "runs", made.runs)
        for kind, (_, trusted, words) in WAYS.items():
            for text in (with_workers(made.alone), made.alone, made.staged):
                prepare(made, kind, text.encode())
                made.usual(kind, *words, trusted=trusted)
        yield made


def prepare(place, kind, plan):
    reset(place.folder, plan)
    if kind in ("resume", "report", "run as json"):
        shutil.copytree(place.runs, place.folder / "runs")
    if kind == "report":
        (place.folder / "runs/mine/plan.toml").write_bytes(plan)


def test_mutated_plans(place, dice, times):
    """Settings dropped, doubled, renamed, of other types and sizes; lines and bytes damaged."""
    tried = Tried()
    texts = [place.alone, place.alone, amended(place.alone), place.staged]
    for number in range(10 * times):
        kind = dice.choices([*WAYS], [share for share, *_ in WAYS.values()])[0]
        _, trusted, words = WAYS[kind]
        plan, done = mutants.plan(dice, dice.choice(texts))
        prepare(place, kind, plan)
        found = place.type(*words, trusted=trusted)
        tried.see(place, kind, found, number, done)
    tried.insist()


def amended(text):
    """The plan after a run has cut its micro-batches finer."""
    tree = tomllib.loads(text)
    change = {"step": 3, "key": "batch.split", "before": 1, "after": 2, "why": "out of memory"}
    return tomli_w.dumps({**tree, "amendments": [change]})


def with_workers(text, workers=2):
    """The plan whose samples come from processes of their own."""
    tree = tomllib.loads(text)
    return tomli_w.dumps({**tree, "loader": {**tree["loader"], "workers": workers}})


def small(step, size=2):
    """A checkpoint of a few tensors."""
    numbers = torch.arange(float(size))
    tensors = {"w": numbers, "b": numbers[:1]}
    rest = {"state": {}, "param_groups": [{"params": [0, 1]}]}
    return Snapshot(step, Flat(tensors, {}, {}), Flat({"0.s": numbers}, {}, rest), {"n": 1}, None)


def insist_found(directory, name, *about):
    """The one before is used, and of the newer one the file that is wrong is named."""
    path, torn = checkpoint.newest_good(directory)
    assert path == checkpoint.folder(directory, 1), (name, *about)
    wrong = "" if name == "manifest.json" else name  # of its lies, the file it lies about is named
    assert [f"step-00000002/{wrong}" in error.message for error in torn] == [True], (torn, *about)


def test_every_byte_of_a_checkpoint(dice, tmp_path):
    """Flipped, each by itself: it is found, the file is named, the one before is used."""
    for step in (1, 2):
        path = checkpoint.save(tmp_path, small(step))
    flips = 0
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for place in range(len(whole)):
            flip = 1 << dice.randrange(8) if dice.random() < 0.5 else dice.randint(1, 255)
            made = whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]
            file.write_bytes(made)
            insist_found(tmp_path, file.name, place, flip)
            flips += 1
        file.write_bytes(whole)
    print(f"{flips} bytes")
    assert checkpoint.newest_good(tmp_path)[0] == path


def test_flips_and_truncations_of_a_larger_checkpoint(dice, times, tmp_path):
    """Anywhere: found, the file named, the one before used."""
    checkpoint.save(tmp_path, small(1))
    path = checkpoint.save(tmp_path, small(2, size=100_000))
    contents = {file: file.read_bytes() for file in sorted(path.iterdir())}
    for _ in range(10 * times):
        file = dice.choice([*contents])
        whole = contents[file]
        place = dice.randrange(len(whole))
        if dice.random() < 0.3:
            file.write_bytes(whole[:place])
        else:
            changed = bytes([whole[place] ^ dice.randint(1, 255)])
            file.write_bytes(whole[:place] + changed + whole[place + 1 :])
        insist_found(tmp_path, file.name, place)
        file.write_bytes(whole)


def lie(path):
    """Make a checkpoint's manifest say what its files are now."""
    place = path / "manifest.json"
    manifest = json.loads(place.read_bytes())
    for name in manifest["files"]:
        raw = (path / name).read_bytes()
        sha256 = hashlib.sha256(raw).hexdigest()
        manifest["files"][name] = {"bytes": len(raw), "sha256": sha256}
    place.write_text(json.dumps(manifest, indent=1))


FILES = {
    "state.json": 50, "optimizer.safetensors": 18, "model.safetensors": 14, "manifest.json": 6,
    "latest": 3, "best": 3, "events.jsonl": 6,
}  # fmt: skip
RESUME = ("run", "plan.toml", "--max-steps", "4", "--resume")


def spoil(dice, run, name):
    """Change that file of a run as a stranger may, whose manifest is right; what was done."""
    points = run / "checkpoints"
    path = {"events.jsonl": run / name}.get(name, points / name)
    newest = checkpoint.folder(run, max(checkpoint.steps(run)))
    if name in ("latest", "best"):
        said = dice.choice([*mutants.TEXTS, "step-" + "9" * 90, "step-\u0661" * 8, "step-99999999"])
        path.write_bytes(said.encode(errors="surrogatepass"))
        return said[:40]
    if name == "events.jsonl":
        rows, done = path.read_bytes().splitlines(), []
        for place in dice.sample(range(len(rows)), dice.choice((1, 3))):
            rows[place], told = mutants.document(dice, json.loads(rows[place]))
            done.append(told)
        path.write_bytes(b"\n".join(rows) + b"\n")
        return "; ".join(done)
    path = newest / name
    if name.endswith("json"):
        made, done = mutants.document(dice, json.loads(path.read_bytes()))
    else:
        made, done = mutants.tensors(dice, path.read_bytes())
    path.write_bytes(made)
    if name != "manifest.json":
        lie(newest)
    return done


def test_checkpoints_that_lie(place, dice, times):
    """Whose manifest is right and whose content is a stranger's: passed over, or told by name."""
    tried = Tried()
    prepare(place, "run", place.alone.encode())
    for steps in ("2", "3"):
        assert place.type("run", "plan.toml", "--max-steps", steps, "--resume")["code"] == 0
    whole = place.root / "home" / "whole"
    shutil.copytree(place.folder / "runs", whole)
    for _ in range(2):
        reset(place.folder, place.alone.encode())
        shutil.copytree(whole, place.folder / "runs")
        place.usual("resumed", *RESUME)
    for number in range(10 * times):
        reset(place.folder, place.alone.encode())
        shutil.copytree(whole, place.folder / "runs")
        run = place.folder / "runs/mine"
        name = dice.choices([*FILES], [*FILES.values()])[0]
        if dice.random() < 0.5:  # there is none to go back to
            shutil.rmtree(checkpoint.folder(run, 2))
        done = spoil(dice, run, name)
        words = ("report", "runs/mine") if name == "events.jsonl" and number % 2 else RESUME
        found = place.type(*words)
        tried.see(place, "resumed", found, number, name, done)
        if found["code"] and "step-0000" not in found["err"] and words == RESUME:
            tried.wrong.append(("it is not named", name, done, found["err"][-600:]))
    tried.insist()
