"""Everything that a report is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lraee.bundle.manifest import Manifest, MergeSchedule
from lraee_toolchain.config.options import ExportConfig, Precision
from lraee_toolchain.evaluation.example_images import Picture
from lraee_toolchain.evaluation.merged_patches import MergedPicture
from lraee_toolchain.evaluation.metrics import Metrics, PolicyRow
from lraee_toolchain.quantization.noise import NoiseProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The bundle, what was measured of it, and how it was asked for."""

    manifest: Manifest
    metrics: Metrics
    config: ExportConfig
    pictures: Sequence[Picture] = ()
    merged: Sequence[MergedPicture] = ()
    """Pictures under the merging schedule of the default operating point."""

    @property
    def precision(self) -> Precision:
        """Precision of the bundle."""
        quantization = self.manifest.quantization
        if quantization is None:
            return "FP32"
        return "strong INT8" if quantization.quantizer == "strong" else "naive INT8"

    @property
    def schedule(self) -> MergeSchedule:
        """How the default operating point merges tokens, with the exits that it may take."""
        return self.manifest.schedule(self.manifest.schedule_of(self.manifest.default_point))

    @property
    def row(self) -> PolicyRow | None:
        """Evaluation of the default operating point, or None."""
        evaluation = self.metrics.evaluation
        points = [] if evaluation is None else evaluation.points
        return next((row for row in points if row.point == self.manifest.default_point), None)

    @property
    def noise(self) -> dict[Precision, NoiseProfile]:
        """Noise profiles; none for random weights, of which they say nothing."""
        return {} if self.manifest.model.is_random else self.metrics.noise
