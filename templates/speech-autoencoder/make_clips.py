"""Makes the 20 Bengali clips that this template ships: python make_clips.py [OUT]

Needs espeak-ng on the PATH (Debian's package `espeak-ng`). OUT is `clips` beside this file
unless named; it gets the LJSpeech layout: `metadata.csv` (`id|text`) and `wavs/ID.flac`, 16 kHz
mono, 16 bit. Voice, speed and pitch of each clip are fixed, so the same espeak-ng version
always makes the same files.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile
import torch
from torchaudio.functional import resample

RATE = 16_000  # hertz
SPEEDS = (130, 140, 150, 160)  # words a minute
PITCHES = (30, 42, 50, 58, 70)  # of espeak-ng's 0 to 99
VARIANTS = ("bn", "bn+f2", "bn+m3", "bn+f4")  # the Bengali voice, two women's and two men's
SENTENCES = (
    "আমি প্রতিদিন সকালে এক কাপ চা খাই।",
    "আজ আকাশে অনেক মেঘ করেছে।",
    "তুমি কি আজ বাজারে যাবে?",
    "আমার ছোট বোন স্কুলে পড়ে।",
    "নদীর ধারে বসে থাকতে ভালো লাগে।",
    "কাল রাতে খুব বৃষ্টি হয়েছিল।",
    "দয়া করে দরজাটা বন্ধ করো।",
    "মা রান্নাঘরে ভাত রাঁধছেন।",
    "ট্রেনটা দশ মিনিট দেরিতে আসবে।",
    "এই বইটা আমি দুবার পড়েছি।",
    "বাগানে লাল ফুল ফুটেছে।",
    "আমরা বিকেলে মাঠে খেলতে যাই।",
    "তোমার নামটা আবার বলো তো।",
    "দোকানে তাজা মাছ পাওয়া যায়।",
    "শীতকালে সকালে কুয়াশা পড়ে।",
    "আমার দাদু গল্প বলতে ভালোবাসেন।",
    "রাস্তাটা সোজা স্টেশনে গেছে।",
    "গরমের দিনে ঠান্ডা জল চাই।",
    "পাখিরা ভোরবেলায় গান গায়।",
    "আগামী সপ্তাহে আমাদের পরীক্ষা।",
)


def speak(text: str, number: int, target: Path) -> float:
    """Write one sentence as FLAC; returns its length in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "spoken.wav"
        voice = ["-v", VARIANTS[number % len(VARIANTS)]]
        speed = ["-s", str(SPEEDS[number // 4 % len(SPEEDS)])]
        pitch = ["-p", str(PITCHES[number % len(PITCHES)])]
        command = ["espeak-ng", *voice, *speed, *pitch, "-w", str(spoken), text]
        subprocess.run(command, check=True)
        samples, rate = soundfile.read(spoken, dtype="float32")
    samples = resample(torch.from_numpy(samples), rate, RATE).clamp(-1, 1).numpy()
    soundfile.write(target, samples, RATE, format="FLAC", subtype="PCM_16")
    return len(samples) / RATE


def main(out: Path) -> None:
    (out / "wavs").mkdir(parents=True, exist_ok=True)
    rows, seconds = [], 0.0
    for number, text in enumerate(SENTENCES):
        name = f"bn-{number + 1:02d}"
        seconds += speak(text, number, out / "wavs" / f"{name}.flac")
        rows.append(f"{name}|{text}\n")
    (out / "metadata.csv").write_text("".join(rows), encoding="utf-8", newline="\n")
    print(f"{out}: {len(rows)} clips, {seconds:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "clips")
