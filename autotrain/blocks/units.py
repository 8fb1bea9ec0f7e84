"""What a recogniser writes and a speaker reads: characters, word pieces or phonemes as numbers.

0 is CTC's blank and 1 both begins and ends what a decoder writes; the units follow from 2 on. A
text with letters that the units lack is refused and they are named: no unit stands for what is
unknown. Kept in a model as bytes, never as a pickle, so that a checkpoint decodes anywhere.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from autotrain.errors import AutotrainError, one_line

BLANK, END, FIRST = 0, 1, 2
PIECES_BYTES = 16 << 20  # of a word-piece model; 32,000 pieces take under 1 MiB
SHOWN = 20  # letters named in an error

Kind = Literal["characters", "pieces", "symbols"]


@dataclass(frozen=True)
class Units:
    """Text as numbers from 2 on, and back; `table` is all there is to it.

    `kind` characters: a table of JSON, each unit one character; symbols: the same of names that
    are written with spaces between them (phonemes); pieces: sentencepiece's own model.
    """

    kind: Kind
    table: bytes = field(repr=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every unit as it is written, the first of them number 2."""
        if self.kind == "pieces":
            pieces = self._pieces
            return tuple(pieces.id_to_piece(i) for i in range(1, pieces.get_piece_size()))
        return _names(self.table)

    @cached_property
    def count(self) -> int:
        """Units, blank and end included: the width of a model's output."""
        return FIRST + len(self.names)

    def encode(self, text: str) -> list[int]:
        """Raises AutotrainError, naming the letters, where the units lack any."""
        if self.kind == "pieces":
            return self._encoded_pieces(text)
        parts = text.split() if self.kind == "symbols" else text
        self._refuse_unknown(part for part in parts if part not in self._number)
        return [self._number[part] for part in parts]

    def decode(self, numbers: Iterable[int]) -> str:
        """Blank, end and what is no unit are left out."""
        kept = [int(n) - FIRST for n in numbers if FIRST <= int(n) < self.count]
        if self.kind == "pieces":
            return str(self._pieces.decode([n + 1 for n in kept]))
        joint = " " if self.kind == "symbols" else ""
        return joint.join(self.names[n] for n in kept)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names, start=FIRST)}

    @cached_property
    def _pieces(self) -> Any:
        return _processor(self.table)

    def _encoded_pieces(self, text: str) -> list[int]:
        numbers = self._pieces.encode(text)
        if 0 in numbers:  # sentencepiece's own <unk>, at 0 in every table of ours
            known = set("".join(self.names)) | {" "}
            self._refuse_unknown([c for c in text if c not in known] or [text])
        return [number - 1 + FIRST for number in numbers]

    def _refuse_unknown(self, parts: Iterable[str]) -> None:
        unknown = sorted(set(parts))
        if unknown:
            more = ", ..." if len(unknown) > SHOWN else ""
            raise AutotrainError(
                f"not among the {len(self.names)} {self.kind}: "
                f"{', '.join(map(repr, unknown[:SHOWN]))}{more}",
                "correct the text, or make units of texts that have them",
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": self.table}

    def record(self) -> dict[str, Any]:
        """As JSON, for a task's facts: names as they are, word pieces as base64."""
        if self.kind == "pieces":
            return {"kind": self.kind, "table": base64.b64encode(self.table).decode()}
        return {"kind": self.kind, "names": [*self.names]}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Units:
        """From its `record`. Raises AutotrainError where it is none."""
        try:
            if record["kind"] == "pieces":
                return cls("pieces", base64.b64decode(record["table"], validate=True))
            kind: Kind = "symbols" if record["kind"] == "symbols" else "characters"
            return _listed(kind, {*record["names"]})
        except (KeyError, TypeError, ValueError):
            raise AutotrainError("not a record of units", "train again") from None


def characters(texts: Iterable[str]) -> Units:
    """Every character of the texts, sorted. Raises AutotrainError where there is none."""
    return _listed("characters", set().union(*texts))


def symbols(texts: Iterable[Sequence[str]]) -> Units:
    """Every name in lists of names (phonemes, glosses), sorted."""
    return _listed("symbols", set().union(*texts))


def _listed(kind: Kind, names: set[str]) -> Units:
    if not names:
        raise AutotrainError(f"no {kind}: all texts are empty", "add transcripts")
    return Units(kind, json.dumps(sorted(names), ensure_ascii=False).encode())


def pieces(texts: Sequence[str], count: int) -> Units:
    """`count` word pieces or fewer (Kudo 2018's unigram model), learned from training texts.

    The same texts give the same table: one thread, no sampling. Every character of the texts is
    a piece. Raises AutotrainError where there is no text, or `count` is too small for that.
    """
    import sentencepiece

    if not any(text.strip() for text in texts):
        raise AutotrainError("no word pieces: all texts are empty", "add transcripts")
    least = len(set("".join(texts)) - {" "}) + FIRST + 2
    if count < least:
        raise AutotrainError(
            f"{count} word pieces cannot hold {least - FIRST - 2} different characters",
            f"at least {least}, or units of characters",
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=count - 1,
            model_type="unigram", hard_vocab_limit=False, character_coverage=1.0,
            normalization_rule_name="identity", num_threads=1,
            max_sentence_length=1 << 16,
            unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, minloglevel=2,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        raise AutotrainError(
            f"sentencepiece: {error}", "add transcripts, or fewer pieces"
        ) from None
    return Units("pieces", model.getvalue())


def _processor(table: bytes) -> Any:
    import sentencepiece

    if len(table) > PIECES_BYTES:
        raise AutotrainError(f"a table of word pieces of {len(table)} bytes is none of ours")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=table)
        known = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        own = processor.unk_id() == 0 and processor.bos_id() == processor.eos_id() == -1
        processor.decode(processor.encode(known[-1]))
    except Exception as error:  # of bytes that were changed it raises nearly anything
        raise AutotrainError(f"not a table of word pieces: {one_line(str(error))}") from None
    if not own:
        raise AutotrainError("not a table of word pieces of ours: it has beginnings and ends")
    return processor


def _names(table: bytes) -> tuple[str, ...]:
    try:
        names = json.loads(table)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise AutotrainError("not a table of units: no JSON list of names")
    return tuple(names)


class KeptUnits(nn.Module):
    """Units inside a model: a uint8 buffer `table`, so every checkpoint has what decodes it.

    A checkpoint whose table is another one is refused: its outputs mean other texts.
    """

    KINDS: tuple[Kind, ...] = ("characters", "pieces", "symbols")
    table: torch.Tensor

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.units = units
        raw = bytes([self.KINDS.index(units.kind)]) + units.table
        self.register_buffer("table", torch.tensor(np.frombuffer(raw, dtype=np.uint8).copy()))

    def _load_from_state_dict(
        self, state: Mapping[str, Any], prefix: str, local: Any, strict: bool,
        missing: list[str], unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        theirs = state.get(f"{prefix}table")
        if theirs is not None and (before := read_units(theirs)) != self.units:
            errors.append(
                f"{prefix}table: the units that it was trained with are not these"
                f"{_differences(before, self.units)}; train on the transcripts it was trained on"
            )
            return
        super()._load_from_state_dict(state, prefix, local, strict, missing, unexpected, errors)


def _differences(before: Units, now: Units) -> str:
    """What is new and what is gone, in words: units, or of word pieces the letters."""
    old, new = ({*"".join(u.names)} if u.kind == "pieces" else {*u.names} for u in (before, now))
    said = [
        f"{', '.join(map(repr, sorted(those)[:SHOWN]))} {'are' if len(those) > 1 else 'is'} {how}"
        for those, how in ((new - old, "new"), (old - new, "gone"))
        if those
    ]
    return f": {', '.join(said)}" if said else ""


def read_units(table: torch.Tensor) -> Units:
    """The units that a checkpoint keeps: its uint8 tensor whose name ends in `table`.

    Raises AutotrainError where it is none.
    """
    raw = bytes(table.cpu().contiguous().numpy()) if table.dtype == torch.uint8 else b""
    if not raw or raw[0] >= len(KeptUnits.KINDS):
        raise AutotrainError("not a table of units", "name a checkpoint of this template")
    return Units(KeptUnits.KINDS[raw[0]], raw[1:])
