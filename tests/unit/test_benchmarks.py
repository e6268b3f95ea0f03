"""Benchmarks: recall, memory and page counts, and reports.

Nothing here asserts a time; vectors are random and few, so no data is fetched.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    build_memory,
    cold_cache,
    combining,
    index_frontier,
    lookalike_store,
    metadata,
    pages,
    scale,
    service,
    vectors,
)
from benchmarks.frontier.process import Assignment, Process, Unavailable
from benchmarks.frontier.report import Point, Row, fastest, parse_systems, plot, staircase, summary, table
from benchmarks.frontier.systems import SYSTEMS, Settings
from benchmarks.recall import K, ann_recall, cosines, tenth_cosines
from benchmarks.resident import MEGABYTE, AnonymousPeak, mapped
from lookalike.stores.faiss.library import INDEX_FILE
from lookalike.types import Float32, Int64
from tests.conftest import REPOSITORY

needs_linux = pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="counts memory by Linux's /proc")


def unit(count: int, dim: int, seed: int = 0) -> Float32:
    drawn = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    normed: Float32 = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return normed


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A folder of 1,500 vectors and 40 queries, on a file system whose pages can be dropped."""
    folder = tmp_path / "1500"
    folder.mkdir()
    np.save(folder / vectors.VECTORS_FILE, unit(1500, 16))
    np.save(folder / vectors.QUERIES_FILE, unit(40, 16, seed=1))
    vectors.float16_copy(folder, vectors.load(folder)[0])
    try:
        pages.drop(folder / vectors.FLOAT16_FILE)
    except OSError as error:
        pytest.skip(str(error))
    return folder


class TestRecall:
    def test_recall_is_the_share_of_the_true_ten(self) -> None:
        gallery, queries = unit(300, 8), unit(20, 8, seed=1)
        truth = np.argsort(-queries @ gallery.T, axis=1)[:, :K]
        rows_found = truth.copy()
        rows_found[:, 6:] = np.argsort(queries @ gallery.T, axis=1)[:, : K - 6]  # the farthest: all wrong
        tenth = tenth_cosines(gallery, queries, truth)
        assert ann_recall(gallery, queries, truth, tenth) == 1.0
        assert ann_recall(gallery, queries, rows_found, tenth) == pytest.approx(0.6)

    def test_duplicate_of_the_tenth_counts(self) -> None:
        gallery = np.concatenate([unit(10, 4), unit(10, 4)])  # row i + 10 is row i again
        queries = unit(3, 4, seed=1)
        truth = np.argsort(-queries @ gallery.T, axis=1, kind="stable")[:, :K]
        twins = (truth + 10) % 20
        assert ann_recall(gallery, queries, twins, tenth_cosines(gallery, queries, truth)) == 1.0

    def test_missing_and_repeated_rows_do_not_count(self) -> None:
        gallery, queries = unit(50, 8), unit(1, 8, seed=1)
        truth = np.argsort(-queries @ gallery.T, axis=1)[:, :K]
        best = int(truth[0, 0])
        rows_found = np.array([[best, best, best, -1, -1, *truth[0, 1:6]]])
        assert ann_recall(gallery, queries, rows_found, tenth_cosines(gallery, queries, truth)) == pytest.approx(0.6)
        assert (cosines(gallery, queries, rows_found)[0, 1:5] == -1).all()


def a_row(system: str, recall: float, qps: float, **more: object) -> Row:
    row = Row(
        system=system,
        params={"ef": 32},
        recall=recall,
        qps=qps,
        single_ms=0.5,
        build_s=12.5,
        build_cpu_s=20.0,
        bytes_per_vector=150.0,
        reclaimable_bytes_per_vector=0.0,
        index_bytes_per_vector=149.0,
        chosen=False,
        tune_s=0.0,
        build_own_mb=300.0,
        build_peak_mb=400.0,
        index="IVF4",
        library="lib 1.0",
        n=1000,
    )
    return replace(row, **more)  # type: ignore[arg-type]


ROWS = [
    a_row("flat", 1.0, 100.0, params={}),
    a_row("lookalike", 0.94, 4000.0),
    a_row("lookalike", 0.96, 2000.0, chosen=True),
    a_row("peer", 0.95, 500.0),
    a_row("peer", 0.99, 50.0),
]


class TestFrontierReport:
    def test_systems_are_parsed_in_order_and_once(self) -> None:
        assert parse_systems("lookalike, flat,lookalike,", SYSTEMS) == ["lookalike", "flat"]

    @pytest.mark.parametrize(
        ("text", "message"), [("flat,annoy", "annoy"), ("", "at least one"), (" , ", "at least one")]
    )
    def test_unknown_system_lists_the_known_ones(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            parse_systems(text, SYSTEMS)
        assert "hnswlib" in str(caught.value)

    def test_redundant_points_are_left_out(self) -> None:
        tried = [Point({"p": i}, recall, 1.0) for i, recall in enumerate([0.5, 0.45, 0.503, 0.948, 0.9501, 0.96])]
        assert [p.params["p"] for p in staircase(tried, 0.95)] == [0, 3, 4, 5]
        tried[1] = replace(tried[1], chosen=True)
        assert [p.params["p"] for p in staircase(tried, 0.95)] == [0, 1, 3, 4, 5]

    def test_fastest_point_of_a_recall(self) -> None:
        assert fastest(ROWS, "lookalike", 0.9) == ROWS[1]
        assert fastest(ROWS, "lookalike", 0.95) == ROWS[2]
        assert fastest(ROWS, "lookalike", 0.97) is None

    def test_tables_compare_at_equal_recall(self) -> None:
        lines = table(ROWS).splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert lines[4] == "| lookalike | ef 32 (its choice) | 0.9600 | 2,000 | 20.0 | 0.50 |  |"
        assert [line.split("|")[-2].strip() for line in lines[2:]] == ["-", "", "", "4.0 x", "-"]
        lines = summary(ROWS, 0.95).splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert [line.split("|")[-4].strip() for line in lines[2:]] == ["100", "2,000", "500"]
        assert summary(ROWS[1:2], 0.95).splitlines()[2].endswith("| - | - | - |")

    def test_plot_is_an_image(self, tmp_path: Path) -> None:
        plot(ROWS, tmp_path / "frontier.png")
        assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


@needs_linux
class TestFrontier:
    def test_run_skips_missing_systems(
        self, on_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = "index_frontier --n 1500 --systems flat,lookalike,autofaiss --autofaiss-python /none --rounds 1"
        monkeypatch.setattr(
            sys, "argv", [*command.split(), "--singles", "2", "--json", "--folder", str(on_disk.parent)]
        )
        assert index_frontier.main() == 0
        output = capsys.readouterr()
        rows = [json.loads(line) for line in output.out.splitlines()]
        assert {"system", "params", "recall", "qps", "single_ms", "build_s", "bytes_per_vector"} <= rows[0].keys()
        assert [(row["system"], row["recall"]) for row in rows if row["system"] == "flat"] == [("flat", 1.0)]
        own = [row for row in rows if row["system"] == "lookalike"]
        assert sum(row["chosen"] for row in own) == 1
        assert all(row["qps"] > 0 and row["index"].startswith("IVF") for row in own)
        assert max(row["recall"] for row in own) > 0.9
        assert "autofaiss is left out: /none can't be run" in output.err

    def test_unknown_system_is_a_usage_error(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["index_frontier", "--systems", "annoy"])
        with pytest.raises(SystemExit, match="2"):
            index_frontier.main()
        assert "unknown: annoy; there are flat, lookalike" in capsys.readouterr().err

    def test_error_of_a_killed_process_is_reported(self, on_disk: Path) -> None:
        with (
            pytest.raises(Unavailable, match="its process ended: KeyError: 'nobody'"),
            Process(Assignment("nobody", Settings(), on_disk, on_disk / "nobody")),
        ):
            pass

    def test_missing_library_is_named(self, on_disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "hnswlib.py").write_text("raise ModuleNotFoundError(name='hnswlib')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with (
            pytest.raises(Unavailable, match="hnswlib is not installed: pip install hnswlib"),
            Process(Assignment("hnswlib", Settings(), on_disk, on_disk / "hnswlib")),
        ):
            pass


@needs_linux
class TestMemory:
    def test_own_memory_is_separate_from_mapped_files(self, tmp_path: Path) -> None:
        """In a separate process: one that ran other tests may release memory meanwhile."""
        code = """if True:
            import sys
            from pathlib import Path
            import numpy as np
            from benchmarks.resident import MEGABYTE, mapped, resident
            path, before = Path(sys.argv[1]), resident()
            held = np.ones(8 * MEGABYTE, np.uint64)
            own = resident().since(before).anonymous
            np.save(path, held)
            before, closed = resident(), mapped(path)
            content = np.load(path, mmap_mode="r")
            assert content.sum() == held.sum()
            print(own, closed, resident().since(before).file, mapped(path))
        """
        path = tmp_path / "x.npy"
        output = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
        own, closed, file, opened = map(int, output.split())
        assert 60 * MEGABYTE < own < 80 * MEGABYTE
        assert closed == 0
        assert file >= 60 * MEGABYTE
        assert opened == pytest.approx(path.stat().st_size, abs=2 * mmap.PAGESIZE)

    def test_peak_of_a_watched_process(self) -> None:
        code = "x = bytearray(64 << 20); print('there', flush=True); input()"
        command = [sys.executable, "-c", code]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
            AnonymousPeak(process.pid) as peak,
        ):
            assert process.stdout is not None
            process.stdout.readline()
            while (most := peak.take()) < 64 * MEGABYTE:
                pass
            process.communicate("\n")
        assert most < 96 * MEGABYTE

    def test_pages_are_dropped_and_read_again(self, on_disk: Path) -> None:
        path = on_disk / vectors.FLOAT16_FILE
        float16_vectors = np.load(path, mmap_mode="r")
        expected = np.array(float16_vectors)
        pages.fetch(path)
        assert (pages.cached_share(path), mapped(path)) == (1.0, pytest.approx(path.stat().st_size, abs=4096))
        pages.drop(path)
        assert (pages.cached_share(path), mapped(path)) == (0.0, 0)
        assert (float16_vectors == expected).all()

    def test_pages_held_by_others_are_reported(self, on_disk: Path) -> None:
        path = on_disk / vectors.FLOAT16_FILE
        code = "import sys, numpy as np; x = np.load(sys.argv[1], mmap_mode='r'); print(x.sum(), flush=True); input()"
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(OSError, match="mapped by another process"):
                pages.drop(path)
            process.communicate("\n")


@needs_linux
class TestColdCache:
    def test_cold_queries_find_no_cached_page(self, on_disk: Path) -> None:
        float16_vectors, queries = vectors.float16_copy(on_disk, vectors.load(on_disk)[0]), vectors.load(on_disk)[1]
        store = lookalike_store.open_tuned(on_disk, float16_vectors, 0.9)

        def search(query: Float32) -> Int64:
            return lookalike_store.search(store, float16_vectors, query, {}, 1)

        rows = cold_cache.measure(on_disk, search, queries, cold_cache.CASES, rounds=1, singles=3)
        assert [row.case for row in rows] == [case.name for case in cold_cache.CASES]
        assert [(row.vectors_in_memory, row.index_in_memory) for row in rows[:3]] == [(1, 1), (0, 1), (0, 0)]
        assert all(0 < row.p50_ms <= row.p99_ms and row.queries == 3 for row in rows)
        assert rows[0].major_faults == 0 < rows[2].major_faults
        lines = cold_cache.table(rows).splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert (on_disk / INDEX_FILE).is_file()


@needs_linux
class TestMetadata:
    def test_measures_generated_metadata(self, on_disk: Path) -> None:
        folder = on_disk / "metadata"
        metadata.generate(folder, 300)
        assert len(metadata.Metadata(folder)) == 300
        assert metadata.Metadata(folder).row_of(metadata.item_id(123)) == 123
        figures = metadata.measure(folder)
        assert figures.rows == 300
        assert figures.rows_100_warm_ms > 0
        assert figures.used_mapped_mb <= figures.files_mb + 0.1
        lines = metadata.table([figures, figures]).splitlines()
        assert lines[0] == "| | 300 rows | 300 rows | target |"
        assert len({line.count("|") for line in lines}) == 1


class TestBuildMemory:
    def test_estimate_for_ten_million(self) -> None:
        """Training scales with the sample, adding with twice the file, or with its slope where that is more."""
        idle = build_memory.Figures(0, 0, 100, 100, 0, 0, 0)
        sample = build_memory.create_builder("faiss", 10_000_000, 512).sample_size
        built = [
            build_memory.Figures(n, 500, 100 + 200 * n / 1_000_000, 0, 150 * n / 1_000_000, sample // 2, 1)
            for n in (2_000_000, 1_000_000)
        ]
        estimate = build_memory.estimate_memory(idle, built, 512)
        assert estimate is not None
        assert estimate.train_mb == pytest.approx(900)
        assert estimate.add_mb == pytest.approx(500 + 8 * 300)
        assert (estimate.index_mb, estimate.peak_mb) == (pytest.approx(1500), estimate.add_mb)
        steep = [replace(f, add_mb=100 + 400 * f.n / 1_000_000) for f in built]
        steeper = build_memory.estimate_memory(idle, steep, 512)
        assert steeper is not None
        assert steeper.add_mb == pytest.approx(4100)
        assert (
            build_memory.estimate_memory(idle, [*built, replace(built[0], n=100_000)], 512) is None
        )  # nothing but buffers
        lines = build_memory.table(idle, built, estimate).splitlines()
        assert len({line.count("|") for line in lines}) == 1

    @needs_linux
    def test_build_memory_is_measured(self, on_disk: Path) -> None:
        before = sorted(on_disk.iterdir())
        figures = build_memory.build_in_process(on_disk / vectors.FLOAT16_FILE, 1200, threads=1)
        assert (figures.n, figures.sample) == (1200, 1200)
        assert 0 < figures.index_mb < 1
        assert 10 < figures.add_mb < figures.peak_mb < 2000
        assert sorted(on_disk.iterdir()) == before


WRK = """
  Latency Distribution
     50%   64.21ms
     75%  100.00ms
     99%    1.25s
  3848 requests in 8.01s, 6.11MB read
Requests/sec:    480.53
"""


def test_output_of_wrk_is_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def wrk(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, WRK, "")

    monkeypatch.setattr(subprocess, "run", wrk)
    for target in (service.lookalike_target("http://h"), service.clip_retrieval_target("http://h", "gallery")):
        for kind in ("text", "image"):
            assert service.load(target, kind, 32, 8, tmp_path) == (480.53, 64.21, 1250.0, 0)
            script = (tmp_path / "load.lua").read_text()
            assert "TEMPLATE" not in script
            assert ("string.format(" in script) == (kind == "text")
    assert {command[2] for command in commands} == {"-c32"}
    json.loads(service.lookalike_target("").text[1] % "a dog")
    json.loads(service.clip_retrieval_target("", "x").text[1] % "a dog")


class TestCombining:
    CAPTIONS = (*[["a red ball on grass"]] * 9, *[["a red dog on grass"]] * 9, ["a dog", "a red dog", "a red mat"])

    def test_queries_need_both_parts(self) -> None:
        gallery, vectors = unit(len(self.CAPTIONS), 8), dict[str, Float32]()

        def vector(names: list[str]) -> Float32:
            vectors.update(zip(names, unit(len(names), 8, seed=1), strict=True))
            return np.array([vectors[name] for name in names])

        plus, minus = combining.plus_minus(gallery, self.CAPTIONS, len(self.CAPTIONS), vector, seed=0)
        rows = [i for i in range(len(plus.excluded)) if np.array_equal(plus.second[i], vectors["dog"])]
        assert sorted(plus.excluded[rows].tolist()) == list(range(9))  # images of a ball; the last image lacks grass
        assert plus.relevant[rows].tolist() == [[9 <= row < 18 for row in range(19)]] * 9
        assert minus.relevant[minus.excluded == 9][:, 9:].sum() == 0  # images of a dog are not relevant without it
        assert {(plus.sign, minus.sign)} == {(1, -1)}

    def test_the_image_of_the_query_is_no_result(self) -> None:
        gallery = unit(20, 8)
        relevant = np.zeros((1, 20), np.bool_)
        relevant[0, 3] = True
        queries = combining.Queries(gallery[:1], gallery[3:4], 1, relevant, np.array([0]), np.array([0]))
        space = combining.Space(gallery[0], gallery[0], gallery)
        found = combining.plain(queries.first, queries.second, 0.0, space)
        assert combining.precisions(found, gallery, queries, 20).tolist() == [1.0]
        away = combining.second_alone(queries.first, queries.second, -1.0, space)
        assert combining.precisions(away, gallery, queries, 1).tolist() == [0.0]


class TestScale:
    def test_computed_needs_are_close_to_the_largest_build(self) -> None:
        _, threads, builds = scale.measured()
        model = scale.fit(builds[:2], threads)
        largest = builds[2]
        assert [build.n for build in builds] == list(scale.SIZES)
        n, d = largest.n, largest.d
        assert scale.PRESET.memory_bytes(n, d) == pytest.approx(largest.index_bytes, rel=0.1)
        assert model.train_seconds(n, d) / threads == pytest.approx(largest.train_seconds, rel=0.3)
        assert model.add_seconds(n, d) / threads == pytest.approx(largest.add_seconds, rel=0.3)
        assert model.memory_bytes(n, d) == pytest.approx(largest.memory_bytes, rel=0.3)
        assert model.query_ms(n) == pytest.approx(largest.query_ms, rel=0.3)

    def test_guide_has_the_current_tables(self) -> None:
        _, threads, builds = scale.measured()
        model = scale.fit(builds[:2], threads)
        page = (REPOSITORY / "docs" / "guides" / "scale.md").read_text()
        assert scale.plan_table(model, scale.PLANNED) in page
        assert scale.check_table(model, threads, builds) in page

    def test_command_computes_another_size(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["scale", "--items", "250000000"])
        scale.main()
        assert "| 250,000,000 images |" in capsys.readouterr().out
