"""What the machine owner's Prometheus may know: how many keeps, never whose or what they run."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from enarx.host.agent._keeps import Keeps


class _Collector:
    def __init__(self, keeps: Keeps) -> None:
        self._keeps = keeps

    def collect(self) -> Iterator[Metric]:
        """Give the figures of this moment."""
        keeps = GaugeMetricFamily("enarx_keeps", "Keeps by TEE and state", labels=["tee", "state"])
        for (tee, state), count in self._keeps.counts().items():
            keeps.add_metric([tee, state], count)
        yield keeps
        yield CounterMetricFamily(
            "enarx_keeps_started", "Keeps that were launched", value=self._keeps.started
        )
        yield CounterMetricFamily(
            "enarx_channels", "Connections that were handed to keeps", value=self._keeps.channels
        )
        yield GaugeMetricFamily(
            "enarx_keeps_limit", "Keeps that may live at a time", value=self._keeps.max_keeps
        )


def metrics(keeps: Keeps) -> tuple[bytes, str]:
    """Give the figures in Prometheus' text form, and its media type."""
    registry = CollectorRegistry()
    registry.register(_Collector(keeps))
    return generate_latest(registry), CONTENT_TYPE_LATEST
