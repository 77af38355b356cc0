"""What ``python -m benchmarks speed`` compares: run times as ratios within one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import RISE, GroupCAM, ScoreCAM
from captum_groupcam.masking.baselines import gaussian_blur
from captum_groupcam.masking.network import default_batch_size
from captum_groupcam.methods import MethodSpec
from captum_groupcam.metrics import functional
from captum_groupcam.models import ImageClassifier
from captum_groupcam.networks import accelerate

from ..data import DATASETS
from ..run.evaluate import Evaluator, Task
from ..run.folder import RunFolder
from ..run.network import counted
from .timing import Timing, time_together

__all__ = ["COMPARISONS", "Comparison", "Timed"]

#: Batch sizes that are tried: on the CPU, and on an accelerator.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
LARGE_BATCH_SIZES = (*BATCH_SIZES, 64, 128, 256)
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Timed:
    """What is timed: a network, one image of it, and the class that it sees there."""

    model: ImageClassifier
    image: Tensor
    target: int
    rounds: int

    def time(self, functions: Mapping[str, Callable[[], object]], reference: str) -> list[Timing]:
        """Times functions together on the timed's device."""
        return time_together(functions, reference, rounds=self.rounds, device=self.image.device)


@dataclass(frozen=True)
class Comparison:
    """A question about run time.

    Attributes:
        title (str): What is compared with what.
        run (Callable): Times it.
        goal (str): What the ratio should be.
    """

    title: str
    run: Callable[[Timed], list[Timing]]
    goal: str = ""


def forward_passes(timed: Timed, count: int, batch_size: int, layout: str) -> None:
    """Plain forward passes over ``count`` copies of the image, a batch at a time."""
    memory_format = LAYOUTS[layout]
    batch = timed.image.expand(batch_size, -1, -1, -1).contiguous(memory_format=memory_format)
    with torch.inference_mode():
        for start in range(0, count, batch_size):
            timed.model.network(batch[: min(batch_size, count - start)])


def sizes_on(device: torch.device) -> tuple[int, ...]:
    """The batch sizes that are tried on a device."""
    return BATCH_SIZES if device.type == "cpu" else LARGE_BATCH_SIZES


def batch_sizes(timed: Timed) -> list[Timing]:
    """32 forward passes at every batch size and layout; the reference is the default of both."""
    network, default = timed.model.network, default_batch_size(timed.image.device)

    def in_layout(batch_size: int, layout: str) -> None:
        network.to(memory_format=LAYOUTS[layout])
        forward_passes(timed, 32, batch_size, layout)

    functions = {
        f"batches of {size}, {layout}": partial(in_layout, size, layout)
        for layout in LAYOUTS
        for size in sorted({*sizes_on(timed.image.device), default})
    }
    try:
        return timed.time(functions, f"batches of {default}, channels_last")
    finally:
        network.to(memory_format=torch.channels_last)


def best_batch_size(timed: Timed, count: int) -> int:
    """The batch size at which forward passes in channels_last take the least time."""
    functions = {
        str(size): partial(forward_passes, timed, count, size, "channels_last")
        for size in sizes_on(timed.image.device)
    }
    timings = timed.time(functions, next(iter(functions)))
    return int(min(timings, key=lambda timing: timing.seconds).name)


def group_cam(timed: Timed) -> list[Timing]:
    """GroupCAM with 32 groups against the forward passes that it stands for."""
    return group_cam_by(timed, {"GroupCAM, 32 groups": timed.model.network})


def group_cam_by(timed: Timed, networks: Mapping[str, Module]) -> list[Timing]:
    """GroupCAM by each of several networks, against plain forward passes of the first layout."""
    layer = timed.model.layer
    best = best_batch_size(timed, 34)
    passes = f"34 forward passes in batches of {best}, channels_last"
    explain = {
        name: partial(
            GroupCAM(network, layer.module).attribute, timed.image, timed.target, **layer.keywords
        )
        for name, network in networks.items()
    }
    return timed.time(
        {passes: partial(forward_passes, timed, 34, best, "channels_last"), **explain}, passes
    )


def accelerated(timed: Timed) -> list[Timing]:
    """GroupCAM by the network as it is, and by copies of it that are cheaper to ask."""
    return group_cam_by(
        timed, {f"GroupCAM{how}": network for how, network in cheaper_networks(timed).items()}
    )


def cheaper_networks(timed: Timed) -> dict[str, Module]:
    """The network as it is, folded, and compiled where it can be, by what they are called."""
    network, image = timed.model.network, timed.image
    networks: dict[str, Module] = {"": network, ", folded": accelerate(network, image)}
    size = default_batch_size(image.device)
    compiled = accelerate(network, image, compiled_batch_size=size)
    if compiled.compiled:  # a warning has said why not
        networks[", folded and compiled"] = compiled
    return networks


def accelerated_queries(timed: Timed) -> list[Timing]:
    """RISE, Score-CAM, deletion and insertion, each against itself by the network as it is."""
    image, layer = timed.image, timed.model.layer
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 1, *image.shape[2:], generator=generator).to(image.device)
    calls: dict[str, Callable[[Module], object]] = {
        "RISE, 200 masks": lambda network: RISE(network).attribute(
            image, target=timed.target, n_masks=200
        ),
        "Score-CAM": lambda network: ScoreCAM(network, layer.module).attribute(
            image, timed.target, **layer.keywords
        ),
        "deletion and insertion": lambda network: functional.deletion_insertion(
            network, maps, image, timed.target
        ),
    }
    networks = cheaper_networks(timed)
    timings = []
    for what, call in calls.items():
        functions = {f"{what}{how}": partial(call, one) for how, one in networks.items()}
        timings += timed.time(functions, what)
    return timings


def score_cam(timed: Timed) -> list[Timing]:
    """ScoreCAM against pytorch-grad-cam's and torchcam's, on a convolutional network.

    All three explain the same layer: the last one with spatial dimensions whose output the peers
    can hook, which hook nothing else. They run as their documentation shows, with the network in
    the same layout.
    """
    from pytorch_grad_cam import ScoreCAM as PeerScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam.methods import ScoreCAM as TorchcamScoreCAM

    network, image = timed.model.network, timed.image
    layer = layer_with_output(timed)
    target = ClassifierOutputTarget(timed.target)
    peer = PeerScoreCAM(model=network, target_layers=[layer])
    # Its own default of 16 is what its documentation shows; it prints a bar of its own.
    torchcam = TorchcamScoreCAM(network, layer)

    def run_torchcam() -> None:
        with torch.no_grad():
            scores = network(image)
        torchcam(timed.target, scores)

    try:
        return timed.time(
            {
                "ScoreCAM": partial(ScoreCAM(network, layer).attribute, image, timed.target),
                "pytorch-grad-cam": partial(peer, input_tensor=image, targets=[target]),
                "torchcam": run_torchcam,
            },
            "ScoreCAM",
        )
    finally:
        torchcam.remove_hooks()
        peer.activations_and_grads.release()


def deletion_insertion(timed: Timed) -> list[Timing]:
    """Deletion and insertion of one map: as one stream, step by step, and by torchcam.

    torchcam makes a Grad-CAM map of its own first, a pass of 200.
    """
    from torchcam.methods import GradCAM
    from torchcam.metrics import DeletionInsertionMetric

    network, image = timed.model.network, timed.image
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 7, 7, generator=generator).to(image.device)
    attributions = torch.nn.functional.interpolate(coarse, image.shape[2:], mode="bilinear")
    baseline = gaussian_blur(image)
    order = attributions.flatten().argsort(descending=True)
    # 101 points of either curve, of which the two pairs of ends are the same images.
    n_images = 200
    size = default_batch_size(image.device)
    passes = f"{n_images} forward passes in batches of {size}, channels_last"

    def step_by_step(layout: str) -> None:
        network.to(memory_format=LAYOUTS[layout])
        with torch.inference_mode():
            for start, end in ((image, baseline), (baseline, image)):
                shown = start.clone(memory_format=LAYOUTS[layout])
                for pixels in [order[:0], *order.tensor_split(100)]:
                    rows, columns = pixels // image.shape[3], pixels % image.shape[3]
                    shown[:, :, rows, columns] = end[:, :, rows, columns]
                    network(shown).softmax(dim=1)[0, timed.target].item()
        network.to(memory_format=torch.channels_last)

    extractor = GradCAM(network, target_layer=layer_with_output(timed))
    torchcam = DeletionInsertionMetric(
        extractor,
        partial(torch.softmax, dim=-1),
        steps=100,
        batch_size=size,
        baseline=gaussian_blur,
    )
    try:
        return timed.time(
            {
                passes: partial(forward_passes, timed, n_images, size, "channels_last"),
                "deletion_insertion": partial(
                    functional.deletion_insertion, network, attributions, image, timed.target
                ),
                # The published evaluations leave the layout as it is, which is NCHW.
                **{
                    f"one step at a time, {layout}": partial(step_by_step, layout)
                    for layout in LAYOUTS
                },
                "torchcam": partial(torchcam.update, image, timed.target),
            },
            passes,
        )
    finally:
        extractor.remove_hooks()


def layer_with_output(timed: Timed) -> torch.nn.Module:
    """The layer to explain, by its output, for peers that hook nothing else.

    Where the input of a layer is meant, the network's last normalisation: what goes into the
    layer is its output, activated.
    """
    model = timed.model
    if not model.layer.place_in(model.network).at_input:
        return model.layer.module
    return next(
        module
        for module in reversed(list(model.network.modules()))
        if isinstance(module, torch.nn.BatchNorm2d)
    )


def evaluate(timed: Timed) -> list[Timing]:
    """Two photographs with deletion and insertion, as in a run, against the passes that it counts.

    Loading, preparing and the rows of results are included.
    """
    model = timed.model
    spec, measure = MethodSpec("grad_cam"), "DeletionInsertion"
    evaluator = Evaluator(model, [spec], [measure], target="predicted")
    loaders = list(DATASETS["bundled"](None).loaders.items())[:2]

    def evaluated(folder: RunFolder) -> None:
        for place, (name, load) in enumerate(loaders):
            task = Task(place, name, load, {str(spec): [measure]})
            for row in evaluator.rows([task], folder):
                if row.error:
                    raise RuntimeError(row.error)

    with TemporaryDirectory() as path:
        evaluation = partial(evaluated, RunFolder(Path(path)))
        evaluation()  # the first one looks at the network, too
        with counted(model.network) as queries:
            evaluation()
        best = best_batch_size(timed, queries.count)
        passes = f"{queries.count} forward passes in batches of {best}, channels_last"
        return timed.time(
            {
                f"{len(loaders)} photographs with deletion and insertion": evaluation,
                passes: partial(forward_passes, timed, queries.count, best, "channels_last"),
            },
            passes,
        )


#: What ``python -m benchmarks speed`` can compare, by name.
COMPARISONS: dict[str, Comparison] = {
    "group_cam": Comparison(
        "Group-CAM against the forward passes that it stands for",
        group_cam,
        goal="at most 1.15",
    ),
    "accelerate": Comparison(
        "Group-CAM by an accelerated network against plain forward passes",
        accelerated,
        goal="at most 1.05 by the network as it is, 0.7 folded, 0.5 compiled",
    ),
    "accelerate_queries": Comparison(
        "Methods of many queries by an accelerated network, against the same without",
        accelerated_queries,
        goal="at most 0.7 folded, 0.5 compiled",
    ),
    "batch_sizes": Comparison("Forward passes at several batch sizes and layouts", batch_sizes),
    "score_cam": Comparison(
        "Score-CAM, every channel, against that of other packages",
        score_cam,
        goal="2 or more for each of the others",
    ),
    "deletion_insertion": Comparison(
        "Deletion and insertion of one map",
        deletion_insertion,
        goal="at most 1.10; twice as much, or more, one step at a time; no less with torchcam",
    ),
    "evaluate": Comparison(
        "A run with deletion and insertion against the forward passes that it counts",
        evaluate,
        goal="at most 1.10",
    ),
}
