"""Counts what a service does, for Prometheus."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from lraee.bundle.manifest import Manifest, block_names

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the ranges of times."""


class Metrics:
    """Holds the counters of one service."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, manifest: Manifest, batch_size: int) -> None:
        """Begin at zero.

        Args:
            manifest: of the bundle, for the names of parts and exits.
            batch_size: images that run together at most.
        """
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("lraee_requests", "Requests.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "lraee_request_seconds", "Time of requests.", ["path"], buckets=SECONDS, registry=registry
        )
        self._decode = Histogram(
            "lraee_decode_seconds", "Time to decode one image.", buckets=SECONDS, registry=registry
        )
        self._images = Counter(
            "lraee_images",
            "Images answered, by the block where they left.",
            ["block", "early"],
            registry=registry,
        )
        self._refused = Counter("lraee_images_refused", "Images without an answer.", ["status"], registry=registry)
        self._labels = Counter("lraee_label_sets", "Labels of requests.", ["kept"], registry=registry)
        self.waiting = Gauge("lraee_images_waiting", "Images accepted and not yet answered.", registry=registry)
        self.image_seconds = Gauge("lraee_image_seconds", "Time of one image under load.", registry=registry)
        self.ready = Gauge("lraee_ready", "Whether images are accepted.", registry=registry)
        self.dropped = Counter("lraee_log_lines_dropped", "Lines of the log that were lost.", registry=registry)
        self._batches = _Batches(_parts(manifest), _sizes(batch_size))
        registry.register(self._batches)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            path: of the route, not of the request: there are few.
            status: of the response.
            seconds: that it took.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def decoded(self, seconds: float) -> None:
        """Note how long an image took to decode."""
        self._decode.observe(seconds)

    def answered(self, block: int, early: bool) -> None:
        """Count an image that was answered."""
        self._images.labels(str(block), str(early).lower()).inc()

    def refused(self, status: int) -> None:
        """Count an image that was not."""
        self._refused.labels(str(status)).inc()

    def labels(self, kept: bool) -> None:
        """Count a request for labels of its own."""
        self._labels.labels(str(kept).lower()).inc()

    def part(self, name: str, images: int) -> None:
        """Note how many images a part ran for."""
        self._batches.counts[name, images] += 1

    def page(self) -> bytes:
        """Give all counters as Prometheus reads them."""
        return generate_latest(self._registry)


class _Batches(Collector):
    """Counts batches by part and size, and makes a histogram of them when it is asked for.

    A tower has a dozen parts and more, and each runs after another has emptied the caches: adding to a dictionary takes
    less of an image's time than observing in the library's own histogram.
    """

    def __init__(self, parts: Sequence[str], sizes: Sequence[int]) -> None:
        self.counts: Counts[tuple[str, int]] = Counts()
        """Batches by part and number of images; one thread writes."""
        self._parts, self._sizes = parts, sizes

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Give the histogram of each part."""
        family = HistogramMetricFamily("lraee_batch_images", "Images that ran together.", labels=["part"])
        counts = self.counts.copy()
        for part in self._parts:
            found = {size: count for (name, size), count in counts.items() if name == part}
            buckets = [(str(float(end)), sum(n for size, n in found.items() if size <= end)) for end in self._sizes]
            buckets.append(("+Inf", sum(found.values())))
            family.add_metric([part], buckets=buckets, sum_value=sum(size * count for size, count in found.items()))
        yield family


def _sizes(batch_size: int) -> Sequence[int]:
    """Give the sizes 1, 2, 4 and so on, up to the largest batch."""
    return [*(2**power for power in range(batch_size.bit_length()) if 2**power < batch_size), batch_size]


def _parts(manifest: Manifest) -> list[str]:
    """List the parts by the names under which batches run; those of merging schedules have the same."""
    schedules = (manifest.schedule(None), *manifest.schedules)
    exits = sorted({exit.block for schedule in schedules for exit in schedule.exits})
    return ["stem", *block_names(manifest.tower.blocks), *(f"exit_{block:02d}" for block in exits), "tail"]
