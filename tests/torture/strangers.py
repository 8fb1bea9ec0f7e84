"""A person's folder into which strange files come, and what must hold whatever they are."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from commands.house import TASK

SECONDS, BYTES = 1.0, 200 << 20
EACH_WORKER = 0.15  # seconds that a process takes which the plan asks for
CODES = (0, 1, 2, 4)
# Code that a plan may name and nobody trusts: it would leave a mark.
DECOY = "open(__file__ + '.ran', 'w').close()\n"


class Host:
    """The process that forks one for each trial (see host.py)."""

    def __init__(self, folder: Path):
        self.folder, self.usual = folder, {}
        self.log = (folder / "errors").open("w")
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("host.py")], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            env={**os.environ, "TORCHDYNAMO_DISABLE": "1"},
        )  # fmt: skip

    def type(self, *words, cwd, home, **more):
        """What a command line came to."""
        asked = {
            "type": words, "folder": str(cwd), "home": str(home), "out": str(self.folder / "out"),
            "err": str(self.folder / "err"), **more,
        }  # fmt: skip
        self.process.stdin.write(f"{json.dumps(asked)}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, (self.folder / "errors").read_text()
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.log.close()


class Place:
    """The folder, what surrounds it, and two homes: in `home` its code is trusted."""

    def __init__(self, root: Path, host: Host):
        self.host, self.root, self.folder = host, root, root / "mine"
        self.home, self.bare = root / "home", root / "bare"
        for name in ("mine", "home", "bare", "outside", "disk"):
            (root / name).mkdir()
        (self.folder / "task.py").write_text(TASK)
        (self.folder / "linked").symlink_to(root / "disk")
        for name in ("decoy.py", "stranger.py"):
            (self.folder / name).write_text(DECOY)
        (root / "outside" / "decoy.py").write_text(DECOY)
        self.around = self._around()

    def _around(self):
        own = ("mine", "home", "bare", "disk")
        return sorted(
            str(p) for p in self.root.rglob("*") if p.relative_to(self.root).parts[0] not in own
        )

    def type(self, *words, trusted=True, cwd=None, **more):
        home = self.home if trusted else self.bare
        found = self.host.type(*words, cwd=cwd or self.folder, home=home, **more)
        return {**found, "trusted": trusted}

    def usual(self, kind, *words, **more):
        """What a sound input takes, once all that it loads is there: the last one's time and bytes,
        and what any of them leaves the process for.
        """
        found = self.type(*words, learns=True, **more)
        assert found["code"] in (0, 1, 2), found
        strays = self.host.usual.get(kind, {"strays": []})["strays"]
        strays += [each for each in found["strays"] if each not in strays]
        self.host.usual[kind] = {**found, "strays": strays}

    def wrong(self, kind, found):
        """What does not hold that must."""
        said, usual = found["out"] + found["err"], self.host.usual[kind]
        strays = [each for each in found["strays"] if each not in usual["strays"]]
        most = usual["cpu"] + SECONDS + EACH_WORKER * found["forks"]
        odd = {c for c in said if not c.isprintable()} - {*"\n\t\u200c\u200d"}
        told = found["code"] == 0 or "error: " in found["err"]
        faults = {
            f"exit {found['code']}": found["code"] not in CODES,
            "a traceback": "Traceback" in found["err"],
            "no error is told": not told,
            f"wrote outside: {strays}": strays,
            f"loaded {foreign(found)}": foreign(found),
            f"took {found['cpu']:.1f} s": found["cpu"] > most,
            f"took {found['bytes'] >> 20} MiB": found["bytes"] > usual["bytes"] + BYTES,
            f"shows {odd}": odd,
            "files around it": self._around() != self.around,
            "ran what it names": [*self.folder.glob("*.ran")],
        }
        return [fault for fault, holds in faults.items() if holds]


class Tried:
    """What became of many trials: how they ended, and each that was not as it must be."""

    def __init__(self):
        self.codes, self.wrong = Counter(), []

    def see(self, place, kind, found, *about):
        self.codes[kind, found["code"]] += 1
        faults = place.wrong(kind, found)
        if faults:
            self.wrong.append((faults, kind, *about, found["err"][-600:]))

    def insist(self):
        print(dict(sorted(self.codes.items(), key=str)))
        for each in self.wrong:
            print("WRONG", *each, sep=" | ")
        assert not self.wrong, f"{len(self.wrong)} of {self.codes.total()}"


def foreign(found):
    """Of what a trial loaded, what no sound run loads: there, the person's own task."""
    known = {*sys.stdlib_module_names} - {"antigravity", "this", "turtle"} | {
        "autotrain", "torch", "numpy", "fsspec", "safetensors", "tensorboard", "matplotlib",
        "scipy", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "PIL", "soundfile",
        "_soundfile",
    }  # fmt: skip
    names = {name.partition(".")[0] for name in found["loaded"]} - known
    return sorted(
        n for n in names if not (found["trusted"] and n.startswith("autotrain_task_task_"))
    )


@contextmanager
def hosted(folder):
    """A host, and a place for it."""
    for name in ("host", "place"):
        (folder / name).mkdir()
    host = Host(folder / "host")
    try:
        yield Place(folder / "place", host)
    finally:
        host.close()


def reset(folder, plan=None):
    """As it was before a trial."""
    for name in ("runs", "plan.toml"):
        place = folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.name not in ("task.py", "linked", "decoy.py", "stranger.py"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if plan is not None:
        (folder / "plan.toml").write_bytes(plan)
