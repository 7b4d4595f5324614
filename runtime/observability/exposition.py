"""Counts as text that Prometheus reads, by its own library. Imported only when metrics are on."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from angos.runtime.observability.definitions import DEFINITIONS, Definition
from angos.runtime.observability.metrics import Metrics
from angos.runtime.observability.shared_cells import Labels

PROCESS_LABEL = "process"
"""``main``, or ``worker-1`` and so on; memory and processor time are those of single processes."""


class Exposition:
    """The text of all metrics. It may be asked for in any thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Counts(metrics))

    def metrics_text(self) -> tuple[str, bytes]:
        """The value of ``Content-Type``, and the text: sums over all processes that count."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)


class _Counts(Collector):
    """Adds up what the processes have counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        totals: dict[str, dict[Labels, list[float]]] = {name: {} for name in DEFINITIONS}
        processes: dict[str, int] = {}
        for number, process, series in self._metrics.series():
            if process:
                processes[f"worker-{number}" if number else "main"] = process
            for (name, *labels), values in series.items():
                if not process and DEFINITIONS[name].kind == "gauge":
                    continue  # of a process that has ended
                join = min if DEFINITIONS[name].of_processes == "least" else sum
                known = totals[name].get(tuple(labels))
                both = [values] if known is None else [known, values]
                totals[name][tuple(labels)] = [join(some) for some in zip(*both, strict=True)]
        for definition in DEFINITIONS.values():
            yield _family(definition, totals[definition.name])
        yield _build()
        yield from _process_families(processes)


def _family(definition: Definition, series: dict[Labels, list[float]]) -> Metric:
    name, text, labels = definition.name, definition.help, definition.labels
    if not labels and definition.kind != "histogram":
        series = series or {(): [0.0]}
    match definition.kind:
        case "counter":
            counter = CounterMetricFamily(name, text, labels=labels)
            for values, (count,) in sorted(series.items()):
                counter.add_metric(values, count)
            return counter
        case "gauge":
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for values, (level,) in sorted(series.items()):
                gauge.add_metric(values, level)
            return gauge
        case "histogram":
            histogram = HistogramMetricFamily(name, text, labels=labels)
            for values, (*counts, total) in sorted(series.items()):
                histogram.add_metric(values, list(_cumulative(definition.buckets, counts)), total)
            return histogram


def _cumulative(bounds: Iterable[float], counts: list[float]) -> Iterator[tuple[str, float]]:
    so_far = 0.0
    for bound, count in zip((*map(repr, bounds), "+Inf"), counts, strict=True):
        so_far += count
        yield bound, so_far


def _process_families(processes: dict[str, int]) -> Iterable[Metric]:
    families: dict[str, Metric] = {}
    for label, process in processes.items():
        for family in ProcessCollector(pid=lambda process=process: process, registry=None).collect():  # type: ignore[misc]
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.add_sample(sample.name, {PROCESS_LABEL: label, **sample.labels}, sample.value)
    return families.values()


def _build() -> Metric:
    info = GaugeMetricFamily("angos_build_info", "What runs here; always 1.", labels=("version", "python"))
    info.add_metric((_version(), platform.python_version()), 1)
    return info


@cache
def _version() -> str:
    return version("angos")
