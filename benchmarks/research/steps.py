"""The steps that all ideas share: what is asked of the network, and what it says of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam.attr.maps import weighted_sum
from captum_groupcam.masking.baselines import Baselines, GaussianBlur
from captum_groupcam.masking.call import Call, prepare
from captum_groupcam.masking.masks import MaskSource
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.masking.queries import score_masks, score_samples
from captum_groupcam.masking.targets import Contrast, Target, TargetType
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["BASELINES", "SCORES", "Complements", "Probe", "lookup", "score_gains"]

_Value = TypeVar("_Value")


def log_odds(output: Tensor) -> Tensor:
    """log(p / (1 - p)): the logit against all others together."""
    logs = output.double().log_softmax(1)
    return logs - torch.log1p(-logs.exp().clamp(max=1 - 1e-12))


#: What the network's output is turned into, by name.
SCORES: dict[str, ScoreFunc] = {
    "probability": class_probability,
    "log_probability": lambda output: output.log_softmax(1),
    "log_odds": log_odds,
    "logit": lambda output: output,
}


def mean_colour(inputs: Tensor) -> Tensor:
    """Each image's own mean, everywhere."""
    return inputs.mean((2, 3), keepdim=True).expand_as(inputs)


#: What is seen where a mask hides the input, by name.
BASELINES: dict[str, Baselines] = {
    "blur": None,
    "weak_blur": GaussianBlur(21, 10.0),
    "zeros": 0.0,
    "mean": mean_colour,
}


class Probe(NamedTuple):
    """What is asked of the network, and what the layer says of the whole image.

    Attributes:
        call (Call): Inputs, baselines, and the network that answers.
        activations (Tensor): N x K x h x w, A.
        weights (Tensor): N x K, w_k, the mean gradient of a channel.
    """

    call: Call
    activations: Tensor
    weights: Tensor

    @classmethod
    def ask(
        cls,
        model: Module,
        layer: TargetLayer,
        inputs: Tensor,
        target: TargetType,
        *,
        score: str = "probability",
        baseline: str = "blur",
        contrast: float = 0.0,
    ) -> Probe:
        """Asks for gradients and activations, which is one query.

        With a contrast, gradients are those of the class's score less this share of the mean score
        of the three that come closest, as in Finer-CAM.
        """
        call = prepare(
            model,
            inputs,
            target,
            None,
            lookup(BASELINES, baseline, "baseline"),
            score_func=lookup(SCORES, score, "score"),
        )
        asked = call
        if contrast:
            assert isinstance(call.network.target, Target)
            target_of = Contrast(call.network.target, contrast, 3)
            asked = call._replace(network=replace(call.network, target=target_of))
        gradients, activations = asked.gradients_and_activations(layer)
        return cls(call, activations, gradients.flatten(2).mean(2))

    def activations_of(self, layer: TargetLayer, inputs: Tensor) -> Tensor:
        """What the layer says of other inputs, without gradients, which is one query."""
        return self.call.network.activations(layer, (inputs,))

    @property
    def contributions(self) -> Tensor:
        """w_k A_k, what each channel adds to Grad-CAM: N x K x h x w."""
        return self.activations * self.weights.view(*self.weights.shape, 1, 1)

    @property
    def grad_cam(self) -> Tensor:
        """N x 1 x h x w."""
        return weighted_sum(self.activations, self.weights).relu()

    @property
    def size(self) -> Sequence[int]:
        """Height and width of the input."""
        return self.call.inputs[0].shape[2:]


@dataclass(frozen=True)
class Complements:
    """Masks that show what others hide, 1 - M, where those show and hide something.

    Args:
        masks (MaskSource): The others.
    """

    masks: MaskSource

    @property
    def informative(self) -> Tensor:
        """N x G booleans."""
        return self.masks.informative

    def render(
        self, samples: Tensor, masks: Tensor, size: Sequence[int], *, normalized: bool = True
    ) -> Tensor:
        """Renders Q masks at an input's size, Q x 1 x size."""
        return 1 - self.masks.render(samples, masks, size, normalized=normalized)


def score_gains(probe: Probe, masks: MaskSource, *, reference: Tensor | None = None) -> Tensor:
    """How far each mask raises the score above the reference: N x G, zero where nobody was asked.

    Args:
        probe (Probe): Whose network is asked, once for each mask.
        masks (MaskSource): G masks for each sample.
        reference (Tensor, optional): N scores. Default: None, F(B), which is one query more.
    """
    inputs, baselines, network, _ = probe.call
    scores, queried = score_masks(network, inputs, baselines, masks)
    if reference is None:
        reference = score_samples(network, probe.call.hidden)
    return torch.where(queried, scores - reference.unsqueeze(1), 0)


def lookup(table: dict[str, _Value], name: str, what: str) -> _Value:
    """An entry of a table, or an error that names those there are."""
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}: expected one of {', '.join(table)}.")
    return table[name]
