"""Threads that explain one network at the same time."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_groupcam.attr.cam import CAM
from captum_groupcam.augmentation import GroupCAMBlur
from captum_groupcam.methods import METHODS, Method
from captum_groupcam.networks.layers import find_layer

from .attacks import Attack, Outcome, added

__all__ = ["ATTACKS", "Explained", "in_threads", "network"]

_N_THREADS = 4
#: What a thread does: the number of a task to what is to be the same each time.
Explained = Callable[[int], Tensor]


def network() -> nn.Sequential:
    """N x 3 x 16 x 16 to N x 5, with batch statistics; what CAM explains is its first part."""
    generator = torch.Generator().manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
    )
    net = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return net.eval()


def images(number: int) -> Tensor:
    """Two pictures, others for each number."""
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(number))


def _of_chance(model: nn.Module, inputs: Tensor, target: object) -> Tensor:  # noqa: ARG001
    """A method of one's own that draws from the global generator."""
    torch.default_generator.manual_seed(int(inputs.sum() * 1000))
    parts = [torch.rand(len(inputs), 1, 4, 16) for _ in range(4)]
    return torch.cat(parts, 2)


def _explained(net: nn.Sequential) -> dict[str, Explained]:
    """What threads ask of a network, by name."""
    names: Mapping[str, dict[str, int]] = {
        "group_cam": {"n_groups": 4},
        "group_cam_gradient_free": {"n_groups": 4},
        "group_cam_consensus": {"n_groups": 4},
        "grad_cam": {},
        "cam": {},
        "rise": {"n_masks": 16},
        "smooth_grad": {"n_samples": 4},
        "guided_backprop": {},
        "integrated_gradients": {"n_steps": 4},
    }
    methods = {name: METHODS[name](net, net[0], **options) for name, options in names.items()}
    methods["of chance"] = Method("of chance", "Of chance", _of_chance)(net)
    methods["class CAM"] = CAM(lambda inputs: net(inputs), net[0]).attribute
    found: dict[str, Explained] = {
        name: lambda number, method=method: method(images(number), number % 5)  # type: ignore[misc]
        for name, method in methods.items()
    }
    found["prediction"] = lambda number: net(images(number)).detach()
    found["find_layer"] = lambda number: torch.tensor(len(find_layer(net, images(number)).name))
    return found


@contextmanager
def switching() -> Iterator[None]:
    """Has threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(tasks: list[Callable[[], str | None]], n_threads: int = _N_THREADS) -> list[str]:
    """Has threads do tasks in turn.

    Args:
        tasks (list of Callable): Each returns what was wrong, or None.
        n_threads (int, optional): Number of threads. Default: 4.

    Returns:
        list of str: What was wrong, or was raised.
    """
    wrong: list[str] = []
    start = threading.Barrier(n_threads)

    def work(rank: int) -> None:
        start.wait()
        for task in tasks[rank::n_threads]:
            try:
                said = task()
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            if said is not None:
                wrong.append(said)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(n_threads)]
    with switching():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return wrong


def _compared(
    explained: Mapping[str, Explained], names: list[str], count: int, n_different: int = 5
) -> Outcome:
    """Asks by threads, and compares with what a thread gets alone."""
    numbers = range(n_different)
    alone = {(name, number): explained[name](number) for name in names for number in numbers}

    def task(name: str, number: int) -> Callable[[], str | None]:
        def compare() -> str | None:
            found = explained[name](number)
            same = torch.allclose(found, alone[name, number], rtol=1e-4, atol=1e-6)
            return None if same else f"{name} of {number} is another"

        return compare

    # Neighbours are of several names and numbers, hence in different threads.
    tasks = [task(names[at % len(names)], (at // 3) % n_different) for at in range(count)]
    wrong = in_threads(tasks)
    return Outcome(count, {"wrong maps": len(wrong)}, wrong)


def _maps(_folder: Path, small: bool) -> Outcome:
    """Each method by four threads, and all of them together, among predictions."""
    outcomes = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The maps of samples .* are zero")
        explained = _explained(network())
        for names in (*([name] for name in explained), list(explained)):
            many = "group_cam_gradient_free" in names
            outcomes.append(_compared(explained, names, 12 if small else 300 if many else 100))
    return added(outcomes)


def _global_state(_folder: Path, small: bool) -> Outcome:
    """Methods in threads leave the global generator and the filters of warnings as they are."""
    explained = _explained(network())
    state, filters = torch.get_rng_state(), list(warnings.filters)
    outcome = _compared(explained, ["of chance", "guided_backprop", "rise"], 12 if small else 100)
    changed = []
    if not torch.equal(torch.get_rng_state(), state):
        changed.append("the global generator has another state")
    if warnings.filters != filters:
        changed.append("there are other filters of warnings")
    return Outcome(
        outcome.tried,
        {**outcome.faults, "other global state": len(changed)},
        (*outcome.details, *changed),
    )


def _augmentation(_folder: Path, small: bool) -> Outcome:
    """Networks that are trained are explained in evaluation mode, and stay as they are."""
    net = network().train()
    statistics = {name: value.clone() for name, value in net.named_buffers()}
    blur = GroupCAMBlur(net, net[0], n_groups=4)
    explained: dict[str, Explained] = {
        "blur": lambda number: blur(images(number), torch.tensor([1, number % 5]))
    }
    outcome = _compared(explained, ["blur"], 12 if small else 100)
    changed = [
        f"{name} has changed"
        for name, value in net.named_buffers()
        if not torch.equal(value, statistics[name])
    ]
    flags = [name for name, module in net.named_modules() if not module.training]
    changed += [f"{name} is in evaluation mode" for name in flags]
    return Outcome(
        outcome.tried,
        {**outcome.faults, "other networks": len(changed)},
        (*outcome.details, *changed),
    )


ATTACKS: tuple[Attack, ...] = (
    Attack("methods by four threads", "threads", _maps),
    Attack("global state under four threads", "threads", _global_state),
    Attack("augmentation by four threads", "threads", _augmentation),
)
