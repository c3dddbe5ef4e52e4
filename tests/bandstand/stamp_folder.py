"""A small folder laid out like the package tuxpaint-stamps-default: drawn cut-outs, tones, and names as other tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

NUM_ANIMALS = 12
"""Things with an effect and names; each animal's effect is a tone of its own."""
LANGUAGES = ("da", "el", "fr", "ru")
RATE = 22050
LEAD_SECONDS, TONE_SECONDS = 0.3, 0.5
"""Every effect begins with silence."""


def effect_hertz(number: int) -> float:
    return 300.0 + 100 * number


def tone(hertz: float, seconds: float = TONE_SECONDS, lead: float = LEAD_SECONDS) -> NDArray[np.float32]:
    """Silence, a tone, silence."""
    time = np.arange(round(seconds * RATE)) / RATE
    silence = np.zeros(round(lead * RATE))
    return np.concatenate([silence, 0.4 * np.sin(2 * np.pi * hertz * time), silence]).astype(np.float32)


def cut_out(colour: tuple[int, int, int], size: tuple[int, int] = (90, 60)) -> Image.Image:
    """An ellipse that fills the picture but for a border of 5 pixels, with smooth edges; its right end is white."""
    width, height = size
    large = Image.new("L", (4 * width, 4 * height))
    ImageDraw.Draw(large).ellipse((20, 20, 4 * width - 21, 4 * height - 21), fill=255)
    picture = Image.new("RGB", size, colour)
    picture.paste((255, 255, 255), (width * 3 // 4, 0, width, height))
    picture.putalpha(large.resize(size, Image.Resampling.BOX))
    return picture


def build(folder: Path) -> Path:
    """Write it: twelve animals, a fruit with two pictures, and files of every kind that is left out."""
    animals, fruit, symbols, misc = (folder / name for name in ("animals/mammals", "food/fruit", "symbols/abc", "misc"))
    for place in (animals, fruit / "cartoon", symbols, misc):
        place.mkdir(parents=True)
    for number in range(NUM_ANIMALS):
        stem = animals / f"beast{number:02d}"
        cut_out((20 * number, 255 - 20 * number, 128)).save(f"{stem}.png")
        ending = "ogg" if number % 2 else "wav"
        soundfile.write(f"{stem}.{ending}", tone(effect_hertz(number)), RATE)
        for place, language in enumerate(LANGUAGES):
            name = tone(effect_hertz(number) + 20 * (place + 1), 0.4, 0.1)
            soundfile.write(f"{stem}_desc_{language}.ogg", name, RATE)
        lines = [f"A beast of kind {number}.", f"fr.utf8=Une bête {number}.", f"ru.utf8=Зверь {number}."]
        stem.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (animals / "beast00.dat").write_text("nomirror\nnoflip\n")
    cut_out((0, 0, 0)).save(animals / "beast00_mirror.png")
    # One thing: the same recording names both pictures, which lie apart.
    for place, colour in ((fruit / "pear", (200, 200, 0)), (fruit / "cartoon" / "pear", (100, 200, 0))):
        cut_out(colour).save(f"{place}.png")
        soundfile.write(f"{place}_desc_fr.wav", tone(2500), RATE)
    # Two things that share a sound, in files that differ; the French call both the same.
    for number, name in enumerate(("badger", "beaver")):
        cut_out((90 + number, 60, 30)).save(misc / f"{name}.png")
        soundfile.write(misc / f"{name}.wav", tone(1800), RATE)
        soundfile.write(misc / f"{name}_desc_fr.ogg", tone(2600 + 50 * number), RATE)
        (misc / f"{name}.txt").write_text(f"A {name}.\nfr.utf8=Une bête sauvage.\n", encoding="utf-8")
    with open(misc / "beaver.wav", "ab") as file:
        file.write(b"note\x04\x00\x00\x00abcd")  # a chunk that readers pass over
    # What is left out: a letter, a drawing, a rectangle, a tiny one, a pane of glass, a sound and a picture alone.
    cut_out((0, 0, 0)).save(symbols / "a.png")
    soundfile.write(symbols / "a.ogg", tone(2700), RATE)
    (misc / "kettle.svg").write_text("<svg/>")
    Image.new("RGB", (80, 80)).save(misc / "card.png")
    cut_out((0, 0, 0), (40, 30)).save(misc / "crumb.png")
    glass = cut_out((200, 220, 255))
    glass.putalpha(glass.getchannel("A").point([value // 3 for value in range(256)]))
    glass.save(misc / "glass.png")
    soundfile.write(misc / "nobody.ogg", tone(2800), RATE)
    cut_out((1, 2, 3)).save(misc / "mute.png")
    return folder
