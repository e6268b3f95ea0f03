"""Searches of which it is known whether the first result matches, to fit and to measure its probability.

A trial is one query asked of the images, or of a random part of them. Kinds: `label` (a class name; half of the classes
are removed), `caption` (whose own image comes first), `foreign` (a caption asked of images of another kind) and
`nonsense`.
"""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.classes import prompt_text
from evaluation.datasets import Example
from evaluation.embedded_set import EmbeddedSet
from evaluation.embedding import embed_texts
from evaluation.options import Options
from lookalike.row_sample import SAMPLE_ROWS
from lookalike.types import Bool, Float32, Int64

MIN_ITEMS = 20
"""Fewest images of a half, and of a kind for captions of another kind."""
REMOVALS = 12
"""Times that a random half of the classes is removed."""
LABEL_PROMPTS = ("{}", "a {}")
"""How people ask for a class, beside the prompt of the options."""
IMAGE_REMOVALS = 4
MIN_PART = 20
"""Fewest images of a random part."""
MAX_IMAGES = 4_000
"""Of a half. More would take minutes: each class is asked of all of them, many times."""
MAX_CAPTIONS = 500
MAX_IMAGE_QUERIES = 500
"""For each removal of classes."""
NONSENSE_TEXTS = 200
_IGNORED = {"and", "for", "from", "set", "the", "with"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A query and its best item.

    Attributes:
        kind: label, caption, foreign or nonsense.
        score: cosine of the best item.
        background: (m,) cosines with a sample of the images.
        count: number of images searched.
        right: whether the best item matches.
    """

    kind: str
    score: float
    background: Float32
    count: int
    right: bool


def text_trials(data: EmbeddedSet, half: int, options: Options) -> list[Trial]:
    """Return the trials of texts with one half (0 or 1) of the classes, images and nonsense.

    Raises:
        TextUnsupported: the encoder has no text tower here.
    """
    own = _Half(data, half, options)
    return own.trials() if len(own.rows) >= MIN_ITEMS else []


def image_trials(data: EmbeddedSet, half: int, options: Options) -> list[Trial]:
    """Return the trials of images with one half (0 or 1): of classes that are there or removed, and of another kind."""
    own = _Half(data, half, options)
    return own.image_trials() if len(own.rows) >= MIN_ITEMS else []


def nonsense_texts(count: int, seed: int) -> list[str]:
    """Return random strings: keys beside each other, letters, consonants, digits, signs, syllables."""
    rng = np.random.default_rng(seed)
    alphabets = [string.ascii_lowercase, "bcdfghjklmnpqrstvwxz", string.digits, string.ascii_letters + string.digits]
    texts = []
    for number in range(count):
        kind = number % 7
        if kind < 4:
            texts.append("".join(rng.choice(list(alphabets[kind]), rng.integers(3, 13))))
        elif kind == 4:
            row = ("qwertyuiop", "asdfghjkl", "zxcvbnm")[rng.integers(3)]
            start = rng.integers(0, len(row) - 3)
            texts.append(row[start : start + rng.integers(3, 9)] * int(rng.integers(1, 3)))
        elif kind == 5:
            words = ("".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 9))) for _ in range(3))
            texts.append(" ".join(words))
        else:
            texts.append("".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in range(4)))
    return texts


def half_nonsense(half: int, seed: int) -> list[str]:
    """Return the nonsense of a half; none of the second half's is in the first."""
    first = nonsense_texts(NONSENSE_TEXTS, 2 * seed)
    if half == 0:
        return first
    return [text for text in nonsense_texts(NONSENSE_TEXTS, 2 * seed + 1) if text not in set(first)]


def names(example: Example, label: str) -> bool:
    """Return whether an image's label or one of its captions has the words of `label`, in singular or plural."""
    pattern = re.compile(rf"\b{re.escape(prompt_text(label))}(s|es)?\b", re.IGNORECASE)
    return pattern.search("\n".join((*example.captions, prompt_text(example.label or "")))) is not None


def _is_described_by_label(example: Example) -> bool:
    """Return whether the label says what the captions are about; a label such as `photograph` does not."""
    if example.label is None:
        return False
    return not example.captions or names(Example(example.key, example.load, captions=example.captions), example.label)


class _Half:
    """The images of one half; classes and unlabelled images are halved by a hash, so that no class is in both."""

    def __init__(self, data: EmbeddedSet, half: int, options: Options) -> None:
        kept = [zlib.crc32((each.label or each.key).encode()) % 2 == half for each in data.examples]
        self.rows = _evenly(np.flatnonzero(kept), MAX_IMAGES)
        self.examples = [data.examples[i] for i in self.rows]
        self.vectors = data.vectors[self.rows]
        self.words = [_words(f"{each.label or ''} {' '.join(each.captions)}") for each in self.examples]
        self._sharing: dict[str, Bool] = {}
        self.data, self.options, self.half = data, options, half
        self.rng = np.random.default_rng([options.seed, 4, half])

    def trials(self) -> list[Trial]:
        trials = [*self._captions(), *self._labels(), *self._nonsense()]
        return [trial for trial in trials if trial is not None]

    def image_trials(self) -> list[Trial]:
        labels = np.array([each.label or "" for each in self.examples])
        described = np.array([_is_described_by_label(each) for each in self.examples])
        classes, counts = np.unique(labels[described], return_counts=True)
        asked = classes[counts > 1]
        none = np.zeros(len(labels), bool)
        trials: list[Trial | None] = []
        unclear = {label: self._shares_words(label) & (labels != label) for label in asked}
        for _ in range(IMAGE_REMOVALS):
            removed = self.rng.permutation(asked)[: len(asked) // 2]
            kept = np.flatnonzero(~np.isin(labels, removed))
            for row in _evenly(np.flatnonzero(np.isin(labels, asked)), MAX_IMAGE_QUERIES):
                same = np.flatnonzero((labels == labels[row]) & ~np.isin(labels, removed))
                rows = self._part(kept, same[same != row])
                rows = rows[rows != row]
                trials.append(
                    self._trial("label", self.vectors[row], rows, labels == labels[row], unclear[labels[row]])
                )
        photographs = np.flatnonzero(labels == "")
        if min(len(photographs), described.sum()) >= MIN_ITEMS:
            everything = np.flatnonzero(described)
            trials += [
                self._trial("foreign", self.vectors[row], self._part(everything), none, none)
                for row in self.rng.permutation(photographs)[:MAX_CAPTIONS]
            ]
        return [trial for trial in trials if trial is not None]

    def _labels(self) -> list[Trial | None]:
        classes = sorted({each.label for each in self.examples if each.label is not None})
        matches = {label: np.array([names(each, label) for each in self.examples]) for label in classes}
        asked = [label for label in classes if matches[label].sum() > 1]
        if len(asked) < 2 or all(label.lstrip("-").isdecimal() for label in asked):
            return []
        texts = [
            [prompt.format(prompt_text(label)) for label in asked] for prompt in (*LABEL_PROMPTS, self.options.prompt)
        ]
        vectors = [embed_texts(self.data.encoder, each) for each in texts]
        unclear = {label: self._shares_words(label) & ~matches[label] for label in asked}
        labelled = np.array([each.label is not None for each in self.examples])
        trials: list[Trial | None] = []
        for repeat in range(REMOVALS):
            removed = self.rng.permutation(asked)[: len(asked) // 2]
            kept = np.flatnonzero(~np.any([matches[label] for label in removed], axis=0))
            kept = kept[self._alike(labelled)[kept]]
            for label, vector in zip(asked, vectors[repeat % len(vectors)], strict=True):
                rows = self._part(kept, kept[matches[label][kept]])
                trials.append(self._trial("label", vector, rows, matches[label], unclear[label]))
        return trials

    def _captions(self) -> list[Trial | None]:
        positions = {int(row): position for position, row in enumerate(self.rows)}
        owners = [positions.get(int(self.data.captioned[owner]), -1) for owner in self.data.owners]
        mine = self.rng.permutation(np.flatnonzero(np.array(owners, np.int64) >= 0))[: 2 * MAX_CAPTIONS]
        labelled = np.array([_is_described_by_label(each) for each in self.examples])
        unlabelled = np.array([each.label is None for each in self.examples])
        none = np.zeros(len(self.examples), bool)
        trials: list[Trial | None] = []
        for caption in mine:
            owner, vector = owners[caption], self.data.caption_vectors[caption]
            own = none.copy()
            own[owner] = True
            alike = self._alike(unlabelled == unlabelled[owner])
            rows = self._part(np.flatnonzero(alike), np.array([owner]))
            trials.append(self._trial("caption", vector, rows, own, ~own))
            label = self.examples[owner].label or ""
            foreign = labelled if unlabelled[owner] else unlabelled & labelled[owner]
            others = np.flatnonzero(foreign & ~self._shares_words(label))
            if len(others) >= MIN_ITEMS:
                trials.append(self._trial("foreign", vector, self._part(others), none, none))
        return trials

    def _nonsense(self) -> list[Trial | None]:
        texts = half_nonsense(self.half, self.options.seed)
        none, everything = np.zeros(len(self.examples), bool), np.arange(len(self.examples))
        vectors = embed_texts(self.data.encoder, texts)
        return [self._trial("nonsense", vector, self._part(everything), none, none) for vector in vectors]

    def _alike(self, own_kind: Bool) -> Bool:
        """Return the images of a query's own kind, or half of the times all: collections are of one kind, or mixed."""
        return own_kind if self.rng.random() < 0.5 else np.ones(len(own_kind), bool)

    def _shares_words(self, label: str) -> Bool:
        """Return for each image whether its label or captions have one of the words of `label`."""
        if label not in self._sharing:
            wanted = _words(prompt_text(label))
            self._sharing[label] = np.array([bool(wanted & words) for words in self.words], bool)
        return self._sharing[label]

    def _part(self, rows: Int64, required: Sequence[int] | Int64 = ()) -> Int64:
        """Return the rows, or half of the times a random part of them with at least one of the required ones.

        Its size is log-uniform, so that the number of images counts.
        """
        if len(rows) == 0:
            return np.array(required, np.int64)[:1]
        if self.rng.random() < 0.5:
            return rows
        size = int(np.exp(self.rng.uniform(np.log(min(MIN_PART, len(rows))), np.log(len(rows)))))
        part = self.rng.permutation(rows)[: max(1, size)]
        return np.unique(np.append(part, self.rng.permutation(required)[:1]).astype(np.int64))

    def _trial(self, kind: str, vector: Float32, rows: Int64, right: Bool, unclear: Bool) -> Trial | None:
        """Search the rows; None if there are none, or the best one is neither right nor wrong."""
        if len(rows) == 0:
            return None
        scores = self.vectors[rows] @ vector
        best = rows[int(scores.argmax())]
        if unclear[best]:
            return None
        return Trial(kind, float(scores.max()), scores[:SAMPLE_ROWS], len(rows), bool(right[best]))


def _evenly(rows: Int64, most: int) -> Int64:
    """Return at most `most` of the rows, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // most))]


def _words(text: str) -> set[str]:
    return {re.sub(r"(es|s)$", "", word) for word in re.findall(r"[a-z]{3,}", text.lower())} - _IGNORED
