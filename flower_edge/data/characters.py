"""A character-level text task without a download: predict the next character of what one of six speakers says.

A small grammar, written out below, produces sentences. Every speaker talks about one trade (its people, what they
do and where) and has a habit of opening and one of ending a sentence, so dividing the text by speaker is a non-IID
partition with a meaning. The grammar is invented; it stands for no natural language.

Measured on the test part with the default sizes and seed 0: the most frequent character is right 16 % of the time, the
best guess from the last character 34 %, a two-block transformer after 600 steps of 32 samples (rate 0.1, momentum 0.9)
82 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .dataset import NEXT_CHARACTER, Dataset

#: Symbol k is VOCABULARY[k]: end of sentence, space, four marks, a to z.
VOCABULARY = "\n ,.?!abcdefghijklmnopqrstuvwxyz"
TEST_SHARE = 0.2

_TRADES = (
    ("pilot captain tower wing engine", "flies lands turns climbs circles", "runway clouds airport ridge"),
    ("baker apprentice oven flour loaf", "bakes kneads rises burns cools", "kitchen market cellar window"),
    ("sailor anchor harbour sail mate", "drifts hauls floats rows sinks", "shore island deck lighthouse"),
    ("doctor nurse patient needle ward", "heals listens waits sleeps breathes", "hospital clinic corridor bed"),
    ("farmer tractor barley horse well", "ploughs sows reaps digs grows", "meadow barn orchard valley"),
    ("student teacher lesson book chalk", "reads writes learns asks explains", "school library blackboard yard"),
)
_OPENINGS = ("", "well, ", "i say, ", "", "now then, ", "so ")
_ENDINGS = (".", "!", ".", "?", ", my friend.", "!")
#: Shared by all speakers, so that there is something to learn together.
_ARTICLES = ("the", "a", "this", "every")
_QUALITIES = ("old", "quiet", "bright", "small", "busy", "patient")
_PLACINGS = ("near", "behind", "above", "under", "beside")
_TIMES = ("today", "at night", "again", "in winter", "before noon")

SPEAKERS = len(_TRADES)


def _sentence(speaker: int, rng: np.random.Generator) -> str:
    """One sentence: opening, who, does, where, perhaps when, ending."""
    nouns, verbs, places = (words.split() for words in _TRADES[speaker])

    def one(words: tuple[str, ...] | list[str]) -> str:
        # The square of a uniform number: the first words of a list are the common ones.
        return words[int(len(words) * rng.random() ** 2)]

    def thing(names: list[str]) -> str:
        quality = [one(_QUALITIES)] if rng.random() < 0.4 else []
        return " ".join([one(_ARTICLES), *quality, one(names)])

    parts = [thing(nouns), one(verbs), one(_PLACINGS), thing(places)]
    if rng.random() < 0.3:
        parts.append(one(_TIMES))
    return _OPENINGS[speaker] + " ".join(parts) + _ENDINGS[speaker] + "\n"


def encode(text: str) -> NDArray[np.int64]:
    """Characters to symbols, int64 [characters].

    Raises:
        DataError: a character outside `VOCABULARY`.

    >>> encode("a b")
    array([6, 1, 7])
    """
    unknown = sorted(set(text) - set(VOCABULARY))
    if unknown:
        raise DataError(f"characters {''.join(unknown)!r} are not in the vocabulary {VOCABULARY!r}; use text.lower()")
    return np.array([VOCABULARY.index(character) for character in text], dtype=np.int64)


def decode(symbols: NDArray[np.int64]) -> str:
    """Symbols to characters.

    >>> decode(encode("so what?"))
    'so what?'
    """
    return "".join(VOCABULARY[symbol] for symbol in symbols)


def characters(samples_per_speaker: int = 400, *, context: int = 32, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Train (four fifths of what each speaker says) and test (the rest).

    Args:
        samples_per_speaker: windows of text, of both parts together, at least 5.
        context: characters per window.
        seed: the same seed gives the same text.

    Returns:
        Two data sets; x int64 [samples, context] symbols, y int64 [samples, context] the symbol that follows each,
        groups int64 [samples] the speaker. Windows of one speaker follow each other and do not overlap.

    Raises:
        ConfigError: too few samples, or a context below 1.
    """
    if samples_per_speaker < 5:
        raise ConfigError(f"samples_per_speaker = {samples_per_speaker} leaves a part empty; ask for 5 or more")
    if context < 1:
        raise ConfigError(f"context = {context} characters; ask for 1 or more")
    cut = samples_per_speaker - round(samples_per_speaker * TEST_SHARE)
    needed = samples_per_speaker * context + 1
    windows = []
    for speaker in range(SPEAKERS):
        rng = np.random.default_rng([seed, speaker])
        text = ""
        while len(text) < needed:
            text += "".join(_sentence(speaker, rng) for _ in range(100))
        symbols = encode(text[:needed])
        windows.append((symbols[:-1].reshape(-1, context), symbols[1:].reshape(-1, context)))

    def part(which: slice) -> Dataset:
        x = np.concatenate([inputs[which] for inputs, _ in windows])
        y = np.concatenate([targets[which] for _, targets in windows])
        groups = np.repeat(np.arange(SPEAKERS, dtype=np.int64), len(x) // SPEAKERS)
        return Dataset("characters", x, y, len(VOCABULARY), NEXT_CHARACTER, groups)

    return part(slice(0, cut)), part(slice(cut, None))
