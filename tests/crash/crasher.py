"""The crash test: clients write to a service that is killed again and again; afterwards nothing may be missing.

The choices follow from the seed: what is written, what is killed, and when. How far the processes are at that moment
does not.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from http.client import HTTPException
from pathlib import Path
from random import Random

from tests.crash.checks import Checker
from tests.crash.collection import build_collection
from tests.crash.failure import Failure
from tests.crash.load import Client
from tests.crash.model import ClientModel, States
from tests.crash.service import Compaction, Launcher, Service

_CLIENTS = 6
_OWN_IDS = 16
_SOURCE_ITEMS = 120
_COMPACT_ITEMS = 20
_ENVIRONMENT = {
    "LOOKALIKE_COMPACT_ITEMS": str(_COMPACT_ITEMS),
    "LOOKALIKE_WATCH_SECONDS": "0.2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_WAIT_SECONDS = 10.0
_PLANS = {"start": 8, "soon": 48, "compaction": 20, "published": 12, "swapped": 12}
"""When a service is killed, by weight: before it is ready, soon after, and some time after a compaction has begun, has
published a version, or a response has named that version."""
_EXECUTED = 0.04
"""Part of the starts that are new processes; the others are forks of the launcher."""


@dataclass
class Figures:
    """What a run did.

    Attributes:
        kills: of processes, by SIGKILL.
        of_all: kills of a service with its compaction.
        of_service: kills of a service alone.
        of_compaction: kills of a compaction alone.
        at_start: kills of a service that was not ready yet.
        in_compaction: kills of a service while a compaction ran.
        in_swap: kills of a service after a version was published, and before a response named it.
        acknowledged: writes whose response arrived.
        unknown: writes whose response was lost.
        applied: those of them that had taken effect.
        items: comparisons of an item with what it must be.
        published: versions that compactions published.
        swapped: versions that replaced another one while the service ran.
        starts: seconds until each service was ready.
        seconds: of the run.
    """

    kills: int = 0
    of_all: int = 0
    of_service: int = 0
    of_compaction: int = 0
    at_start: int = 0
    in_compaction: int = 0
    in_swap: int = 0
    acknowledged: int = 0
    unknown: int = 0
    applied: int = 0
    items: int = 0
    published: int = 0
    swapped: int = 0
    starts: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __add__(self, other: Figures) -> Figures:
        """Return the figures of two runs at a time."""
        total = Figures(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(Figures)})
        total.seconds = max(self.seconds, other.seconds)
        return total

    def table(self) -> str:
        """Return the figures, one a line."""
        start = statistics.median(self.starts) if self.starts else 0.0
        rows: list[tuple[str, str]] = [
            ("kills", f"{self.kills:,}"),
            ("  of the service and its compaction", f"{self.of_all:,}"),
            ("  of the service alone", f"{self.of_service:,}"),
            ("  of the compaction alone", f"{self.of_compaction:,}"),
            ("  before the service was ready", f"{self.at_start:,}"),
            ("  while a compaction ran", f"{self.in_compaction:,}"),
            ("  between publication and swap", f"{self.in_swap:,}"),
            ("acknowledged writes, all there", f"{self.acknowledged:,}"),
            ("writes without a response", f"{self.unknown:,}, of which done: {self.applied:,}"),
            ("items compared", f"{self.items:,}"),
            ("versions published / swapped", f"{self.published:,} / {self.swapped:,}"),
            ("start of the service, median", f"{start:.2f} s"),
            ("seconds", f"{self.seconds:.0f}"),
            ("lost", "0"),
        ]
        return "\n".join(f"{name:<38}{value}" for name, value in rows)


class Crasher:
    """Kills the service of one collection.

    Attributes:
        figures: of the run so far.
    """

    def __init__(self, root: Path, seed: int, launcher: Launcher, say: Callable[[str], None]) -> None:
        """Build the collection at `root`."""
        self.figures = Figures()
        self._root, self._seed, self._launcher, self._say = root, seed, launcher, say
        self._random = Random(seed)
        self._models = _models(build_collection(root, _SOURCE_ITEMS))
        self._checker = Checker(self._models)
        self._orphans: list[Compaction] = []
        self._service: Service | None = None
        self._versions = {self._current()}
        self._log = root.parent / "service.log"

    def run(self, kills: int, *, seconds: float = 1e9) -> Figures:
        """Kill at least so often, or until the time is over, and return the figures. Raises Failure."""
        started = time.monotonic()
        life = 0
        try:
            while self.figures.kills < kills and time.monotonic() < started + seconds:
                life += 1
                self._live(life)
            self._check(self._start(executes=True), everything=True)
        except Failure as failure:
            raise Failure(
                f"seed {self._seed}, life {life}, after {self.figures.kills} kills: {failure}\n{self._last_log()}"
            ) from failure
        finally:
            self._end()
            self.figures.seconds = time.monotonic() - started
            self._count()
        return self.figures

    def _live(self, life: int) -> None:
        """Start the service, check it, let clients write to it, and kill it."""
        random = self._random
        plan = random.choices(list(_PLANS), list(_PLANS.values()))[0]
        alone = random.random() < 0.3
        self._say(f"life {life}: kill {plan}{', the service alone' if alone else ''}")
        service = self._start(executes=random.random() < _EXECUTED, is_awaited=plan != "start")
        if plan == "start":
            typical = statistics.median(self.figures.starts) if self.figures.starts else 1.0
            time.sleep(random.uniform(0, 1.1 * typical))
            self.figures.at_start += 1
            self._kill(service, [], alone=alone)
            return
        self._check(service, everything=life % 25 == 1)
        clients = [Client(model, service.port, f"{self._seed}.{life}.{model.client}") for model in self._models]
        for client in clients:
            client.start()
        try:
            self._await(plan, service, clients)
        finally:
            if any(client.failure for client in clients):
                for client in clients:
                    client.is_stopped = True
        self._kill(service, clients, alone=alone)

    def _start(self, *, executes: bool, is_awaited: bool = True) -> Service:
        self._service = Service(self._root, _ENVIRONMENT, self._log, self._launcher, executes=executes)
        if is_awaited:
            self.figures.starts.append(self._service.wait_until_ready())
        return self._service

    def _check(self, service: Service, *, everything: bool) -> None:
        try:
            self._checker.check(service.port, self._random, everything=everything)
        except (OSError, HTTPException) as error:
            time.sleep(0.5)  # until a service that ends has ended
            state = "runs" if service.is_running else "has ended by itself"
            raise Failure(f"a check lost its connection, and the service {state}: {error!r}") from error

    def _await(self, plan: str, service: Service, clients: list[Client]) -> None:
        """Return at the moment to kill."""
        random = self._random
        if plan == "soon":
            self._sleep(random.uniform(0, 0.7), clients)
            return
        if plan == "compaction":
            self._until(lambda: bool(_forgotten(service.compactions())), clients)
            self._sleep(random.uniform(0, 2.0), clients)
            running = service.compactions()
            if running and random.random() < 0.3:
                self.figures.kills += 1
                self.figures.of_compaction += 1
                for each in running:
                    each.end()
                self._sleep(random.uniform(0.1, 1.0), clients)
            else:
                _forgotten(running)
            return
        before = self._current()
        self._until(lambda: self._current() != before, clients)
        if plan == "swapped":
            self._until(lambda: self._current() in {client.version for client in clients}, clients)
        self._sleep(random.choice((0.0, random.uniform(0, 0.05), random.uniform(0, 0.5))), clients)

    def _until(self, condition: Callable[[], bool], clients: list[Client]) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not condition() and time.monotonic() < deadline:
            self._sleep(0.005, clients)

    def _sleep(self, seconds: float, clients: list[Client]) -> None:
        """Sleep while the clients write; return at once if one has found a failure."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not any(each.failure for each in clients):
            time.sleep(min(left, 0.05))

    def _kill(self, service: Service, clients: list[Client], *, alone: bool) -> None:
        is_cut_off = any(client.is_cut_off for client in clients)
        in_compaction = bool(_forgotten(service.compactions()))
        orphans = service.kill(with_compactions=not alone)
        published = self._current()
        self.figures.kills += 1
        self.figures.of_service += alone
        self.figures.of_all += not alone
        self.figures.in_compaction += in_compaction
        self._orphans += orphans
        for client in clients:
            client.join()
            if client.failure is not None:
                raise client.failure
        if is_cut_off:
            raise Failure("a client lost its connection before the service was killed")
        seen = {client.version for client in clients if client.version}
        self.figures.in_swap += bool(seen) and published not in seen
        self._versions.add(published)
        self._end_orphans()
        self._service = None

    def _end_orphans(self) -> None:
        """End compactions that have lost their service, some of them later."""
        for orphan in list(self._orphans):
            if not orphan.is_running or self._random.random() < 0.3:
                orphan.end()
                self._orphans.remove(orphan)

    def _end(self) -> None:
        if self._service is not None:
            self._service.kill(with_compactions=True)
        for orphan in self._orphans:
            orphan.end()
        self._orphans.clear()

    def _count(self) -> None:
        self._versions.add(self._current())
        self.figures.acknowledged = sum(model.acknowledged for model in self._models)
        self.figures.unknown = sum(model.unknown for model in self._models)
        self.figures.applied = sum(model.applied for model in self._models)
        self.figures.items = self._checker.items
        self.figures.published = len(self._versions) - 1
        self.figures.swapped = self._log.read_text(errors="replace").count("version_swapped ")

    def _current(self) -> str:
        return (self._root / "CURRENT").read_text().strip()

    def _last_log(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:] if self._log.exists() else ""


def crash(seed: int, kills: int, verbose: bool, without_commit: bool) -> Figures:
    """Make a collection, kill its service so often, and return the figures. Raises Failure."""
    launcher = Launcher(*(["--without-commit"] if without_commit else []))
    try:
        with tempfile.TemporaryDirectory(prefix="lookalike-crash-") as folder:

            def say(text: str) -> None:
                if verbose:
                    print(f"[{seed}] {text}", flush=True)

            return Crasher(Path(folder) / "collection", seed, launcher, say).run(kills)
    finally:
        launcher.close()


def _models(source: States) -> list[ClientModel]:
    """Return the clients: each has items of the source, and ids of its own."""
    models = []
    for number in range(_CLIENTS):
        states: States = {item_id: source[item_id] for item_id in list(source)[number::_CLIENTS]}
        states |= {f"client{number}/{each}": None for each in range(_OWN_IDS)}
        models.append(ClientModel(f"client{number}", states))
    return models


def _forgotten(compactions: list[Compaction]) -> list[Compaction]:
    """Close the handles of compactions that are left alone."""
    for each in compactions:
        each.close()
    return compactions
