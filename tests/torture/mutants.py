"""Plans and checkpoints as strangers may send them: a grammar of damage, driven by dice."""

import copy
import json
import re
import tomllib
from datetime import date, datetime, time

import tomli_w

NUMBERS = [
    0, 1, -1, 2, 3, 7, 255, 4096, 1 << 31, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63), 1 << 64,
    10**400, -(10**30), float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324, 0.0, -0.0,
    0.5, 1.5, 1e-300,
]  # fmt: skip
TEXTS = [
    "", " ", "off", "auto", "none", "true", "1", "nan", "x" * 300, "x" * 60_000, "y " * 30_000,
    "z" * 200_000, "\x00", "a\x00b", "\x1b[2J\x1b]0;owned\x07", "\u202egnp.exe", "a\nb\r\nc",
    "\ufeff", "\U0001f4a9" * 40, "e\u0301" * 50, "../outside", "../../outside/x",
    "runs/../../outside",
    "/etc/passwd", "/proc/self/mem", "/dev/full", "//outside", "~", "~/outside", "~root/x",
    "${HOME}/outside", "$HOME", "%(HOME)s", "%HOME%", "%s%n", "{run.name}", "{0.__class__}",
    "{{7*7}}", "$(touch ../outside/x)", "`touch ../outside/x`", "; touch ../outside/x", "@decoy",
    "decoy", "decoy:main", "decoy.main", "os:system", "torch.nn:Module", "decoy.py", "pkg://decoy",
    "python://decoy", "linked/run", "linked/../../outside", "CON", "con.toml", "C:\\outside",
    "\\\\host\\share", ".", "..", "...", "-rf", "--trust", "task.py", "task.py/x", "plan.toml",
    "runs", "step-00000001",
    "*" * 50 + "b", "[" * 40, "(a+)+$", "1979-05-27", "null",
    "file:///outside", "file://../outside", "local://outside", "simplecache::file:///outside",
    "filecache::http://127.0.0.1:9/x", "zip://x::file:///outside.zip", "tar://a::file:///b",
    "memory://x", "dir::file:///outside", "reference://::file:///x", "data:;base64,AAAA",
    "http://127.0.0.1:9/x", "ftp://127.0.0.1:9/x", "s3://b/x", "gs://b/x", "sftp://127.0.0.1:9/x",
    "github://a:b@c/", "smb://h/s", "::", "://", "a://b://c", "s3:/b", "jlab://x", "root://x",
]  # fmt: skip
OTHERS = [
    True, False, [], {}, [[]], [{}], {"": ""}, [1, "a", 2.5], {"value": 1}, [None],
    date(1979, 5, 27), datetime(1979, 5, 27, 7, 32), time(7, 32), ["x"] * 2000, [0] * 25_000,
    {str(number): number for number in range(2000)}, {"__class__": "os.system"}, {"$ref": "decoy"},
    {"_target_": "decoy.main"}, {"py/object": "decoy.Main"},
]  # fmt: skip


# What is sound in some place of a plan.
WORDS = [
    "adam", "sgd", "adagrad", "rprop", "nadam", "cosine", "plateau", "exponential", "constant",
    "cosine_restarts", "inverse_sqrt", "bf16", "fp16", "tf32", "cuda", "mps", "rocm", "shard",
    "each", "channels_last", "foreach", "for-loop", "matrices", "all", "ram", "device",
    "forkserver",
    "user", "batch.split", "precision.dtype", "optimizer.lr", "first", "then", "best", "latest",
    "laptop",
    "speech-autoencoder", "image-classifier", "overfit", "finetune", "task.py", "runs/mine", "*",
]  # fmt: skip


def like(dice, held):
    """Something of the kind that stands there."""
    if isinstance(held, bool):
        return not held
    if isinstance(held, int):
        found = [number for number in NUMBERS if isinstance(number, int) and 0 <= number < 1 << 63]
        return dice.choice((*found, held + 1, max(held - 1, 0), 2 * held))
    if isinstance(held, float):
        return dice.choice(
            [number for number in NUMBERS if number == number] + [held * 2, held / 3]
        )
    if isinstance(held, str):
        return dice.choice(TEXTS if dice.random() < 0.6 else WORDS)
    if isinstance(held, list):
        return [copy.deepcopy(each) for _ in range(dice.choice((0, 2, 5))) for each in held]
    return value(dice)


def value(dice):
    """Anything that TOML, or JSON where a date is a text, can hold."""
    pool = dice.choice((NUMBERS, NUMBERS, TEXTS, TEXTS, OTHERS))
    found = copy.deepcopy(dice.choice(pool))
    if dice.random() < 0.03:
        for _ in range(dice.choice((5, 29, 60))):
            found = [found] if dice.random() < 0.5 else {"a": found}
    return found


def places(tree, path=()):
    """Every place in a tree, as the keys that lead there."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, held in inner:
        yield (*path, key)
        if isinstance(held, dict | list):
            yield from places(held, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def damage(dice, tree):
    """Change one thing in a tree; returns what was done, in words."""
    every = list(places(tree))
    if not every:
        return "nothing left"
    # Most of a plan are reasons: settings are to be hit as often.
    shallow = [path for path in every if path[0] != "because"]
    path = dice.choice(shallow if shallow and dice.random() < 0.7 else every)
    owner, key = at(tree, path[:-1]), path[-1]
    what = dice.choice(("like",) * 9 + ("value", "value", "value", "drop", "rename", "swap", "copy",
                        "wrap", "many", "number"))  # fmt: skip
    if what == "drop":
        del owner[key]
    elif what == "rename" and isinstance(owner, dict):
        owner[dice.choice((f"{key}x", str(key)[:-1], str(key).upper(), dice.choice(TEXTS)))] = (
            owner.pop(key)
        )
    elif what == "swap":
        other = dice.choice(every)
        if path[: len(other)] != other and other[: len(path)] != path:
            there = at(tree, other[:-1])
            owner[key], there[other[-1]] = there[other[-1]], owner[key]
    elif what == "copy":
        target = at(tree, dice.choice(every)[:-1])
        held = copy.deepcopy(owner[key])
        if isinstance(target, dict):
            target[str(key)] = held
        else:
            target.append(held)
    elif what == "like":
        owner[key] = like(dice, owner[key])
    elif what == "wrap":
        owner[key] = [owner[key]] if dice.random() < 0.5 else {str(key): owner[key]}
    elif what == "many":
        many = dice.choice((2, 3, 33, 300, 3000))
        owner[key] = [copy.deepcopy(owner[key]) for _ in range(many)]
    elif what == "number" and isinstance(owner[key], int | float):
        owner[key] = owner[key] * dice.choice((-1, 0, 2, 0.5, 1000, 1 << 40))
    else:
        what = "value"
        owner[key] = value(dice)
    return f"{what} {'.'.join(map(str, path))[:120]}"


def unmade(held):
    """Without what TOML has no word for."""
    if isinstance(held, dict):
        return {str(key): unmade(inner) for key, inner in held.items() if inner is not None}
    if isinstance(held, list | tuple):
        return [unmade(inner) for inner in held if inner is not None]
    return held


def plan(dice, text):
    """A mutated plan file, and what was done to it."""
    way = dice.random()
    if way < 0.7:
        tree, done = tomllib.loads(text), []
        for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
            done.append(damage(dice, tree))
        return tomli_w.dumps(unmade(tree)).encode(), "; ".join(done)
    if way < 0.85:
        return lines(dice, text)
    return flipped(dice, text.encode())


def lines(dice, text):
    """Lines doubled, dropped, swapped, or written as nobody would."""
    rows, done = text.split("\n"), []
    for _ in range(dice.choice((1, 2, 5))):
        place, what = dice.randrange(len(rows)), dice.choice(("double", "drop", "swap", "strange"))
        if what == "double":
            rows.insert(dice.randrange(len(rows)), rows[place])
        elif what == "drop":
            del rows[place]
        elif what == "swap":
            other = dice.randrange(len(rows))
            rows[place], rows[other] = rows[other], rows[place]
        else:
            rows.insert(place, strange(dice))
        done.append(f"{what} line {place}")
    return "\n".join(rows).encode(errors="surrogatepass"), "; ".join(done)


def strange(dice):
    """A line that is no such thing, or too much of it."""
    many = dice.choice((10, 40, 3000, 200_000))
    made = [
        "[" * many, "a = " + "[" * many + "]" * many, "a = " + "{a=" * many, "a." * many + "a = 1",
        "[" + "a." * many + "a]", "[[stage]]\n" * many, '[[stage]]\nname = "x"\n' * many,
        "[[amendments]]\n" * many, "a = 0x" + "f" * many, "a = " + "9" * many, "a = 1e" + "9" * 99,
        'a = """' + '"' * many, "a = '''", "\ufeff", "\x00", "\x7f", "a = 'b\x00'",
        "a = \"\\uD800\"", "\udcff", "a = 1\r", "include = '/etc/passwd'", "<<<<<<< HEAD",
        "!!python/object:os.system",
        "k = 1\n" * many, "".join(f"k{n} = 1\n" for n in range(min(many, 60_000))),
        "".join(f"[t{n}]\n" for n in range(min(many, 60_000))), "#" * many, "\n" * many,
    ]  # fmt: skip
    return dice.choice(made)


def flipped(dice, raw):
    """Bytes flipped, cut off, put in, or repeated."""
    raw, done = bytearray(raw), []
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        place = dice.randrange(len(raw)) if raw else 0
        what = dice.choice(("flip", "flip", "flip", "cut", "insert", "zero"))
        if what == "flip" and raw:
            raw[place] ^= 1 << dice.randrange(8)
        elif what == "cut" and dice.random() < 0.3:
            del raw[place:]
        elif what == "insert":
            raw[place:place] = dice.randbytes(dice.choice((1, 4, 100)))
        else:
            raw[place : place + 16] = bytes(16)
        done.append(f"{what} {place}")
    return bytes(raw), "; ".join(done)


def document(dice, tree):
    """Mutated JSON of a tree, and what was done to it."""
    tree, done = copy.deepcopy(tree), []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        done.append(damage(dice, tree))
    raw = json.dumps(tree, default=str)
    way = dice.random()
    if way < 0.04:
        place = dice.choice([found.end() for found in re.finditer(":", raw)] or [0])
        many = dice.choice((100, 900, 200_000))
        raw = raw[:place] + dice.choice(("[" * many, '{"a":' * many, "[" * 900 + "]" * 900 + ","))
        done.append("deep")
    elif way < 0.08:
        place = dice.choice([found.end() for found in re.finditer(":", raw)] or [0])
        most = dice.choice(
            ("1e999999", "-Infinity", "9" * 5000, "-" + "9" * 4000, "\\u0000", "0x1")
        )
        raw = raw[:place] + most + "," + raw[place:]
        done.append("number")
    elif way < 0.1:
        raw = raw[:-1] + "," + raw[1:]
        done.append("doubled keys")
    elif way < 0.14:
        made, said = flipped(dice, raw.encode())
        return made, f"{'; '.join(done)}; {said}"
    return raw.encode(errors="surrogatepass"), "; ".join(done)


def tensors(dice, raw):
    """Mutated safetensors: mostly their header, which then has the length that it says."""
    if dice.random() < 0.25 or len(raw) < 10:
        return flipped(dice, raw)
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    name = dice.choice([*header])
    what = dice.choice(("tree", "shape", "offsets", "dtype", "name", "length", "many", "body",
                        "fits", "values"))  # fmt: skip
    if what == "shape":
        header[name]["shape"] = dice.choice((
            [], [0], [-1], [1 << 62, 4], [1 << 63], [0, 1 << 62], [1 << 32, 1 << 32], [1] * 200,
            [10**30], "2", [2.0], None,
        ))  # fmt: skip
    elif what == "offsets":
        header[name]["data_offsets"] = dice.choice((
            [0, 0], [0, 1 << 63], [-8, 0], [8, 0], [len(body), 2 * len(body)], [0], [0, len(body)],
        ))  # fmt: skip
    elif what == "dtype":
        header[name]["dtype"] = dice.choice(
            ("F64", "F16", "I64", "U8", "BOOL", "F8_E8M0", "F4", "C64", "Q4", "", 7, "object")
        )
    elif what == "name":
        header[dice.choice(TEXTS)] = header.pop(name)
    elif what == "many":
        empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
        many = dice.choice((10, 1000, 60_000))
        header |= {f"{number}.exp_avg": empty for number in range(many)}
    elif what == "body":
        body = body[: dice.randrange(len(body) + 1)] + dice.randbytes(dice.choice((0, 1, 1000)))
    elif what == "fits":  # a sound file of another shape: all in one tensor, or a flat one
        held = header[name]
        first, last = held["data_offsets"]
        held["dtype"], held["shape"] = dice.choice(
            (("U8", [last - first]), ("I8", [1, last - first]))
        )
    elif what == "values":
        kind = dice.choice((b"\xff", b"\x00", b"\x7f"))
        body = kind * len(body)
    else:
        made, said = document(dice, header)
        return len(made).to_bytes(8, "little") + made + body, f"{what} {said}"
    made = json.dumps(header).encode(errors="surrogatepass")
    said = length if what != "length" else dice.choice((0, 1, 1 << 40, (1 << 64) - 1, len(raw)))
    size = len(made) if what != "length" else said
    return size.to_bytes(8, "little") + made + body, f"{what} of {name}"
