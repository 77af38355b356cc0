"""Methods x measures over samples: each process takes its share, one row at a time."""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torchvision.transforms.functional import to_pil_image

from benchmarks.data import Sample, to_inputs
from benchmarks.measures.explained import Explain, Explained
from benchmarks.measures.registry import MEASURES
from benchmarks.run.certainty import certainty_figure
from benchmarks.run.folder import RunFolder
from benchmarks.run.network import Compiled, counted
from benchmarks.run.rows import COST, Key, Row
from captum_groupcam.masking.network import default_batch_size
from captum_groupcam.methods import MethodSpec
from captum_groupcam.metrics.functional import resize_masks
from captum_groupcam.models import ImageClassifier
from captum_groupcam.visualization import save_figure

__all__ = ["Evaluator", "TargetChoice"]

#: Whether the class that the network predicts is explained, or the one of the label.
TargetChoice: TypeAlias = Literal["label", "predicted"]


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Explains samples by several methods and measures the maps.

    Args:
        model (ImageClassifier): The network.
        methods (sequence of MethodSpec): The methods.
        measures (sequence of str): Names of :data:`~benchmarks.measures.registry.MEASURES`.
        target (str, optional): ``label``: of the classes that the sample's label stands for, the
            one that the network finds likeliest. ``predicted``: of all. Default: ``label``.
        seed (int, optional): Seed of the measures; each sample has its own, made of this one and
            its id. Default: 0.
        compiled (bool, optional): Whether passes without gradients are compiled. Default: False.
        n_shown (int, optional): Number of samples whose pictures are kept. Default: 0.
    """

    model: ImageClassifier
    methods: Sequence[MethodSpec]
    measures: Sequence[str]
    target: TargetChoice = "label"
    seed: int = 0
    compiled: bool = False
    n_shown: int = 0
    _network: Module = field(init=False, repr=False)
    _compiled_for: set[str] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        network = self.model.network
        object.__setattr__(self, "_network", Compiled(network) if self.compiled else network)

    def missing(self, sample: str, done: set[Key]) -> dict[str, list[str]]:
        """What there is to do for a sample: measures by method, without those that are done."""
        if (sample, "", "") in done:  # it could not be loaded
            return {}
        wanted = {
            str(spec): [
                name for name in (COST, *self.measures) if (sample, str(spec), name) not in done
            ]
            for spec in self.methods
        }
        return {method: names for method, names in wanted.items() if names}

    def prepare(self, sample: Sample) -> Explained:
        """A sample as measures see it, its map still empty."""
        device = self.model.device
        inputs = to_inputs([sample], self.model).to(device, memory_format=torch.channels_last)
        boxes = None if sample.boxes is None else [sample.boxes]
        masks = sample.masks
        if masks is not None:
            masks = resize_masks(masks[None, None].to(device), inputs.shape[2:])
        return Explained(
            self._network,
            inputs,
            torch.tensor([self._target(sample, inputs)], device=device),
            inputs.new_zeros(1, 1, *inputs.shape[2:]),
            masks=masks,
            boxes=boxes,
            image_sizes=None if boxes is None else torch.tensor([sample.image_size]),
            seed=zlib.crc32(f"{self.seed}:{sample.id}".encode()),
        )

    def rows(
        self,
        place: int,
        load: Callable[[], Sample],
        missing: Mapping[str, Sequence[str]],
        folder: RunFolder,
    ) -> Iterator[Row]:
        """Does what there is to do for a sample.

        Args:
            place (int): Its place among the samples.
            load (callable): Loads it.
            missing (mapping): Measures by method.
            folder (RunFolder): Where its pictures go.

        Yields:
            Row: One for each method and measure. What fails is a row that says why.
        """
        sample = load()
        explained = self.prepare(sample)
        inputs, device = explained.inputs, explained.inputs.device
        target = int(explained.targets)
        about = Row(
            sample.id, "", "", label=sample.label, target=target, difficult=sample.difficult
        )
        if explained.objects is not None:
            about = replace(about, cover=float(explained.objects.double().mean()))
        if place < self.n_shown:
            image = to_pil_image(self.model.denormalize(inputs[0]).cpu())
            folder.show(place, image, self._about(sample, target))

        pass_seconds = self._seconds_of_a_pass(inputs)
        for spec in self.methods:
            names = missing.get(str(spec), ())
            if not names:
                continue
            about = replace(about, method=str(spec))
            explain = self.explain(spec)
            if self.compiled and str(spec) not in self._compiled_for:
                # The first map compiles, which is not what a map takes.
                self._compiled_for.add(str(spec))
                with self._observed(device):
                    explain(self._network, inputs, explained.targets)
            with self._observed(device) as seen:
                maps = explain(self._network, inputs, explained.targets)
            if COST in names:
                cost = {
                    "seconds": seen["seconds"],
                    "queries": float(seen["queries"]),
                    "forward_passes": seen["seconds"] / pass_seconds,
                }
                yield replace(about, measure=COST, scores={} if seen["error"] else cost, **seen)
            if seen["error"]:
                continue
            of_map = replace(explained, maps=maps, explain=explain)
            if place < self.n_shown:
                folder.show_map(place, str(spec), maps[0])
                if spec.method.grouped:
                    self._show_certainty(place, spec, of_map, folder)
            for name in names:
                if name != COST:
                    yield self._measured(replace(about, measure=name), of_map, device)

    def _show_certainty(
        self, place: int, spec: MethodSpec, explained: Explained, folder: RunFolder
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the map's own warnings, noted before
            figure = certainty_figure(self._model_of(spec), self._network, spec, explained)
        name = str(spec).replace(":", " ")
        save_figure(figure, folder.pictures / f"how sure {name} is of {place:05}.png", dpi=80)

    def _seconds_of_a_pass(self, inputs: Tensor) -> float:
        """What a plain forward pass takes for an image, in batches of the usual size."""
        size = default_batch_size(inputs.device)
        batch = inputs.expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        seconds = []
        with torch.no_grad():
            for _ in range(2):  # the first one may compile
                _wait_for(inputs.device)
                start = time.perf_counter()
                self._network(batch)
                _wait_for(inputs.device)
                seconds.append((time.perf_counter() - start) / size)
        return min(seconds)

    def _measured(self, about: Row, explained: Explained, device: torch.device) -> Row:
        scores: dict[str, Tensor] = {}
        curves: dict[str, Tensor] = {}
        with self._observed(device) as seen:
            scores, curves = MEASURES[about.measure].measure(explained)
        return replace(
            about,
            scores={name: value.item() for name, value in scores.items()},
            curves={name: [round(v, 5) for v in c[0].tolist()] for name, c in curves.items()},
            **seen,
        )

    @contextmanager
    def _observed(self, device: torch.device) -> Iterator[dict[str, Any]]:
        """Notes seconds, queries, warnings, and the error that ends the block."""
        seen: dict[str, Any] = {"error": None}
        _wait_for(device)
        start = time.perf_counter()
        with counted(self._network) as queries, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield seen
            except Exception as error:  # becomes a row: one sample does not end the run
                seen["error"] = f"{type(error).__name__}: {error}"
            _wait_for(device)
        seen["seconds"] = round(time.perf_counter() - start, 4)
        seen["queries"] = queries.count
        seen["warnings"] = sorted({str(warning.message) for warning in caught})

    def explain(self, spec: MethodSpec) -> Explain:
        """A method as a function of a network: this one, or a copy of it."""
        layer = self._model_of(spec).layer

        def explain(network: Module, inputs: Tensor, targets: Tensor) -> Tensor:
            method = spec.method(network, layer.within(network), **spec.options)
            return method(inputs, targets)

        return explain

    def _model_of(self, spec: MethodSpec) -> ImageClassifier:
        return self.model if spec.layer is None else self.model.at_layer(spec.layer)

    def _target(self, sample: Sample, inputs: Tensor) -> int:
        with torch.no_grad():
            scores = self.model.network(inputs)[0]
        if self.target == "predicted":
            return int(scores.argmax())
        if max(sample.targets) >= len(scores):
            raise ValueError(
                f"The label of sample {sample.id} stands for class {max(sample.targets)}, but the "
                f"network has {len(scores)} classes: a data set for another network?"
            )
        return max(sample.targets, key=lambda index: float(scores[index]))

    def _about(self, sample: Sample, target: int) -> dict[str, Any]:
        names = self.model.class_names
        about: dict[str, Any] = {"sample": sample.id, "title": names[target], "boxes": []}
        if sample.boxes is not None:
            size = torch.tensor(sample.image_size).flip(0).repeat(2)
            about["boxes"] = (sample.boxes / size).tolist()
        return about


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
