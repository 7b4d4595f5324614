"""Counting, as cheap as it can be; turning counts into text is the work of `angos.runtime.observability.exposition`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from types import CoroutineType
from typing import Any, Final, Literal

from angos.runtime.observability.definitions import DEFINITIONS, OPERATION_BUCKETS, REQUEST_BUCKETS
from angos.runtime.observability.shared_cells import Labels, SharedCells
from angos.sansio.effects import (
    BodyInterrupted,
    BodyTooLarge,
    PeerUnavailable,
    StorageCorrupt,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Inline, Request, Response
from angos.sansio.http.route import (
    Blob,
    Catalog,
    Health,
    History,
    ManifestOf,
    Readiness,
    Referrers,
    Restore,
    Tags,
    TokenEndpoint,
    Upload,
    Uploads,
    VersionCheck,
    parse_endpoint,
)

METRICS_PATH: Final = "/metrics"

ROUTES: Final[dict[type, str]] = {
    VersionCheck: "version",
    Catalog: "catalog",
    Health: "healthz",
    Readiness: "readyz",
    TokenEndpoint: "token",
    Blob: "blob",
    Uploads: "upload",
    Upload: "upload",
    ManifestOf: "manifest",
    Tags: "tags",
    Referrers: "referrers",
    History: "history",
    Restore: "restore",
}
UNKNOWN_ROUTE: Final = "unknown"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "other"

_OUTCOMES: Final[dict[type[BaseException], str]] = {
    StorageUnavailable: "unavailable",
    PeerUnavailable: "unavailable",
    StorageFull: "full",
    StorageRefused: "refused",
    StorageCorrupt: "corrupt",
    BodyTooLarge: "too_large",
    BodyInterrupted: "interrupted",
}

Family = Literal["storage", "access"]
"""Of operations that are counted and timed."""

Figure = tuple[Labels, float]
"""A series (the name of its metric, then the values of its labels) and where it stands."""

_DROPPED: Final[Labels] = ("angos_metrics_dropped_total",)
_SCRATCH: Final[Labels] = ("",)  # takes what there is no room for; is shown to nobody
_REQUEST_SUM: Final = len(REQUEST_BUCKETS) + 1
_OPERATION_SUM: Final = len(OPERATION_BUCKETS) + 1
_CELLS_MAX: Final = max(definition.cells for definition in DEFINITIONS.values())


class Metrics:
    """All figures of this process, in memory that it shares with its siblings.

    To be made in the parent before it forks workers, and `begin` to be called in each of them. What counts is to be
    called on one thread of a process; `observed` and `series` in any.
    """

    def __init__(self, workers: int = 0) -> None:
        """For this process and `workers` that are forked from it; twice as many for a moment, while some end."""
        self._cells = SharedCells(2 * workers)
        self._clocks: dict[tuple[Family, str], _Clock] = {}
        self._start()

    def begin(self) -> None:
        """To be called in every process that serves: from here on one that was forked counts for itself."""
        if self._cells.claim():
            self._start()

    def _start(self) -> None:
        cells = self._cells
        self.values = cells.values
        """The cells of this process."""
        self._offsets = cells.offsets
        self._answers: dict[tuple[str, str, int], tuple[int, int, int, int]] = {}
        self._sources: list[_Source] = []
        for series, offset in self._offsets.items():
            if series != _SCRATCH and DEFINITIONS[series[0]].kind == "gauge":
                self.values[offset] = 0.0  # of the process that had this place before
        for series, count in ((_DROPPED, 1), (_SCRATCH, _CELLS_MAX)):
            if series not in self._offsets:
                cells.allocate(series, count)
        for clock in self._clocks.values():
            clock.begin()

    def offset(self, series: Labels) -> int:
        """Where a series begins in `values`; a place that nobody looks at when there are too many series."""
        offset = self._offsets.get(series)
        if offset is None:
            offset = self._cells.allocate(series, DEFINITIONS[series[0]].cells)
            if offset is None:
                self.values[self._offsets[_DROPPED]] += 1.0
                return self._offsets[_SCRATCH]
        return offset

    def count(self, *series: str, amount: float = 1.0) -> None:
        """Add to a counter."""
        self.values[self.offset(series)] += amount

    def set(self, *series: str, value: float) -> None:
        """Say where a gauge of this process stands; those of all processes are added up."""
        self.values[self.offset(series)] = value

    def observe(self, *series: str, seconds: float) -> None:
        """Add to a histogram."""
        buckets = DEFINITIONS[series[0]].buckets
        offset = self.offset(series)
        self.values[offset + bisect_left(buckets, seconds)] += 1.0
        self.values[offset + len(buckets) + 1] += seconds

    def on_answer(self, request: Request, response: Response, seconds: float, received: int) -> None:
        """Count an answered request (`angos.runtime.server.counters.OnAnswer`)."""
        method, path = request.method, request.target.partition("?")[0]
        key = (method, route_of(path), response.status)
        offsets = self._answers.get(key)
        if offsets is None:
            offsets = self._answer_offsets(*key)
        requests, duration, request_bytes, response_bytes = offsets
        values = self.values
        values[requests] += 1.0
        values[duration + bisect_left(REQUEST_BUCKETS, seconds)] += 1.0
        values[duration + _REQUEST_SUM] += seconds
        if received:
            values[request_bytes] += received
        if method != "HEAD":
            body = response.body
            values[response_bytes] += len(body.value) if type(body) is Inline else response.content_length or 0

    def _answer_offsets(self, method: str, route: str, status: int) -> tuple[int, int, int, int]:
        known = method if method in METHODS else OTHER_METHOD
        offsets = (
            self.offset(("http_requests_total", known, route, str(status))),
            self.offset(("http_request_duration_seconds", known, route)),
            self.offset(("http_request_bytes_total", route)),
            self.offset(("http_response_bytes_total", route)),
        )
        if known == method and self._offsets[_SCRATCH] not in offsets:
            self._answers[method, route, status] = offsets
        return offsets

    def observed(self, family: Family, operation: str, perform: Callable[..., Any]) -> Callable[..., Any]:
        """`perform`, which gives a reply or a coroutine that ends with it, with each call counted and timed."""
        clock = self._clocks.get((family, operation))
        if clock is None:
            clock = self._clocks[family, operation] = _Clock(self, family, operation)
        note_failure = clock.note_failure

        async def wait(reply: Any, began: float) -> Any:
            try:
                value = await reply
            except BaseException as error:
                note_failure(error, began)
                raise
            clock.note(began)
            return value

        def perform_observed(*arguments: Any) -> Any:
            began = perf_counter()
            try:
                reply = perform(*arguments)
            except Exception as error:
                note_failure(error, began)
                raise
            if type(reply) is CoroutineType:
                return wait(reply, began)
            # `clock.note`, without the time that calling it takes: this runs several times for every request.
            seconds, values, duration = perf_counter() - began, clock.values, clock.duration
            values[clock.done] += 1.0
            values[duration + bisect_left(OPERATION_BUCKETS, seconds)] += 1.0
            values[duration + _OPERATION_SUM] += seconds
            return reply

        return perform_observed

    def count_reload(self, result: Literal["applied", "rejected"], generation: int) -> None:
        """A changed configuration was taken or not. For the one process that decides, or it counts many times."""
        self.count("angos_configuration_reloads_total", result)
        self.set("angos_configuration_generation", value=generation)

    def follow(self, read: Callable[[], Iterable[Figure]]) -> None:
        """Publish figures that are kept elsewhere in this process whenever `publish` is called.

        Counters may begin anew at 0 in every process, and what they show is added up all the same.
        """
        self._sources.append(_Source(read))

    def publish(self) -> None:
        """Show siblings the figures of all that is followed."""
        for source in self._sources:
            source.publish(self)

    def series(self) -> Iterator[tuple[int, int, dict[Labels, list[float]]]]:
        """What every process has counted: its number, its id (0 when it has ended), and its series."""
        for region in self._cells.read():
            region.series.pop(_SCRATCH, None)
            yield region.number, region.process, region.series


class _Clock:
    """Counts and times one kind of operation, with as few look-ups as possible."""

    __slots__ = ("_durations", "_metrics", "_operation", "_outcomes", "done", "duration", "values")

    def __init__(self, metrics: Metrics, family: Family, operation: str) -> None:
        self._metrics = metrics
        self._outcomes = f"angos_{family}_operations_total"
        self._durations = f"angos_{family}_operation_duration_seconds"
        self._operation = operation
        self.begin()

    def begin(self) -> None:
        """In this process, from now on."""
        metrics, operation = self._metrics, self._operation
        self.values = metrics.values
        self.done = metrics.offset((self._outcomes, operation, "ok"))
        self.duration = metrics.offset((self._durations, operation))

    def note(self, began: float) -> None:
        """One that began then has been done."""
        self.values[self.done] += 1.0
        self._time(began)

    def note_failure(self, error: BaseException, began: float) -> None:
        """One that began then has failed."""
        self._metrics.count(self._outcomes, self._operation, outcome_of(error))
        self._time(began)

    def _time(self, began: float) -> None:
        self._metrics.observe(self._durations, self._operation, seconds=perf_counter() - began)


class _Source:
    """Figures that are kept elsewhere, and how much of the counters among them was published."""

    def __init__(self, read: Callable[[], Iterable[Figure]]) -> None:
        self._read = read
        self._published: dict[Labels, float] = {}

    def publish(self, metrics: Metrics) -> None:
        for series, value in self._read():
            if DEFINITIONS[series[0]].kind == "gauge":
                metrics.set(*series, value=value)
                continue
            before = self._published.get(series, 0.0)
            self._published[series] = value
            metrics.count(*series, amount=value - before)


def route_of(path: str) -> str:
    """Which of the few routes a path belongs to; paths themselves are for clients to invent."""
    try:
        return ROUTES.get(type(parse_endpoint(path)), UNKNOWN_ROUTE)
    except RegistryError:
        return "metrics" if path == METRICS_PATH else UNKNOWN_ROUTE


def outcome_of(error: BaseException) -> str:
    """The kind of a failure, for a label."""
    return _OUTCOMES.get(type(error)) or ("error" if isinstance(error, Exception) else "cancelled")
