"""Methods x measures over samples: each process takes its share, one row at a time."""

from __future__ import annotations

import gc
import math
import time
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torchvision.transforms.functional import to_pil_image

from captum_groupcam.images import ImageError
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
from .checks import content_digest, curve, one_value
from .folder import RunFolder
from .network import Compiled, counted
from .rows import COST, Row, RowError

__all__ = ["DeviceError", "Evaluator", "TargetChoice"]

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
    _network: Module = field(init=False, repr=False)
    _compiled_for: set[str] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        network = self.model.network
        object.__setattr__(self, "_network", Compiled(network) if self.compiled else network)
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

    def rows(
        self,
        place: int,
        name: str,
        load: Callable[[], Sample],
        missing: Mapping[str, Sequence[str]],
        folder: RunFolder,
        *,
        begun: bool = False,
        digest: str | None = None,
    ) -> Iterator[Row]:
        """Does what there is to do for a sample.

        Nothing that goes wrong with the sample goes beyond it: loading, preparing, classifying,
        explaining, measuring and drawing end in rows, results or failures.

        Args:
            place (int): Its place among the samples.
            name (str): Its name.
            load (callable): Loads it.
            missing (mapping): Measures by method.
            folder (RunFolder): Where its pictures go.
            begun (bool, optional): Whether there are rows of it already. Default: False.
            digest (str, optional): What tells its content, as these rows have it. Default: None,
                unknown.

        Yields:
            Row: One for each method and measure. What fails is a row that says why: the one of the
            cost for a method whose map failed; one without method and measure for a sample that
            failed before there was anything.

        Raises:
            RowError: If pictures cannot be written.
            DeviceError: If the device answers no more. Rows say which sample was the last.
        """
        left = {method: list(names) for method, names in missing.items()}
        try:
            for row in self._rows(place, name, load, missing, folder, digest):
                left[row.method].remove(row.measure)
                if row.error and row.measure == COST:  # no map, no measures
                    left[row.method].clear()
                begun = True
                yield row
            return
        except RowError:  # of the run, not of the sample
            raise
        except Exception as error:
            reason, used_up = _reason(error), _is_out_of_memory(error)
        if used_up:
            self._free_memory()
        for method, names in left.items() if begun else [("", [""])]:
            for measure in names:
                yield Row(name, method, measure, error=reason)
        self._check_device(name)

    def _rows(
        self,
        place: int,
        name: str,
        load: Callable[[], Sample],
        missing: Mapping[str, Sequence[str]],
        folder: RunFolder,
        digest: str | None,
    ) -> Iterator[Row]:
        sample = load()
        content = content_digest(sample)
        if digest not in (None, content):
            raise ValueError(
                "its picture, class or annotation is not what it was when its other rows were made"
            )
        explained = self.prepare(sample)
        inputs, device = explained.inputs, explained.inputs.device
        target = int(explained.targets)
        about = Row(
            name,
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
        if place < self.n_shown:
            with _noted(notes):
                image = to_pil_image(self.model.denormalize(inputs[0]).cpu())
                folder.gallery.keep(place, image, self._about(sample, target))

        timed = any(COST in names for names in missing.values())
        pass_seconds = self._seconds_of_a_pass(inputs) if timed else math.nan
        for spec in self.methods:
            names = missing.get(str(spec), ())
            if not names:
                continue
            about = replace(about, method=str(spec))
            explain = self.explain(spec)
            if self.compiled and str(spec) not in self._compiled_for:
                # The first map compiles, which is not what a map takes.
                self._compiled_for.add(str(spec))
                with self._observed(device), truth_is(explained.objects):
                    explain(self._network, inputs, explained.targets)
            with self._observed(device) as seen, truth_is(explained.objects):
                maps = explain(self._network, inputs, explained.targets)
            if seen["error"]:
                for measure in [COST] if COST in names else names:
                    yield replace(about, measure=measure, **seen)
                continue
            of_map = replace(explained, maps=maps, explain=explain)
            if place < self.n_shown:
                with _noted(notes):
                    self._show(place, spec, of_map, folder)
            for measure in names:
                if measure == COST:
                    cost = {
                        "seconds": seen["seconds"],
                        "queries": float(seen["queries"]),
                        "forward_passes": seen["seconds"] / pass_seconds,
                    }
                    row = replace(about, measure=COST, scores=cost, **seen)
                else:
                    row = self._measured(replace(about, measure=measure), of_map, device)
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
        scores: dict[str, float] = {}
        curves: dict[str, list[float]] = {}
        with self._observed(device) as seen:
            found, behind = MEASURES[about.measure].measure(explained)
            scores = {name: one_value(name, values) for name, values in found.items()}
            curves = {name: curve(name, values) for name, values in behind.items()}
        return replace(about, scores=scores, curves=curves, **seen)

    @contextmanager
    def _observed(self, device: torch.device) -> Iterator[dict[str, Any]]:
        """Notes seconds, queries, warnings, and the error that ends the block."""
        seen: dict[str, Any] = {"error": None}
        used_up = False
        _wait_for(device)
        start = time.perf_counter()
        with counted(self._network) as queries, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield seen
            except Exception as error:  # becomes a row: one sample does not end the run
                seen["error"], used_up = _reason(error), _is_out_of_memory(error)
            if used_up:
                self._free_memory()
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

    def _free_memory(self) -> None:
        """Frees what a call without enough memory has left behind."""
        gc.collect()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _check_device(self, sample: str) -> None:
        """Ends the run if the next sample would fail, too, for what this one did to the device."""
        try:
            torch.ones(1, device=self.model.device).sum().item()
        except Exception as error:
            raise DeviceError(
                f"{self.model.device} answers no more since sample {sample} ({_reason(error)}). "
                "All rows are kept; the same command continues after it."
            ) from error

    def _about(self, sample: Sample, target: int) -> dict[str, Any]:
        names = self.model.class_names
        about: dict[str, Any] = {"sample": sample.id, "title": names[target], "boxes": []}
        if sample.boxes is not None:
            size = torch.tensor(sample.image_size).flip(0).repeat(2)
            about["boxes"] = (sample.boxes / size).tolist()
        return about


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """A picture that cannot be drawn is a warning: the scores do not need it."""
    try:
        yield
    except RowError:
        raise
    except Exception as error:
        notes.append(f"A picture is missing. {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
