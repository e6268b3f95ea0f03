"""Patterns of files and folders that a folder source leaves out, in gitignore syntax.

`--exclude` has precedence over `.lookalikeignore` files, a deeper one of these over a higher one, and all over the
defaults. As in git, nothing is looked up below an excluded folder, and `!PATTERN` includes again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from lookalike.errors import SourceError
from lookalike.sources.item import composed, display_name, read_error

IGNORE_FILE = ".lookalikeignore"
"""Name of a file of patterns, for its folder and everything below."""

NO_MEDIA_FILE = ".nomedia"
"""Name of the file that marks a folder of no interest to media programs, as on Android."""

DEFAULT_EXCLUDES = (
    "@eaDir/",
    "#recycle/",
    "$RECYCLE.BIN/",
    "System Volume Information/",
    "lost+found/",
    "*.lrdata/",
    "*.photoslibrary/resources/",
)
"""Folders that are excluded by default anywhere, in upper or lower case: thumbnails, previews and deleted files."""


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Patterns relative to a folder below the source; `base` is `""` or ends in a slash."""

    base: str
    lines: tuple[str, ...]
    spec: GitIgnoreSpec

    def decide(self, path: str) -> tuple[bool, str] | None:
        """Return (whether the path is excluded, by which pattern); None if no pattern matches."""
        result = self.spec.check_file(path.removeprefix(self.base))
        if result.include is None or result.index is None:
            return None
        return result.include, self.lines[result.index]


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The patterns that hold in one folder; `levels` has those of the highest precedence first."""

    levels: tuple[_Patterns, ...] = ()

    def below(self, folder: str, path: Path) -> IgnoreRules:
        """Return the rules for a folder that has an ignore file.

        Args:
            folder: relative to the source, `""` or ending in a slash.
            path: the ignore file.

        Raises:
            SourceError: it can't be read, or holds an invalid pattern.
        """
        try:
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise read_error(path, error) from error
        own = _Patterns(folder, *_compiled(text.splitlines(), display_name(str(path))))
        options = tuple(level for level in self.levels if level.base == _OPTION)
        return IgnoreRules((*options, own, *self.levels[len(options) :]))

    def excluded_by(self, path: str) -> str | None:
        """Return the pattern that excludes a path, None if it is included; the path of a folder ends in a slash."""
        if (decision := self._decide(path)) is not None:
            return decision[1] if decision[0] else None
        if path.endswith("/") and (decision := _DEFAULTS.decide(path.lower())) is not None:
            return decision[1]
        return None

    def includes_again(self, path: str) -> bool:
        """Return whether a pattern `!...` names a path, which overrides the defaults."""
        decision = self._decide(path)
        return decision is not None and not decision[0]

    def _decide(self, path: str) -> tuple[bool, str] | None:
        if not self.levels:
            return None
        name = composed(path)
        return next((decision for level in self.levels if (decision := level.decide(name)) is not None), None)


_OPTION = "\0"
"""The base of the patterns of `--exclude`: no path begins with it, so they are relative to the source."""


def ignore_rules(exclude: Iterable[str] = ()) -> IgnoreRules:
    """Return the rules of the option `--exclude`.

    Raises:
        SourceError: a pattern is invalid, or has no effect.
    """
    patterns = list(exclude)
    for pattern in patterns:
        _require_effect(pattern)
    return IgnoreRules((_Patterns(_OPTION, *_compiled(patterns, "--exclude")),)) if patterns else IgnoreRules()


def _require_effect(pattern: str) -> None:
    _, spec = _compiled([pattern], "--exclude")
    if all(compiled.include is None for compiled in spec.patterns):
        raise SourceError(
            f"--exclude {pattern!r} matches nothing: it is empty, a comment or incomplete; write '#' and '!' at its "
            r"beginning as '\#' and '\!'"
        )


def _compiled(lines: Iterable[str], where: str) -> tuple[tuple[str, ...], GitIgnoreSpec]:
    kept = tuple(composed(line) for line in lines if line.strip())
    for line in kept:
        try:
            GitIgnoreSpec.from_lines([line], backend="simple")
        except (ValueError, re.error) as error:
            raise SourceError(f"{where}: {line[:200]!r} is not a pattern of gitignore: {error}") from error
    return kept, GitIgnoreSpec.from_lines(kept, backend="simple")


_ANYWHERE = [f"**/{name.lower()}" for name in DEFAULT_EXCLUDES]
_DEFAULTS = _Patterns("", DEFAULT_EXCLUDES, GitIgnoreSpec.from_lines(_ANYWHERE, backend="simple"))
