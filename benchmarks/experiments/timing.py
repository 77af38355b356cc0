"""Times functions against each other so that whatever else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track

__all__ = ["Timing", "time_together"]


@dataclass(frozen=True)
class Timing:
    """How long one function took, and relative to a reference in the same rounds.

    Attributes:
        name (str): What was timed.
        seconds (float): Median over the rounds.
        ratio (float): Median over the rounds of this function's time over the reference's.
        low, high (float): Quartiles of that ratio.
    """

    name: str
    seconds: float
    ratio: float
    low: float
    high: float


def time_together(
    functions: Mapping[str, Callable[[], object]],
    reference: str,
    *,
    rounds: int = 7,
    device: torch.device | str = "cpu",
) -> list[Timing]:
    """Times functions in turns, after one round that does not count.

    Every round runs each function once, in an order that changes from round to round; a ratio
    compares two times of the same round.

    Args:
        functions (mapping): Names and what to time.
        reference (str): The name of the function that ratios refer to.
        rounds (int): Rounds that count. Default: 7.
        device (torch.device or str): Where they run; waited for on CUDA. Default: "cpu".

    Returns:
        list of Timing: One for each function, in their order.
    """
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in track(range(rounds + 1), description=f"timing {', '.join(names)}"[:60]):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            functions[name]()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
    base = np.array(seconds[reference])
    timings = []
    for name in names:
        ratios = np.array(seconds[name]) / base
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        timings.append(
            Timing(name, float(np.median(seconds[name])), float(middle), float(low), float(high))
        )
    return timings
