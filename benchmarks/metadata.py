"""`python -m benchmarks.metadata`: opening metadata, fetching rows, and looking up ids in both directions.

Rows are generated (id, path, caption, url, width, height, price, category) and written as the indexing job writes them.
Each size is measured in a separate process through `lookalike.metadata.Metadata`, as the service uses it. *Cold* means
that the files' pages were dropped before each call (see `benchmarks.pages.drop`), checked by mincore(2); *warm* means
that all are in memory. Memory is the growth of the process since before it opened the files, measured after opening and
after all cold fetches and look-ups. *Own* is anonymous memory (with what pyarrow loads at the first fetch). *Mapped*
are the files' clean pages that were read, which the kernel can reclaim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.encoders import machine
from benchmarks.pages import drop, fetch
from benchmarks.resident import MEGABYTE, mapped, resident
from lookalike.metadata import IDS_FILE, ROWS_FILE, Metadata, write_metadata

FOLDER = Path(".lookalike/benchmarks/metadata")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("caption", pa.string()),
        ("url", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("price", pa.float64()),
        ("category", pa.string()),
    ]
)
_CATEGORIES = np.array(["bags", "birds", "boats", "cups", "dogs", "lamps", "shoes", "trees"])
_WORDS = np.array(["a", "small", "red", "cup", "on", "the", "table", "beside", "two", "old", "books", "and", "lamp"])
_CHUNK_ROWS = 50_000
_COUNTS = (100, 1000)
_LOOK_UPS = 2000
_CALLS = 30


@dataclass(frozen=True)
class Figures:
    """Medians of one size.

    Attributes:
        rows: n.
        open_cold_ms: opening, pages dropped.
        open_warm_ms: opening, pages in memory.
        rows_100_cold_ms: 100 random rows as JSON-ready records, pages dropped.
        rows_100_warm_ms: the same, pages in memory.
        rows_1000_cold_ms: 1,000 random rows, pages dropped.
        rows_1000_warm_ms: the same, pages in memory.
        id_to_row_us: one id, pages in memory.
        row_to_id_us: one row's id, pages in memory.
        opened_own_mb: growth of anonymous memory by opening.
        opened_mapped_mb: resident pages of the files after opening.
        used_own_mb: growth of anonymous memory after use.
        used_mapped_mb: resident pages of the files after use.
        files_mb: size of the files that are mapped.
    """

    rows: int
    open_cold_ms: float
    open_warm_ms: float
    rows_100_cold_ms: float
    rows_100_warm_ms: float
    rows_1000_cold_ms: float
    rows_1000_warm_ms: float
    id_to_row_us: float
    row_to_id_us: float
    opened_own_mb: float
    opened_mapped_mb: float
    used_own_mb: float
    used_mapped_mb: float
    files_mb: float


_TITLES = {
    "open_cold_ms": ("opening, cold, ms", "1,000"),
    "open_warm_ms": ("opening, warm, ms", "1,000"),
    "rows_100_cold_ms": ("100 random rows, cold, ms", ""),
    "rows_100_warm_ms": ("100 random rows, warm, ms", "2"),
    "rows_1000_cold_ms": ("1,000 random rows, cold, ms", ""),
    "rows_1000_warm_ms": ("1,000 random rows, warm, ms", "10"),
    "id_to_row_us": ("id to row, microseconds", "microseconds"),
    "row_to_id_us": ("row to id, microseconds", "microseconds"),
    "opened_own_mb": ("own memory, opened, MB", "the same for any number of rows"),
    "opened_mapped_mb": ("mapped pages held, opened, MB", ""),
    "used_own_mb": ("own memory, used, MB", "the same for any number of rows"),
    "used_mapped_mb": ("mapped pages held, used, MB", ""),
    "files_mb": ("the files, MB", ""),
}


def generate(folder: Path, count: int) -> None:
    """Write the metadata of `count` images into `folder`, unless it exists."""
    if (folder / IDS_FILE).is_file():  # written last
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_metadata(folder, SCHEMA, _tables(count))


def item_id(row: int) -> str:
    """Return the id of a row."""
    return f"shop-{row % 97:02d}/{row:09d}.jpg"


def _tables(count: int) -> Iterator[pa.Table]:
    rng = np.random.default_rng(0)
    for start in range(0, count, _CHUNK_ROWS):
        rows = range(start, min(start + _CHUNK_ROWS, count))
        size = len(rows)
        words = _WORDS[rng.integers(0, len(_WORDS), (size, 12))]
        columns = {
            "id": [item_id(row) for row in rows],
            "path": [f"/photographs/{row // 1000:05d}/{row:09d}.jpg" for row in rows],
            "caption": [" ".join(line) if row % 10 else None for row, line in zip(rows, words.tolist(), strict=True)],
            "url": [f"https://images.example/{row % 13}/full/{row:09d}.jpg?quality=90" for row in rows],
            "width": rng.integers(200, 6000, size),
            "height": rng.integers(200, 6000, size),
            "price": rng.random(size) * 100,
            "category": _CATEGORIES[rng.integers(0, len(_CATEGORIES), size)].tolist(),
        }
        yield pa.table(columns, schema=SCHEMA)


def measure(folder: Path) -> Figures:
    """Measure one folder in this process, which must not have opened it before."""
    files = [folder / name for name in (ROWS_FILE, IDS_FILE)]
    before = resident()
    open_cold, metadata = _open(folder, files)
    opened, opened_mapped = resident().since(before), sum(map(mapped, files))
    cold = {count: _fetch_ms(metadata, count, files) for count in _COUNTS}
    _look_up_us(metadata)  # once, for its memory
    used, used_mapped = resident().since(before), sum(map(mapped, files))
    for path in files:
        fetch(path)
    warm = {count: _fetch_ms(metadata, count) for count in _COUNTS}
    id_to_row, row_to_id = _look_up_us(metadata)
    return Figures(
        rows=len(metadata),
        open_cold_ms=open_cold,
        open_warm_ms=statistics.median(_open(folder)[0] for _ in range(_CALLS)),
        rows_100_cold_ms=cold[100],
        rows_100_warm_ms=warm[100],
        rows_1000_cold_ms=cold[1000],
        rows_1000_warm_ms=warm[1000],
        id_to_row_us=id_to_row,
        row_to_id_us=row_to_id,
        opened_own_mb=opened.anonymous / MEGABYTE,
        opened_mapped_mb=opened_mapped / MEGABYTE,
        used_own_mb=used.anonymous / MEGABYTE,
        used_mapped_mb=used_mapped / MEGABYTE,
        files_mb=sum(path.stat().st_size for path in files) / MEGABYTE,
    )


def table(figures: Sequence[Figures]) -> str:
    """Return a Markdown table with a line for each figure and a column for each size."""
    sizes = [f"{f.rows:,} rows" for f in figures]
    lines = [f"| | {' | '.join(sizes)} | target |", f"| --- |{' ---: |' * len(sizes)} --- |"]
    for name, (title, target) in _TITLES.items():
        lines.append(f"| {title} | {' | '.join(str(getattr(f, name)) for f in figures)} | {target} |")
    return "\n".join(lines)


def _open(folder: Path, dropped: Sequence[Path] = ()) -> tuple[float, Metadata]:
    """Open the metadata; return the milliseconds and the metadata."""
    for path in dropped:
        drop(path)
    started = time.perf_counter()
    metadata = Metadata(folder)
    return 1e3 * (time.perf_counter() - started), metadata


def _fetch_ms(metadata: Metadata, count: int, dropped: Sequence[Path] = ()) -> float:
    """Return the median milliseconds of fetching `count` random rows, different ones each time."""
    rng, times = np.random.default_rng(count), []
    for _ in range(_CALLS):
        rows = rng.integers(0, len(metadata), count).tolist()
        for path in dropped:
            drop(path)
        started = time.perf_counter()
        metadata.records(rows)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def _look_up_us(metadata: Metadata) -> tuple[float, float]:
    """Return the median microseconds of id -> row and of row -> id."""
    to_row, to_id = [], []
    for row in np.random.default_rng(0).integers(0, len(metadata), _LOOK_UPS).tolist():
        expected = item_id(row)
        started = time.perf_counter()
        found = metadata.row_of(expected)
        between = time.perf_counter()
        record = metadata.records([row])[0]
        to_id.append(1e6 * (time.perf_counter() - between))
        to_row.append(1e6 * (between - started))
        if (found, record["id"]) != (row, expected):
            raise AssertionError(f"row {row} is {expected!r}, but {found} and {record['id']!r} were found")
    return statistics.median(to_row), statistics.median(to_id)


def run(folder: Path, counts: Sequence[int], rounds: int) -> list[Figures]:
    """Measure all sizes in turn, each in a separate process; return medians of the rounds."""
    for count in counts:
        generate(folder / str(count), count)
    measured: dict[int, list[Figures]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            command = [sys.executable, "-m", "benchmarks.metadata", "--measure", str(folder / str(count))]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            measured[count].append(Figures(**json.loads(output)))
    return [_medians(figures) for figures in measured.values()]


def _medians(figures: Sequence[Figures]) -> Figures:
    names = [field.name for field in fields(Figures)]
    medians = {name: round(statistics.median(getattr(f, name) for f in figures), 2) for name in names}
    return Figures(**{**medians, "rows": figures[0].rows})


def main() -> None:
    """Parse the arguments, generates, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[100_000, 1_000_000], help="rows to generate")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="kept between runs, on a real disk")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each size; medians are reported")
    parser.add_argument("--json", action="store_true", help="one JSON object a size instead of a table")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asdict(measure(options.measure))))
        return
    figures = run(options.folder, options.n, options.rounds)
    if options.json:
        for line in figures:
            print(json.dumps({"machine": machine(), **asdict(line)}))
        return
    print(f"{machine()}\n\n{table(figures)}")


if __name__ == "__main__":
    main()
