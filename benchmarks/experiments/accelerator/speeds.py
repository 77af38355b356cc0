"""How fast an accelerator is: by the size of a batch, and against other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial

from ..speed import COMPARISONS, Timed, forward_passes
from .setting import Check, Finding, Setting

__all__ = ["SPEEDS"]


def batch_sizes(setting: Setting) -> Finding:
    """Images a second of the plain network, and maps of Group-CAM, at several batch sizes."""
    sizes = setting.sizes
    asked = sizes.n_images * (sizes.n_groups + 1)
    numbers: dict[str, dict[str, dict[int, float]]] = {}
    said = []
    for name, timed in setting.timed.items():
        images = setting.images(sizes.n_images, timed)
        plain = {
            size: partial(forward_passes, timed, asked, size, "channels_last")
            for size in sizes.batch_sizes
        }
        explained = {
            size: partial(setting.explain, images, timed=timed, internal_batch_size=size)
            for size in sizes.batch_sizes
        }
        numbers[name] = {
            "images_a_second": _rates(timed, plain, asked),
            "maps_a_second": _rates(timed, explained, sizes.n_images),
        }
        rates = numbers[name]["maps_a_second"]
        best = max(rates, key=lambda size: rates[size])
        said.append(f"{name}: {rates[best]:.0f} maps a second in batches of {best}")
    return Finding("; ".join(said), None, numbers)


def _rates(
    timed: Timed, functions: Mapping[int, Callable[[], object]], count: int
) -> dict[int, float]:
    named = {str(size): function for size, function in functions.items()}
    timings = timed.time(named, next(iter(named)))
    return {int(timing.name): count / timing.seconds for timing in timings}


def _comparison(name: str) -> Check:
    comparison = COMPARISONS[name]

    def run(setting: Setting) -> Finding:
        timings = comparison.run(setting.examined)
        said = "; ".join(f"{timing.name}: {timing.ratio:.2f}" for timing in timings)
        return Finding(said, None, {"timings": [asdict(timing) for timing in timings]})

    return Check(comparison.title, "", run)


#: By name, in the order in which they run.
SPEEDS: dict[str, Check] = {
    "batch_sizes": Check("Group-CAM and plain forward passes by batch size", "", batch_sizes),
    **{name: _comparison(name) for name in ("deletion_insertion", "score_cam", "accelerate")},
}
