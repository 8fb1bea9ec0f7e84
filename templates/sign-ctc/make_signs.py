"""Writes signed sentences as landmark trajectories: python make_signs.py OUT [--signers N] ...

Needs numpy alone. OUT gets `glosses.csv` (file, glosses, signer, split) and an .npz for each
sentence: `landmarks` [frames, 51, 2], float16, 25 frames a second, x and y in shares of the
picture, 0 and 0 where a landmark was not seen. 9 points of the body, then 21 of the right and of
the left hand, as hand trackers number them. The same arguments always write the same landmarks.

Glosses are combinations of handshape, place, movement, palm and hands, half of them one parameter
from another gloss, as in real lexicons. Signers differ in size, place, tempo, reach and style, and
a quarter of them are left-handed; those of `valid` and `test` are in no other split. Each sign is
pulled towards its neighbours.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# name: (glosses; chance that a sentence has one), in the order of a sentence.
GRAMMAR = {
    "time": ("NOW TODAY TOMORROW YESTERDAY MORNING NIGHT", 0.5),
    "who": ("I YOU MOTHER FATHER FRIEND TEACHER CHILD", 1.0),
    "how": ("BIG SMALL NEW GOOD OLD", 0.35),
    "what": ("BOOK WATER HOUSE CAR SCHOOL BREAD DOG WORK", 0.85),
    "verb": ("GO SEE WANT BUY HELP LEARN GIVE KNOW", 1.0),
    "mark": ("NOT FINISHED QUESTION PLEASE", 0.4),
}
AGAIN = 0.12  # of the verbs are signed twice: something goes on, or happens often
GLOSSES = [word for words, _ in GRAMMAR.values() for word in words.split()]

# In widths of the shoulders from the neck, x to the signer's active side, y downwards.
PLACES = {
    "forehead": (0.15, -0.95), "cheek": (0.35, -0.65), "chin": (0.05, -0.45),
    "chest": (0.1, 0.35), "shoulder": (0.5, 0.0), "front": (0.35, 0.55), "side": (0.85, 0.2),
    "low": (0.45, 0.95),
}  # fmt: skip
# Curl of thumb to little finger, 0 straight and 1 closed, and how far they are spread.
SHAPES = {
    "flat": (0.1, 0, 0, 0, 0, 0.2), "five": (0, 0, 0, 0, 0, 1), "fist": (0.8, 1, 1, 1, 1, 0.1),
    "one": (0.8, 0, 1, 1, 1, 0.1), "two": (0.8, 0, 0, 1, 1, 0.9), "hook": (0.7, 0.5, 1, 1, 1, 0.1),
    "three": (0, 0, 0, 1, 1, 0.7), "horns": (0.1, 1, 1, 1, 0, 0.5),
    "claw": (0.4, 0.5, 0.5, 0.5, 0.5, 1), "pinch": (0.6, 0.6, 0, 0, 0, 0.6),
    "thumb": (0, 1, 1, 1, 1, 0.1), "little": (0.8, 1, 1, 1, 0, 0.2),
}  # fmt: skip
MOVES = ("hold", "up", "down", "out", "in", "arc", "circle", "shake", "tap")
PALMS = (-1.2, -0.4, 0.4, 1.2)  # turn of the hand in the picture, radians
HANDS = ("one", "both", "base")
FINGERS = 5


@dataclass(frozen=True)
class Sign:
    """What a gloss is made of. `last`: the handshape at its end."""

    shape: str
    last: str
    place: str
    move: str
    palm: float
    hands: str
    frames: int


@dataclass(frozen=True)
class Signer:
    """Who signs: all that stays the same from sentence to sentence."""

    size: float
    middle: np.ndarray
    lean: float
    tempo: float
    reach: float
    arms: float
    left: bool
    relaxed: float
    palm: float
    places: dict[str, np.ndarray]
    noise: float
    lost: float


def lexicon(seed: int) -> dict[str, Sign]:
    """A sign for every gloss; every second one is its neighbour with one parameter changed."""
    draw = np.random.default_rng(seed)
    signs: dict[str, Sign] = {}
    taken = set()
    for number, gloss in enumerate(GLOSSES):
        while True:
            sign = _varied(draw, signs[GLOSSES[number - 1]]) if number % 2 else _fresh(draw)
            if (key := (sign.shape, sign.place, sign.move, sign.palm, sign.hands)) not in taken:
                break
        taken.add(key)
        signs[gloss] = sign
    return signs


def _fresh(draw: np.random.Generator) -> Sign:
    shape = str(draw.choice([*SHAPES]))
    last = str(draw.choice([*SHAPES])) if draw.random() < 0.25 else shape
    place, move = str(draw.choice([*PLACES])), str(draw.choice(MOVES))
    hands = str(draw.choice(HANDS, p=(0.55, 0.3, 0.15)))
    palm = float(draw.choice(PALMS))
    return Sign(shape, last, place, move, palm, hands, int(draw.integers(8, 13)))


def _varied(draw: np.random.Generator, sign: Sign) -> Sign:
    other = _fresh(draw)
    name = str(draw.choice(["shape", "place", "move", "palm"]))
    changed = {name: getattr(other, name)}
    if name == "shape":
        changed["last"] = other.last
    return Sign(**{**sign.__dict__, **changed})


def signer(draw: np.random.Generator, left: bool) -> Signer:
    return Signer(
        size=draw.uniform(0.13, 0.24),
        middle=np.array([draw.uniform(0.4, 0.6), draw.uniform(0.33, 0.48)]),
        lean=draw.normal(0, 0.06),
        tempo=draw.uniform(0.75, 1.35),
        reach=draw.uniform(0.7, 1.25),
        arms=draw.uniform(0.9, 1.1),
        left=left,
        relaxed=draw.uniform(0.0, 0.3),
        palm=draw.normal(0, 0.2),
        places={name: draw.normal(0, 0.08, 2) for name in PLACES},
        noise=draw.uniform(0.008, 0.025),
        lost=draw.uniform(0.005, 0.03),
    )


def sentence(draw: np.random.Generator) -> list[str]:
    """Glosses by the grammar, 2 to 7 of them."""
    found = []
    for part, (words, chance) in GRAMMAR.items():
        if draw.random() < chance:
            found += [str(draw.choice(words.split()))] * (
                1 + (part == "verb" and draw.random() < AGAIN)
            )
    return found


def _path(move: str, share: np.ndarray) -> np.ndarray:
    """[frames, 2]: where a hand is beside its place, at shares 0 to 1 of the sign."""
    turn, zero = 2 * np.pi * share, np.zeros_like(share)
    swing = 0.5 - 0.5 * np.cos(np.pi * share)
    x, y = {
        "hold": (zero, zero), "up": (zero, 0.2 - 0.45 * swing), "down": (zero, 0.45 * swing - 0.2),
        "out": (0.45 * swing - 0.15, zero), "in": (0.2 - 0.45 * swing, zero),
        "arc": (0.5 * swing - 0.2, -0.3 * np.sin(np.pi * share)),
        "circle": (0.18 * np.cos(turn), 0.18 * np.sin(turn)),
        "shake": (0.13 * np.sin(2 * turn), zero), "tap": (zero, -0.14 * np.abs(np.sin(turn))),
    }[move]  # fmt: skip
    return np.stack([x, y], axis=-1)


# A hand in a frame: x, y of the wrist, palm, and five curls with their spread.
REST = np.array([0.5, 1.35, 0.0, *(0.3, 0.3, 0.35, 0.4, 0.4, 0.2)])


def perform(draw: np.random.Generator, sign: Sign, who: Signer) -> np.ndarray:
    """[frames, 2 hands, 9]: one sign as it is on its own; the active hand first."""
    frames = max(round(sign.frames / who.tempo * draw.uniform(0.85, 1.18)), 4)
    share = np.linspace(0, 1, frames)
    made = np.tile(REST, (frames, 2, 1))
    place = np.array(PLACES[sign.place]) + who.places[sign.place] + draw.normal(0, 0.05, 2)
    reach = who.reach * draw.uniform(0.85, 1.15)
    made[:, 0, :2] = place + reach * _path(sign.move, share)
    made[:, 0, 2] = sign.palm + who.palm + draw.normal(0, 0.12)
    blend = np.clip(share * 1.6 - 0.3, 0, 1)[:, None]
    shapes = np.array(SHAPES[sign.shape]), np.array(SHAPES[sign.last])
    shape = (1 - blend) * shapes[0] + blend * shapes[1]
    relaxed = np.clip(who.relaxed + draw.normal(0, 0.05), 0, 0.4)
    made[:, 0, 3:] = (1 - relaxed) * shape + relaxed * REST[3:] + draw.normal(0, 0.05, 6)
    if sign.hands == "both":
        made[:, 1] = made[:, 0]
        made[:, 1, 0] += draw.normal(0, 0.05)
    elif sign.hands == "base":
        made[:, 1, :2] = np.array([0.1, 0.75]) + draw.normal(0, 0.05, 2)
        made[:, 1, 3:] = np.array(SHAPES["flat"]) + draw.normal(0, 0.05, 6)
    return made


def joined(draw: np.random.Generator, signs: list[Sign], who: Signer) -> np.ndarray:
    """[frames, 2, 9]: the signs of a sentence, each pulled towards its neighbours."""
    parts = [perform(draw, sign, who) for sign in signs]
    middles = [part[len(part) // 2].copy() for part in parts]
    rest = np.tile(REST, (int(draw.integers(3, 8)), 2, 1))
    track = [rest]
    for place, part in enumerate(parts):
        share = np.linspace(0, 1, len(part))[:, None, None]
        for near, weight in ((place - 1, (1 - share) ** 2), (place + 1, share**2)):
            if 0 <= near < len(parts):
                part[:] += 0.25 * weight * (middles[near] - part)
        if signs[place].hands == "one" and place and draw.random() < 0.5:
            part[:, 1] = 0.5 * part[:, 1] + 0.5 * parts[place - 1][-1, 1]  # still held
        track += [_between(draw, track[-1][-1], part[0], who), part]
    end = np.tile(REST, (int(draw.integers(3, 8)), 2, 1))
    whole = np.concatenate([*track, _between(draw, track[-1][-1], end[0], who), end])
    wide = np.pad(whole, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4


def _between(draw: np.random.Generator, a: np.ndarray, b: np.ndarray, who: Signer) -> np.ndarray:
    """[frames, 2, 9]: the way from one pose to another, the farther the longer."""
    far = np.abs(a[:, :2] - b[:, :2]).max()
    frames = max(round((2 + 3 * far) / who.tempo * draw.uniform(0.8, 1.3)), 1)
    share = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, frames + 1) / (frames + 1))
    return a + share[:, None, None] * (b - a)


def _hand(pose: np.ndarray) -> np.ndarray:
    """[frames, 9] -> [frames, 21, 2] beside the wrist: it, then four joints of each finger."""
    joints = [np.zeros((len(pose), 2))]
    for finger in range(FINGERS):
        curl = np.clip(pose[:, 3 + finger], -0.1, 1.1)
        fan = (finger - 2) * (0.12 + 0.22 * np.clip(pose[:, 8], -0.2, 1.2)) - 0.5 * (finger == 0)
        reach = np.full(len(pose), 0.16 if finger == 0 else 0.26)
        length = 0.11 - 0.015 * abs(finger - 2)
        for joint in range(4):
            if joint:  # a finger that bends comes towards the camera, and folds back
                reach = reach + length * np.cos(curl * joint * 1.1)
            joints.append(np.stack([reach * np.sin(fan), -reach * np.cos(fan)], axis=-1))
    flat = np.stack(joints, axis=1)
    turn = pose[:, 2]
    spin = np.stack([np.stack([np.cos(turn), -np.sin(turn)], -1),
                     np.stack([np.sin(turn), np.cos(turn)], -1)], -2)  # fmt: skip
    return 0.9 * np.einsum("fij,fkj->fki", spin, flat)


def seen(draw: np.random.Generator, track: np.ndarray, who: Signer) -> np.ndarray:
    """[frames, 51, 2] in shares of the picture: what a tracker makes of it."""
    frames = len(track)
    sway = np.cumsum(draw.normal(0, 0.004, (frames, 2)), axis=0)
    body = np.zeros((frames, 9, 2))
    body[:, 0] = (0, -0.65)
    body[:, 2], body[:, 3] = (0.5, 0), (-0.5, 0)
    body[:, 8] = (0, 1.5)
    hands = []
    for hand, side in enumerate((1, -1)):
        wrist = track[:, hand, :2] * (side * who.arms, who.arms)
        shoulder = body[:, 2 + hand]
        body[:, 4 + hand] = (shoulder + wrist) / 2 + (0.15 * side, 0.35)
        body[:, 6 + hand] = wrist
        hands.append(wrist[:, None] + _hand(track[:, hand]) * (side, 1))
    points = np.concatenate([body, *hands], axis=1) + sway[:, None]
    if who.left:
        points = mirrored(points)
    points = points + draw.normal(0, who.noise, points.shape)
    cos, sin = np.cos(who.lean), np.sin(who.lean)
    points = points @ np.array([[cos, sin], [-sin, cos]])
    picture = who.middle + draw.normal(0, 0.01, 2) + who.size * points
    picture[_lost(draw, track, who)] = 0
    return picture


def mirrored(points: np.ndarray) -> np.ndarray:
    """[frames, 51, 2] as in a mirror: sides change places, so left hands stay left hands."""
    order = [0, 1, 3, 2, 5, 4, 7, 6, 8, *range(30, 51), *range(9, 30)]
    return points[:, order] * (-1, 1)


def _lost(draw: np.random.Generator, track: np.ndarray, who: Signer) -> np.ndarray:
    """[frames, 51]: points that the tracker lost; of a hand that moves fast all, for a while."""
    frames = len(track)
    gone = draw.random((frames, 51)) < who.lost / 3
    for hand in range(2):
        speed = np.linalg.norm(
            np.diff(track[:, hand, :2], axis=0, prepend=track[:1, hand, :2]), axis=-1
        )
        for start in np.flatnonzero(draw.random(frames) < who.lost * (0.3 + 6 * speed)):
            first = 9 + 21 * (hand ^ who.left)
            gone[start : start + int(draw.integers(1, 6)), first : first + 21] = True
    return gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--signers", type=int, default=18, help="a sixth each for valid and test")
    parser.add_argument("--sentences", type=int, default=40, help="of each signer")
    parser.add_argument("--seed", type=int, default=1, help="another one: another language")
    asked = parser.parse_args()
    print(write(asked.out, asked.signers, asked.sentences, asked.seed))


def write(out: Path, signers: int = 18, sentences: int = 40, seed: int = 1) -> str:
    """Write the set; returns what it holds in a line."""
    signs = lexicon(seed)
    out.mkdir(parents=True, exist_ok=True)
    rows, frames = [], 0
    aside = max(signers // 6, 1) if signers > 2 else 0
    for number in range(signers):
        draw = np.random.default_rng([seed, number])
        who = signer(draw, left=number % 4 == 1)
        split = "valid" if number < aside else "test" if number < 2 * aside else "train"
        for each in range(sentences):
            glosses = sentence(draw)
            points = seen(draw, joined(draw, [signs[g] for g in glosses], who), who)
            name = f"s{number:02d}-{each:03d}.npz"
            np.savez_compressed(out / name, landmarks=points.astype(np.float16))
            rows.append((name, " ".join(glosses), f"s{number:02d}", split))
            frames += len(points)
    with open(out / "glosses.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "glosses", "signer", "split"), *rows])
    minutes = frames / 25 / 60
    what = f"{len(rows)} sentences of {signers} signers, {len(GLOSSES)} glosses"
    return f"{out}: {what}, {minutes:.0f} min"


if __name__ == "__main__":
    main()
