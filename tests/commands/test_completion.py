"""TAB: what is offered where, by whom, and that real shells take it."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest
import typer

from autotrain.cli import app
from autotrain.commands.completion import candidates, completion, offer
from autotrain.errors import UsageError
from autotrain.report.meanings import MEANINGS
from autotrain.schema import setting_types

ROOT = typer.main.get_command(app)


def offered(line):
    """For a line's last word; `_` stands for one that is not begun."""
    words = ["" if word == "_" else word for word in line.split()]
    return [each.word for each in candidates(words, ROOT)]


def test_commands_and_what_is_below_them():
    assert {"plan", "run", "bench", "completion"} <= set(offered("_"))
    assert offered("be") == ["bench"]
    assert {"cpu-vs-gpu", "memory", "loop", "data", "choice"} == set(offered("bench _"))
    assert offered("nonsense _") == []


def test_options_of_the_command_that_stands_there():
    assert offered("plan --meas") == ["--measure-noise"]
    assert offered("run --meas") == []
    assert "--no-trial" in offered("plan --no")
    assert "--help" in offered("bench cpu-vs-gpu --")
    assert "--json" not in offered("plan --json --no-trial --")
    assert "--set" in offered("plan --set train.epochs=2 --")


def test_names_that_an_option_may_have():
    assert "speech-autoencoder" in offered("plan --template _")
    assert offered("plan --machine t4") == ["t4-16gb"]
    assert offered("bench cpu-vs-gpu --machine l4-") == ["l4-24gb"]
    assert offered("plan --recipe cons") == ["conservative"]
    assert offered("plan --machine=t4") == ["--machine=t4-16gb"]
    assert offered("plan --compare here,t4-16gb,rtx-4090") == ["here,t4-16gb,rtx-4090-24gb"]
    assert "t4-16gb," not in offered("plan --compare t4-16gb,t4")
    assert offered("bench cpu-vs-gpu --price here") == ["here="]
    assert offered("plan --price _") == []
    assert offered("completion _") == ["bash", "zsh", "fish"]


def test_ones_own_recipes_are_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTRAIN_HOME", str(tmp_path))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.toml").write_text("")
    assert offered("plan --recipe mi") == ["mine"]


def test_plan_keys_and_what_they_may_be():
    assert offered("plan --set batch.mi") == ["batch.micro_batch="]
    assert offered("plan --set precision.dtype=b") == ["precision.dtype=bf16"]
    assert offered("plan --set device.kind=m") == ["device.kind=mps"]
    assert {"model.compile=true", "model.compile=false"} < set(offered("plan --set model.compile="))
    assert "optimizer.clip_norm=off" in offered("plan --set optimizer.clip_norm=o")
    assert offered("plan --set nonsense=") == []
    assert "batch" in offered("explain plan.toml _")
    assert offered("explain plan.toml batch.mi") == ["batch.micro_batch"]


def test_every_key_that_can_be_set_is_offered_and_no_other():
    keys = {word.rstrip("=") for word in offered("plan --set _")}
    elsewhere = {f"task.{name}" for name in ("template", "file", "sha256", "data", "options")}
    assert keys == set(setting_types()) - elsewhere
    assert keys < set(MEANINGS)


def test_where_a_file_belongs_the_shell_offers_its_own():
    for line in ("run _", "plan _", "plan --task _", "plan -o _", "report _"):
        assert offered(line) == [], line


def test_an_unknown_shell_is_refused_and_a_script_is_printed_for_a_known_one(capsys):
    with pytest.raises(UsageError, match="no completion for 'tcsh'"):
        completion("tcsh")
    assert completion("fish") == 0
    assert "complete -c autotrain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "breaks", "shown"),
    [
        ("autotrain plan --set batch.mi", "=:", ["batch.micro_batch="]),
        ("autotrain plan --set precision.dtype=b", "=:", ["bf16"]),
        ("autotrain plan --set precision.dtype=b", "", ["precision.dtype=bf16"]),
        ("autotrain plan --set precision.dtype=b", ":", ["precision.dtype=bf16"]),
        ("autotrain plan --set 'precision.dtype=b", "=", ["bf16"]),
        ("autotrain plan --template ", "=:", None),
        ("", "=:", [*typer.main.get_command(app).commands]),
    ],
)
def test_bash_gets_what_follows_its_own_break_of_words(line, breaks, shown, capsys):
    assert offer("bash", (line, breaks), ROOT) == 0
    out = capsys.readouterr().out.split()
    assert out == shown if shown is not None else "starter" in out


@pytest.mark.parametrize("words", [["plan", "--"], ["plan", "--set", "batch"], ["bench", ""]])
def test_nothing_heavy_is_loaded_for_it(words):
    code = (
        "import json, sys; sys.argv = ['autotrain', 'completion', 'zsh', '--', *sys.argv[1:]]\n"
        "from autotrain.__main__ import main\n"
        "try: main()\n"
        "finally: print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    heavy = {"torch", "numpy", "pydantic", "rich", "matplotlib", "psutil"}
    assert not heavy & set(json.loads(done.stderr))


# --- real shells ---------------------------------------------------------------------------

STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(autotrain completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(autotrain completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "autotrain completion fish | source"),
}


class Shell:
    """An interactive shell on a terminal of its own, in which `autotrain` notes its arguments."""

    def __init__(self, name, folder):
        command, start = STARTS[name]
        self.noted, self.answered = folder / "arguments", folder / "answered"
        script = folder / "autotrain"
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = completion ]; then\n'
            f'    {sys.executable} -m autotrain "$@"; touch {self.answered}; exit\nfi\n'
            f'for each in "$@"; do echo "$each"; done > {self.noted}.new\n'
            f"mv {self.noted}.new {self.noted}\n"
        )
        script.chmod(0o755)
        places = os.pathsep.join([str(folder), os.environ["PATH"]])
        more = {"PATH": places, "TERM": "xterm", "HOME": str(folder), "ZDOTDIR": str(folder)}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, os.environ | more)
        self.run(f"{start}; autotrain ready")

    def run(self, keys):
        """What autotrain was called with after these keys and Enter."""
        *begun, last = keys.split("\t")
        for part in begun:  # zsh completes nothing while there is more to read
            self._typed(f"{part}\t", self.answered)
            self._heard(0.3)
        self._typed(f"{last}\r", self.noted)
        return self.noted.read_text().split("\n")[:-1]

    def _typed(self, keys, sign):
        """Until that file is there."""
        sign.unlink(missing_ok=True)
        os.write(self.terminal, keys.encode())
        deadline, said = time.monotonic() + 20, ""
        while not sign.exists():
            said += self._heard(0.05)
            assert time.monotonic() < deadline, said

    def _heard(self, seconds):
        """What the shell says until it is silent for so long."""
        said = b""
        while select.select([self.terminal], [], [], seconds)[0]:
            said += os.read(self.terminal, 4096)
        return said.decode(errors="replace")

    def end(self):
        os.close(self.terminal)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@pytest.fixture(scope="module", params=list(STARTS))
def shell(request, tmp_path_factory):
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    made = Shell(request.param, tmp_path_factory.mktemp(request.param))
    (made.noted.parent / "myplan.toml").write_text("")
    yield made
    made.end()


def test_tab_in_a_real_shell(shell):
    assert shell.run("autotrain ben\tcpu\t--mach\tt4\t") == [
        "bench", "cpu-vs-gpu", "--machine", "t4-16gb",
    ]  # fmt: skip
    assert shell.run("autotrain plan --set precision.dt\tbf\t") == [
        "plan", "--set", "precision.dtype=bf16",
    ]  # fmt: skip
    assert shell.run("autotrain run myp\t") == ["run", "myplan.toml"]
