"""`autotrain completion`: what a shell offers when TAB is pressed, and the lines that have it ask.

Commands and options are read off the command line itself, names of templates, machines and recipes
off the files that there are, plan keys off the words that explain them: nothing heavy is loaded.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from autotrain import files
from autotrain.errors import UsageError

BASH = """\
# In ~/.bashrc: eval "$(autotrain completion bash)"
_autotrain_completion() {
    local IFS=$'\\n'
    COMPREPLY=( $("$1" completion bash -- "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" \\
        2> /dev/null) )
    if [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2> /dev/null; fi
}
complete -o default -F _autotrain_completion autotrain
"""
ZSH = """\
#compdef autotrain
# In ~/.zshrc: eval "$(autotrain completion zsh)"
_autotrain() {
    local each
    local -a whole open
    for each in "${(@f)$("${words[1]}" completion zsh -- "${(@)words[2,CURRENT]}" 2> /dev/null)}"
    do
        if [[ ${each%%:*} == *= ]]; then open+=("$each")
        elif [[ -n $each ]]; then whole+=("$each")
        fi
    done
    if (( $#open )); then _describe 'setting' open -S ''; fi
    if (( $#whole )); then _describe 'value' whole; fi
    if (( ! $#open && ! $#whole )); then _files; fi
}
if [[ ${funcstack[1]} == _autotrain ]]; then
    _autotrain "$@"
else
    if (( ! $+functions[compdef] )); then autoload -Uz compinit && compinit; fi
    compdef _autotrain autotrain
fi
"""
FISH = """\
# In ~/.config/fish/config.fish: autotrain completion fish | source
function __autotrain_completion
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    set -l found ($before[1] completion fish -- $before[2..-1] "$word" 2> /dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path "$word"
    end
end
complete -c autotrain -f -a '(__autotrain_completion)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
_NOT_SET = ("predicted.", "task.template", "task.file", "task.sha256", "task.data", "task.options")


class Candidate(NamedTuple):
    """A word that may stand there, and what it means."""

    word: str
    meaning: str = ""


def completion(shell: str) -> int:
    """Print a shell's script."""
    if shell not in SCRIPTS:
        raise UsageError(f"no completion for {shell!r}", hint=f"one of {', '.join(SCRIPTS)}")
    print(SCRIPTS[shell], end="")
    return 0


def offer(shell: str, words: Sequence[str], root: Any) -> int:
    """Print what may stand for the last of the words, a line each. `root`: the command line.

    Bash sends the line as it is typed in place of the words, and what it breaks words at.
    """
    if shell == "bash":
        line, breaks = words[0], "".join(words[1:])
        typed = _split(line)[1:] or [""]
        shown = [_beyond(each.word, typed[-1], breaks) for each in candidates(typed, root)]
    else:
        told = candidates(words, root)
        shown = [_zsh(each) if shell == "zsh" else "\t".join(each) for each in told]
    for each in shown:
        print(each)
    return 0


def _split(line: str) -> list[str]:
    """A line's words, the last one perhaps half typed, or not begun."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=False)
    reader.whitespace_split, reader.commenters = True, ""
    words: list[str] = []
    try:
        words += reader
    except ValueError:  # a quote that is still open
        words.append(reader.token)
    return [*words, ""] if not line or line[-1].isspace() else words


def _beyond(word: str, typed: str, breaks: str) -> str:
    """The part of a word that bash replaces: it takes `key=va` for three words."""
    begun = max(typed.rfind(each) for each in "=:" if each in breaks) if breaks else -1
    return word[begun + 1 :]


def _zsh(each: Candidate) -> str:
    word = each.word.replace(":", "\\:")
    return f"{word}:{each.meaning}" if each.meaning else word


def candidates(words: Sequence[str], root: Any) -> list[Candidate]:
    """What may stand for the last word, after the others."""
    *before, word = words
    command, waiting, place, plain = root, None, 0, False
    used: set[str] = set()
    for each in before:
        if waiting is not None:
            waiting = None
        elif each == "--" and not plain:
            plain = True
        elif each.startswith("-") and not plain:
            flag, equals, _ = each.partition("=")
            found = _options(command).get(flag)
            used |= {flag} if found is not None and not getattr(found, "multiple", False) else set()
            waiting = found if found is not None and not found.is_flag and not equals else None
        elif (below := getattr(command, "commands", None)) is not None:
            command, used = below.get(each), set()
            if command is None:
                return []
        else:
            place += 1
    if waiting is not None:
        return _starting(word, _values(waiting.name, word))
    if word.startswith("-") and not plain:
        return _of_flag(command, word, used)
    if (below := getattr(command, "commands", None)) is not None:
        return _starting(word, (Candidate(n, _first(c.help)) for n, c in below.items()))
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    if place >= len(arguments):
        return []
    return _starting(word, _values(arguments[place].name, word))


def _options(command: Any) -> dict[str, Any]:
    """A command's options by each of their spellings."""
    options = (each for each in command.params if each.param_type_name == "option")
    return {flag: each for each in options for flag in (*each.opts, *each.secondary_opts)}


def _of_flag(command: Any, word: str, used: set[str]) -> list[Candidate]:
    """An option that is begun, or `--option=` and its value."""
    flag, equals, value = word.partition("=")
    known = _options(command)
    if equals:
        found = _values(known[flag].name, value) if flag in known else []
        return [Candidate(f"{flag}={each.word}", each.meaning) for each in _starting(value, found)]
    gone = {other for each in used for other in known[each].opts}
    left = (Candidate(f, _first(p.help)) for f, p in known.items() if f not in gone)
    return _starting(word, (*left, Candidate("--help", "Show what the command does.")))


def _first(text: str | None) -> str:
    """The first line of a help text."""
    return (text or "").strip().partition("\n")[0]


def _starting(word: str, found: Iterable[Candidate]) -> list[Candidate]:
    return [each for each in found if each.word.startswith(word)]


# --- values ---------------------------------------------------------------------------------


def _templates(_: str) -> list[Candidate]:
    return [*map(Candidate, files.shipped_names("templates"))]


def _machines(_: str) -> list[Candidate]:
    return [*map(Candidate, files.shipped_names("profiles"))]


def _recipes(_: str) -> list[Candidate]:
    names = {*files.shipped_names("recipes"), *files.own_names("recipes")}
    return [*map(Candidate, sorted(names))]


def _compared(word: str) -> list[Candidate]:
    """Machines with commas between, none twice."""
    before, comma, _ = word.rpartition(",")
    named = before.split(",")
    names = [name for name in ("here", *files.shipped_names("profiles")) if name not in named]
    return [Candidate(f"{before}{comma}{name}") for name in names]


def _prices(_: str) -> list[Candidate]:
    return [Candidate(f"{name}=") for name in ("here", *files.shipped_names("profiles"))]


def _keys(_: str) -> list[Candidate]:
    """What `explain` has a word on: settings, and their sections."""
    from autotrain.report.meanings import MEANINGS

    sections = dict.fromkeys(key.partition(".")[0] for key in MEANINGS)
    return [*map(Candidate, sections), *(Candidate(k, _short(m)) for k, m in MEANINGS.items())]


def _settings(word: str) -> list[Candidate]:
    """`key=`, and beyond the sign what the key may be."""
    from autotrain.report.meanings import MEANINGS

    key, equals, _ = word.partition("=")
    if equals:
        return [Candidate(f"{key}={value}") for value in _choices(key)]
    keys = (key for key in MEANINGS if not key.startswith(_NOT_SET))
    return [Candidate(f"{key}=", _short(MEANINGS[key])) for key in keys]


def _short(meaning: str) -> str:
    """Its first sentence."""
    return meaning.partition(". ")[0].rstrip(".")


def _choices(key: str) -> list[str]:
    """The words that a setting may be, where they can be listed."""
    from autotrain.schema import setting_types

    annotation = setting_types().get(key)
    if annotation is None:
        return []
    off = ["off"] if type(None) in _parts(annotation) else []
    return [*_words(annotation), *off, "auto"]


def _parts(annotation: Any) -> tuple[Any, ...]:
    """What a union or an annotated type is made of."""
    if get_origin(annotation) is Literal:
        return (annotation,)
    inner = get_args(annotation)
    return (annotation, *(part for each in inner for part in _parts(each)))


def _words(annotation: Any) -> list[str]:
    parts = _parts(annotation)
    words = [str(w) for part in parts if get_origin(part) is Literal for w in get_args(part)]
    return words + (["true", "false"] if bool in parts else [])


def _shells(_: str) -> list[Candidate]:
    return [*map(Candidate, SCRIPTS)]


# By the name of an option or argument in `cli`. For all others shells offer files.
_VALUES: dict[str, Callable[[str], list[Candidate]]] = {
    "template": _templates,
    "machine": _machines,
    "machines": _machines,
    "compare": _compared,
    "recipe": _recipes,
    "settings": _settings,
    "prices": _prices,
    "key": _keys,
    "shell": _shells,
}


def _values(name: str, word: str) -> list[Candidate]:
    found = _VALUES.get(name)
    return found(word) if found is not None else []
