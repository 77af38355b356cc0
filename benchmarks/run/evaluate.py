"""Methods x measures over samples: what becomes of each is a row."""

from __future__ import annotations

import math
import time
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torchvision.transforms.functional import to_pil_image

from captum_groupcam.masking.network import default_batch_size
from captum_groupcam.methods import MethodSpec
from captum_groupcam.metrics.functional import resize_masks
from captum_groupcam.models import ImageClassifier

from ..data import Sample, to_inputs
from ..errors import DeviceError
from ..known import truth_is
from ..measures.explained import Explain, Explained
from ..measures.registry import MEASURES
from .certainty import certainty_figure
from .checks import content_digest, each_curve, each_value
from .folder import RunFolder
from .network import Compiled
from .observed import (
    Seen,
    check_device,
    free_memory,
    is_out_of_memory,
    observed,
    reason_of,
    wait_for,
)
from .rows import COST, Row, RowError
from .together import Step, Work, in_step, samples_together

__all__ = ["DeviceError", "Evaluator", "TargetChoice", "Task"]

#: Whether the class that the network predicts is explained, or the one of the label.
TargetChoice: TypeAlias = Literal["label", "predicted"]


@dataclass(frozen=True)
class Task:
    """What there is to do for a sample.

    Args:
        place (int): Its place among the samples.
        name (str): Its name.
        load (callable): Loads it.
        missing (mapping): Measures by method.
        begun (bool, optional): Whether there are rows of it already. Default: False.
        digest (str, optional): What tells its content, as these rows have it. Default: None,
            unknown.
    """

    place: int
    name: str
    load: Callable[[], Sample]
    missing: Mapping[str, list[str]]
    begun: bool = False
    digest: str | None = None


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
        accelerated (bool, optional): Whether passes without gradients are answered by a faster
            copy, :func:`~captum_groupcam.networks.accelerate`. Default: False.
        samples_per_batch (int, optional): Samples that a method explains, or a measure measures, in
            one call, where it can take several. Default: None, as many as fill the network's
            batches on an accelerator, and 1 on a CPU.

    Raises:
        ValueError: If the network does not have the layer of a method.
    """

    model: ImageClassifier
    methods: Sequence[MethodSpec]
    measures: Sequence[str]
    target: TargetChoice = "label"
    seed: int = 0
    compiled: bool = False
    n_shown: int = 0
    accelerated: bool = False
    samples_per_batch: int | None = None
    _network: Module = field(init=False, repr=False)
    _compiled_for: set[tuple[int, int]] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        network = self.model.network
        if self.compiled:
            network = Compiled(network)
        elif self.accelerated:
            network = self.model.accelerated().network
        object.__setattr__(self, "_network", network)
        for spec in self.methods:
            self._model_of(spec)  # what no sample can do is said before the first

    def missing(self, done: Collection[tuple[str, str]]) -> dict[str, list[str]]:
        """What there is to do for a sample: measures by method, without those that are done."""
        if ("", "") in done:  # it could not be used
            return {}
        wanted = {
            str(spec): [name for name in (COST, *self.measures) if (str(spec), name) not in done]
            for spec in self.methods
            if (str(spec), "") not in done
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
            seed=zlib.crc32(f"{self.seed}:{sample.id}".encode("utf-8", "surrogatepass")),
        )

    @property
    def n_together(self) -> int:
        """The most samples that share one call, which :meth:`rows` is best given."""
        return self.samples_per_batch or samples_together(1, self.model.device)

    def rows(self, tasks: Sequence[Task], folder: RunFolder) -> Iterator[Row]:
        """Does what there is to do for samples, which share the network's batches.

        Nothing that goes wrong with a sample goes beyond it: loading, preparing, classifying,
        explaining, measuring and drawing end in rows, results or failures.

        Args:
            tasks (sequence of Task): What there is to do for each.
            folder (RunFolder): Where pictures go.

        Yields:
            Row: One for each sample, method and measure. What fails is a row that says why: the one
            of the cost for a method whose map failed; one without method and measure for a sample
            that failed before there was anything. Of a call for several samples each has an equal
            part of the seconds and queries.

        Raises:
            RowError: If pictures cannot be written.
            DeviceError: If the device answers no more. Rows say which sample was the last.
        """
        seconds: dict[torch.Size, float] = {}
        return in_step([self._work(task, folder, seconds) for task in tasks], self._attempt)

    def _work(self, task: Task, folder: RunFolder, seconds: dict[torch.Size, float]) -> Work:
        left = {method: list(names) for method, names in task.missing.items()}
        try:
            yield from self._steps(task, left, folder, seconds)
            return
        except (RowError, DeviceError):  # of the run, not of the sample
            raise
        except Exception as error:
            reason, used_up = reason_of(error), is_out_of_memory(error)
        if used_up:
            free_memory(self.model.device)
        begun = task.begun or left != task.missing
        for method, names in left.items() if begun else [("", [""])]:
            for measure in names:
                yield Row(task.name, method, measure, error=reason)
        check_device(self.model.device, task.name)

    def _steps(
        self,
        task: Task,
        left: dict[str, list[str]],
        folder: RunFolder,
        seconds: dict[torch.Size, float],
    ) -> Work:
        """The work of a sample that can be used; what is done is taken from what is left."""
        sample = task.load()
        content = content_digest(sample)
        if task.digest not in (None, content):
            raise ValueError(
                "its picture, class or annotation is not what it was when its other rows were made"
            )
        explained = self.prepare(sample)
        inputs = explained.inputs
        target = int(explained.targets)
        about = Row(
            task.name,
            "",
            "",
            label=sample.label,
            target=target,
            difficult=bool(sample.difficult),
            digest=content,
        )
        if explained.objects is not None:
            about = replace(about, cover=float(explained.objects.double().mean()))
        notes: list[str] = []
        if task.place < self.n_shown:
            with _noted(notes):
                image = to_pil_image(self.model.denormalize(inputs[0]).cpu())
                folder.gallery.keep(task.place, image, self._about(sample, target))

        timed = any(COST in names for names in left.values())
        if timed and inputs.shape not in seconds:
            seconds[inputs.shape] = self._seconds_of_a_pass(inputs)
        for at, spec in enumerate(self.methods):
            names = left.get(str(spec))
            if not names:
                continue
            about = replace(about, method=str(spec))
            explain = self.explain(spec)
            maps, seen = yield Step(
                (at, 0), task.name, explained, partial(self._maps, explain), self._shared_by(spec)
            )
            if seen["error"]:
                failed = [COST] if COST in names else [*names]
                names.clear()  # no map, no measures
                for measure in failed:
                    yield replace(about, measure=measure, **seen)
                check_device(self.model.device, task.name)
                continue
            of_map = replace(explained, maps=maps, explain=explain)
            if task.place < self.n_shown:
                with _noted(notes):
                    self._show(task.place, spec, of_map, folder)
            for measure in [*names]:
                row = replace(about, measure=measure)
                if measure == COST:
                    cost = {
                        "seconds": seen["seconds"],
                        "queries": float(seen["queries"]),
                        "forward_passes": seen["seconds"] / seconds[inputs.shape],
                    }
                    row = replace(row, scores=cost, **seen)
                else:
                    measured, seen_too = yield Step(
                        (at, 1 + self.measures.index(measure)),
                        task.name,
                        of_map,
                        partial(_measured, measure),
                        self._shared_by(spec, measure, inputs.shape[1:]),
                    )
                    scores, curves = measured or ({}, {})
                    row = replace(row, scores=scores, curves=curves, **seen_too)
                names.remove(measure)
                yield replace(row, warnings=[*row.warnings, *notes])
                notes.clear()

    def _show(self, place: int, spec: MethodSpec, explained: Explained, folder: RunFolder) -> None:
        folder.gallery.keep_map(place, str(spec), explained.maps[0])
        name = f"how sure {str(spec).replace(':', ' ')} is of {place:05}"
        if not spec.method.grouped or folder.gallery.has_figure(name):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the map's own warnings, noted before
            figure = certainty_figure(self._model_of(spec), self._network, spec, explained)
        folder.gallery.keep_figure(name, figure, dpi=80)

    def _seconds_of_a_pass(self, inputs: Tensor) -> float:
        """What a plain forward pass takes for an image, in batches of the usual size."""
        size = default_batch_size(inputs.device)
        batch = inputs.expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        network = self._network if self.compiled else self.model.network
        seconds = []
        with torch.no_grad():
            for _ in range(2):  # the first one may compile
                wait_for(inputs.device)
                start = time.perf_counter()
                network(batch)
                wait_for(inputs.device)
                seconds.append((time.perf_counter() - start) / size)
        return min(seconds)

    def _attempt(self, steps: Sequence[Step]) -> tuple[Sequence[Any], Seen]:
        """Takes a step that one sample waits for, or several."""

        def work() -> Sequence[Any]:
            return steps[0].work(Explained.joined([step.explained for step in steps]))

        method, measure = steps[0].place
        if self.compiled and not measure and (method, len(steps)) not in self._compiled_for:
            # The first map compiles, which is not what a map takes.
            self._compiled_for.add((method, len(steps)))
            with observed(self._network, self.model.device):
                work()
        values: Sequence[Any] = ()
        with observed(self._network, self.model.device) as seen:
            values = work()
        if seen["error"] and len(steps) > 1:
            check_device(self.model.device, *(step.sample for step in steps))
        return values, seen

    def _maps(self, explain: Explain, explained: Explained) -> Sequence[Tensor]:
        with truth_is(explained.objects):
            maps = explain(self._network, explained.inputs, explained.targets)
        return list(maps.unsqueeze(1))

    def _shared_by(
        self, spec: MethodSpec, measure: str | None = None, shape: Sequence[int] = ()
    ) -> int:
        """How many samples a method explains in one call, or a measure takes of its maps."""
        entry = MEASURES[measure] if measure is not None else None
        explains = entry is None or entry.explanations > 0
        if not (entry is None or entry.shares_batches):
            return 1
        if explains and not spec.method.shares_batches:
            return 1
        if self.samples_per_batch is not None:
            return self.samples_per_batch
        queries = float(entry.queries(shape)) if entry is not None else 0
        if explains:
            passes = spec.method.n_passes(**spec.options)
            n_maps = 1 if entry is None else entry.explanations
            queries += math.inf if passes is None else n_maps * passes
        return samples_together(queries, self.model.device)

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
        if not scores.isfinite().all():
            raise ValueError("the network's scores of it are not finite")
        if self.target == "predicted":
            return int(scores.argmax())
        wrong = [index for index in sample.targets if index >= len(scores)]
        if wrong:
            raise ValueError(
                f"its label stands for class {wrong[0]}, but the network has {len(scores)} classes "
                f"(0 to {len(scores) - 1}): a data set for another network?"
            )
        return max(sample.targets, key=lambda index: float(scores[index]))

    def _about(self, sample: Sample, target: int) -> dict[str, Any]:
        names = self.model.class_names
        about: dict[str, Any] = {"sample": sample.id, "title": names[target], "boxes": []}
        if sample.boxes is not None:
            size = torch.tensor(sample.image_size).flip(0).repeat(2)
            about["boxes"] = (sample.boxes / size).tolist()
        return about


def _measured(name: str, explained: Explained) -> Sequence[tuple[dict[str, float], Any]]:
    """Scores and curves of each sample."""
    found, behind = MEASURES[name].measure(explained)
    n = len(explained)
    scores = {score: each_value(score, values, n) for score, values in found.items()}
    curves = {name: each_curve(name, values, n) for name, values in behind.items()}
    return [
        (
            {name: values[place] for name, values in scores.items()},
            {name: values[place] for name, values in curves.items()},
        )
        for place in range(n)
    ]


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """A picture that cannot be drawn is a warning: the scores do not need it."""
    try:
        yield
    except RowError:
        raise
    except Exception as error:
        notes.append(f"A picture is missing. {reason_of(error)}")
