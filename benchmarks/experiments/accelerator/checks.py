"""Checks of what an accelerator does otherwise than a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import ScoreCAM
from captum_groupcam.masking.masks import LayerMasks
from captum_groupcam.masking.queries import merge_masks

from .processes import processes
from .setting import ROUNDING, Check, Finding, Setting

__all__ = ["CHECKS"]

_GIB = 2**30
#: How far a map may be from that of float32, both divided by their largest value, and the least
#: rank correlation of their positions: those of ``tests/test_precision.py``.
_HALVES = {torch.bfloat16: (0.25, 0.95), torch.float16: (0.03, 0.995)}
#: A position at the percentile is in or out by rounding.
_PLAIN = {"denoise_percentile": None}


def memory(setting: Setting) -> Finding:
    """The peak of the device's memory above what the call began with."""
    if setting.device.type != "cuda":
        return Finding(f"{setting.device.type} keeps no account of its memory")
    sizes, batch = setting.sizes, setting.sizes.query_batch
    few, many = setting.images(sizes.n_images), setting.images(sizes.n_images * sizes.growth)
    groups, more = sizes.n_groups, sizes.n_groups * sizes.growth
    peaks: dict[str, float] = {}

    def measure(name: str, images: Tensor, **how: Any) -> None:
        with _peak_of(setting.device, peaks, name):
            setting.explain(images, internal_batch_size=batch, **how)

    measure("", few[:1], n_groups=groups)  # loads kernels and their workspaces
    peaks.clear()
    for images in (few, many):
        for count in (groups, more):
            measure(f"{len(images)} images x {count} groups", images, n_groups=count)
    model, target = setting.examined.model, setting.examined.target
    name = f"{len(few)} images x every channel"
    with _peak_of(setting.device, peaks, name):
        ScoreCAM(model.network, model.layer.module).attribute(
            few, target, internal_batch_size=batch, **model.layer.keywords
        )
    first, largest = next(iter(peaks.values())), max(peaks.values())
    said = "; ".join(f"{name}: {peak / 2**20:.0f} MiB" for name, peak in peaks.items())
    return Finding(said, largest <= 1.5 * first, {"bytes": peaks, "ratio": largest / first})


@contextmanager
def _peak_of(device: torch.device, peaks: dict[str, float], name: str) -> Iterator[None]:
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield
    torch.cuda.synchronize(device)
    peaks[name] = torch.cuda.max_memory_allocated(device) - before


def out_of_memory(setting: Setting) -> Finding:
    """A batch that does not fit is halved until it does, and the map is the same."""
    size = max(setting.sizes.batch_sizes)
    images = setting.images(max(1, size // setting.sizes.n_groups))
    expected = setting.explain(images, internal_batch_size=setting.sizes.query_batch, **_PLAIN)
    network = setting.examined.model.network
    asked: list[int] = []
    answered: list[int] = []
    handles = [
        network.register_forward_pre_hook(lambda _, args: asked.append(len(args[0]))),
        network.register_forward_hook(lambda *call: answered.append(len(call[1][0]))),
    ]
    try:
        with _little_memory(setting, network, size // 2):
            found = setting.explain(images, internal_batch_size=size, **_PLAIN)
    finally:
        for handle in handles:
            handle.remove()
    distance = _distance(found, expected)
    return Finding(
        f"{max(asked)} rows at first, {max(answered)} fit; maps differ by {distance:.1e}",
        max(answered) < max(asked) and distance <= ROUNDING,
        {"asked": asked, "answered": answered, "distance": distance},
    )


@contextmanager
def _little_memory(setting: Setting, network: Module, limit: int) -> Iterator[None]:
    """Leaves little memory; on the CPU, which has no such setting, more rows fail."""
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(setting.device).total_memory
        allowed = torch.cuda.memory_reserved(setting.device) + setting.sizes.free_memory
        torch.cuda.set_per_process_memory_fraction(allowed / total, setting.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
        return

    def fail(_module: Module, args: tuple[Any, ...]) -> None:
        if len(args[0]) > limit:
            raise torch.OutOfMemoryError(f"{len(args[0])} rows, {limit} fit")

    handle = network.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def autocast(setting: Setting) -> Finding:
    """Maps under autocast are those of float32 but for rounding."""
    images = setting.images(setting.sizes.n_images)
    expected = setting.explain(images, **_PLAIN)
    numbers, passed = {}, True
    for dtype, (distance, correlation) in _HALVES.items():
        with torch.autocast(setting.device.type, dtype):
            found = setting.explain(images, **_PLAIN)
        far = _distance(found, expected)
        alike = min(map(_rank_correlation, found, expected))
        numbers[str(dtype).removeprefix("torch.")] = {"distance": far, "rank_correlation": alike}
        passed &= found.dtype == torch.float32 and far <= distance and alike >= correlation
    said = "; ".join(
        f"{name}: maps differ by {each['distance']:.3f}, rank correlation "
        f"{each['rank_correlation']:.4f}"
        for name, each in numbers.items()
    )
    return Finding(said, passed, numbers)


def same_twice(setting: Setting) -> Finding:
    """The same call gives the same map, bit by bit; so does the merge by itself."""
    images = setting.images(setting.sizes.n_images)
    first = setting.explain(images)
    maps = [_distance(setting.explain(images), first) for _ in range(3)]
    n_masks = 16 * setting.sizes.n_groups
    draw = torch.Generator().manual_seed(0)
    masks = LayerMasks(torch.rand(2, n_masks, 7, 7, generator=draw).to(setting.device))
    weights = torch.randn(2, n_masks, generator=draw).to(setting.device)

    def merge() -> Tensor:
        return merge_masks(masks, weights, images.shape[2:], batch_size=n_masks)

    merged = merge()
    merges = [_distance(merge(), merged) for _ in range(5)]
    samples, which = torch.ones_like(weights).nonzero().unbind(1)
    rendered = masks.render(samples, which, images.shape[2:])
    weighted = weights.view(-1, 1, 1, 1) * rendered
    added = [torch.zeros_like(merged).index_add_(0, samples, weighted) for _ in range(6)]
    by_index = max(_distance(one, added[0]) for one in added[1:])
    numbers = {"maps": max(maps), "merges": max(merges), "index_add_": by_index}
    return Finding(
        f"maps differ by {max(maps):.1e}, merged masks by {max(merges):.1e} "
        f"(by index_add_: {by_index:.1e})",
        max(maps) == max(merges) == 0,
        numbers,
    )


def _distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value of each sample."""
    largest = expected.abs().flatten(1).amax(1).clamp_min(1e-12)
    return float(((found - expected).abs().flatten(1).amax(1) / largest).max())


def _rank_correlation(first: Tensor, second: Tensor) -> float:
    ranks = [each.flatten().argsort().argsort().double() for each in (first, second)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


#: By name, in the order in which they run.
CHECKS: dict[str, Check] = {
    "memory": Check(
        "Memory does not grow with images, groups and channels",
        "at most 1.5 times, for 8 times as many images and groups",
        memory,
    ),
    "out_of_memory": Check(
        "A batch that does not fit is halved", "the same map, by smaller batches", out_of_memory
    ),
    "autocast": Check(
        "Autocast changes no more than rounding does",
        "rank correlation at least 0.95 (bfloat16) and 0.995 (float16)",
        autocast,
    ),
    "same_twice": Check("The same call gives the same map", "no difference at all", same_twice),
    "processes": Check("Two processes make the rows of one", "the same scores", processes),
}
