"""What is spoken: sentences of a small grammar, and of books whose authors are long dead.

Which side a sentence is on, training, validation or test, follows from its words alone. So what
is held out of one corpus is in no other one's training either, whatever their seeds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple

TRAIN, VALID, TEST = "train", "valid", "test"
HELD_OUT = 20  # of so many sentences one is for validation and one for the test
PROSE_SHARE = 0.15  # of the sentences, until the books below are used up

PEOPLE = (
    "Anna", "Peter", "my brother", "your sister", "the teacher", "a young doctor", "the old man",
    "our neighbour", "the captain", "a small child", "the baker", "his daughter", "the farmer",
    "Mary and John", "the little girl", "nobody", "the king", "her uncle", "a stranger",
)  # fmt: skip
DEEDS = (
    "found", "carried", "painted", "sold", "washed", "dropped", "borrowed", "opened", "forgot",
    "repaired", "bought", "lost", "cleaned", "hid", "counted", "watched", "wanted", "moved",
)  # fmt: skip
SIZES = ("", "", "", "small", "heavy", "old", "new", "broken", "beautiful", "strange", "wooden")
COLOURS = ("", "", "", "red", "blue", "green", "yellow", "black", "white", "brown", "grey")
THINGS = (
    "box", "chair", "boat", "letter", "basket", "lamp", "bottle", "door", "bicycle", "window",
    "picture", "table", "coat", "clock", "key", "book", "ladder", "hat", "mirror", "violin",
)  # fmt: skip
PLACES = (
    "in the garden", "at the station", "behind the house", "near the river", "on the hill",
    "under the bridge", "in the kitchen", "beside the road", "at the market", "in the forest",
    "by the sea", "above the shop", "in front of the church", "between the trees",
)  # fmt: skip
TIMES = (
    "yesterday", "this morning", "last night", "on Monday", "in the winter", "before lunch",
    "after the rain", "at noon", "a week ago", "in the evening", "on Friday", "every summer",
    "at seven o'clock", "early in June", "in September", "long ago",
)  # fmt: skip
NUMBERS = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "fifteen", "twenty", "thirty one", "forty", "fifty six", "eighty", "ninety nine", "a hundred",
)  # fmt: skip
MANY = ("apples", "horses", "stones", "coins", "birds", "ships", "candles", "shoes", "eggs")
ASKED = ("Did", "Why did", "When did", "How often did", "Where did")
PLAIN = ("find", "carry", "paint", "sell", "wash", "drop", "borrow", "open", "forget", "watch")
SAID = ("I think that", "They say that", "We knew that", "She wrote that", "It is true that")
WEATHER = ("It rained", "The wind blew", "Snow fell", "The sun shone", "A thick fog lay")
FORMS = (
    "{who} {did} {thing} {where}.",
    "{when} {who} {did} {thing}.",
    "{ask} {who} {do} {thing} {where}?",
    "{said} {who} {did} {thing} {when}.",
    "{who} {did} {count} {many} {where}.",
    "{weather} {where} {when}.",
    "{who} {did} {thing}, and {other} {did2} {count} {many}.",
    "Please {do} {thing} {where}!",
    "There are {count} {many} {where}.",
)

# Carroll 1865, Lincoln 1863, Aesop in Townsend's words 1867, Melville 1851, Dickens 1843 and 1859,
# Austen 1813, Thoreau 1854, Grahame 1908, and what everybody says.
PROSE = tuple(
    line.strip()
    for line in """
    Alice was beginning to get very tired of sitting by her sister on the bank.
    She had peeped into the book her sister was reading.
    There was nothing so very remarkable in that.
    Down, down, down. Would the fall never come to an end?
    The rabbit took a watch out of its pocket, and looked at it.
    Curiouser and curiouser, cried Alice.
    We are all mad here.
    It was much pleasanter at home, thought poor Alice.
    Four score and seven years ago our fathers brought forth a new nation.
    The world will little note, nor long remember what we say here.
    It can never forget what they did here.
    A wolf resolved to disguise his appearance.
    A fox saw some ripe black grapes hanging from a vine.
    The hare laughed at the slow pace of the tortoise.
    Slow and steady wins the race.
    A crow, half dead with thirst, came upon a pitcher.
    The ant was busy gathering food for the winter.
    Once upon a time a mouse ran over the face of a sleeping lion.
    Call me Ishmael.
    I thought I would sail about a little and see the watery part of the world.
    It is a damp, drizzly November in my soul.
    Marley was dead, to begin with.
    The cold within him froze his old features.
    External heat and cold had little influence on Scrooge.
    It was the best of times, it was the worst of times.
    It was the spring of hope, it was the winter of despair.
    It is a far, far better thing that I do.
    It is a truth universally acknowledged.
    I went to the woods because I wished to live deliberately.
    The mass of men lead lives of quiet desperation.
    The mole had been working very hard all the morning.
    The river still chattered on to him.
    There is nothing half so much worth doing as simply messing about in boats.
    A stitch in time saves nine.
    All that glitters is not gold.
    Still waters run deep.
    Where there is smoke, there is fire.
    The early bird catches the worm.
    Rome was not built in a day.
    A rolling stone gathers no moss.
    """.strip().splitlines()
)


class Sentence(NamedTuple):
    """A sentence as it is written, and its side: train, valid or test."""

    text: str
    split: str


def sentences(seed: int) -> Iterator[Sentence]:
    """Sentences without end, none of them twice: of twenty, one for validation, one for the test.

    The first n are the same however many are taken.
    """
    chance = random.Random(f"autotrain corpus {seed}")
    said: set[str] = set()
    number = 0
    while True:
        wanted = {HELD_OUT // 2 - 1: VALID, HELD_OUT - 1: TEST}.get(number % HELD_OUT, TRAIN)
        text = _drawn(chance, said, wanted)
        said.add(key(text))
        yield Sentence(text, wanted)
        number += 1


def _drawn(chance: random.Random, said: set[str], wanted: str) -> str:
    """Drawn until it is new and on the side that is wanted: about one in twenty is held out."""
    while True:
        prose = chance.random() < PROSE_SHARE
        text = chance.choice(PROSE) if prose else _sentence(chance)
        if key(text) not in said and side(text) == wanted:
            return text


def key(text: str) -> str:
    """The words alone, lower case: texts that sound the same are the same."""
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split())


def side(text: str) -> str:
    """train, valid or test, by the words of a text alone."""
    number = int.from_bytes(hashlib.sha256(key(text).encode()).digest()[:8], "big") % HELD_OUT
    return {0: VALID, 1: TEST}.get(number, TRAIN)


def _sentence(chance: random.Random) -> str:
    pick = chance.choice
    form = pick(FORMS)
    words = form.format(
        who=pick(PEOPLE), other=pick(PEOPLE), did=pick(DEEDS), did2=pick(DEEDS), do=pick(PLAIN),
        thing=_thing(chance), where=pick(PLACES), when=pick(TIMES), ask=pick(ASKED),
        said=pick(SAID), weather=pick(WEATHER), count=pick(NUMBERS), many=pick(MANY),
    )  # fmt: skip
    return words[0].upper() + words[1:]


def _thing(chance: random.Random) -> str:
    described = " ".join(
        w for w in (chance.choice(SIZES), chance.choice(COLOURS), chance.choice(THINGS)) if w
    )
    article = chance.choice(("the", "the", "my", "a"))
    return f"{'an' if article == 'a' and described[0] in 'aeiou' else article} {described}"
