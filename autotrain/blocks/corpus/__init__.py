"""Speech to learn from, made by espeak-ng: `python -m autotrain.blocks.corpus OUT --hours 1`.

An LJSpeech folder: `metadata.csv` with `id|text|normalised|speaker|split`, clips in `wavs/`, and
beside each clip its phonemes (see `autotrain.blocks.alignments`). `SHIPPED` is one of 20 clips,
so that nothing needs to be installed to try.
"""

from pathlib import Path

SHIPPED = Path(__file__).parent / "clips"
