"""What the network's output becomes: scores, in a row for each input, and finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_groupcam import _captum

__all__ = [
    "ScoreFunc",
    "at_least_float32",
    "checked_scores",
    "class_probability",
    "finite",
    "raw_score",
    "warn_of_probabilities",
    "warn_of_three_dimensions",
    "with_rows",
]

#: Turns the network's output (N x classes x ...) into scores of the same shape.
ScoreFunc: TypeAlias = Callable[[Tensor], Tensor]


def class_probability(output: Tensor) -> Tensor:
    """Softmax over dimension 1, the score F of Group-CAM.

    An output without classes to choose from (N, or N x 1) is its own score.

    Args:
        output (Tensor): The network's output, N x classes x ...

    Returns:
        Tensor: Scores of the same shape.

    Examples::

        >>> class_probability(torch.tensor([[1.0, 1.0]]))
        tensor([[0.5000, 0.5000]])
    """
    if output.dim() < 2 or output.shape[1] == 1:
        return output
    return output.softmax(dim=1)


def raw_score(output: Tensor) -> Tensor:
    """The network's output as it is, usually the logits, as its own score.

    Args:
        output (Tensor): The network's output, N x classes x ...

    Returns:
        Tensor: The same, N x classes x ...

    Examples::

        >>> raw_score(torch.tensor([[2.0, -1.0]]))
        tensor([[ 2., -1.]])
    """
    return output


def finite(values: Tensor, what: str = "scores") -> Tensor:
    """Passes values on.

    Args:
        values (Tensor): N x ..., of N samples.
        what (str, optional): What they are called in the message. Default: "scores".

    Returns:
        Tensor: The values, N x ...

    Raises:
        ValueError: If some are NaN or infinite; it names the samples.

    Examples::

        >>> finite(torch.ones(2))
        tensor([1., 1.])
    """
    broken = ~values.isfinite().flatten(1).all(1) if values.dim() > 1 else ~values.isfinite()
    if broken.any():
        raise ValueError(
            f"The network's {what} contain NaN or infinite values for samples "
            f"{broken.nonzero().flatten().tolist()}."
        )
    return values


def warn_of_probabilities(output: Tensor, score_func: ScoreFunc) -> None:
    """Warns of an output that is probabilities, where their softmax would be the score.

    Args:
        output (Tensor): What the network returned, N x classes x ...
        score_func (Callable): What turns it into scores.

    Warns:
        UserWarning: If the softmax is taken of values in [0, 1] whose sum over the classes is 1.

    Examples::

        >>> warn_of_probabilities(torch.tensor([[0.2, 0.8]]), raw_score)
        >>> warn_of_probabilities(torch.tensor([[0.2, 0.9]]), class_probability)
    """
    if score_func is not class_probability or output.dim() < 2 or output.shape[1] < 2:
        return
    if not output.is_floating_point() or not output.numel():
        return
    allowed = max(1e-5, 4 * torch.finfo(output.dtype).eps)
    values = output.detach().to(torch.promote_types(output.dtype, torch.float32))
    sums = (values.sum(1) - 1).abs().amax()
    if values.amin() < 0 or values.amax() > 1 + allowed or not sums <= allowed:
        return
    _captum.warn(
        "The network gives probabilities: its outputs lie between 0 and 1, and their sum is 1. The "
        "softmax of them, which is the score unless another is given, is nearly the same for all "
        "classes. Explain the network before its softmax, or give "
        "score_func=captum_groupcam.masking.network.raw_score, the output as it is."
    )


def warn_of_three_dimensions(
    output: Tensor, score_func: ScoreFunc, inputs: tuple[Tensor, ...]
) -> None:
    """Warns of an output whose classes may be in dimension 1 or in the last.

    Args:
        output (Tensor): What the network returned, N x classes x ...
        score_func (Callable): What turns it into scores.
        inputs (tuple of Tensor): What it was given, N x ... each. Of signals, N x C x L, the output
            is taken to have a value for each class and place.

    Warns:
        UserWarning: If the softmax is taken of an output of three dimensions.

    Examples::

        >>> output = torch.rand(2, 5, 16)
        >>> warn_of_three_dimensions(output, class_probability, (torch.rand(2, 3, 16),))
        >>> warn_of_three_dimensions(output, raw_score, (torch.rand(2, 3, 16, 16),))
    """
    if score_func is not class_probability or output.dim() != 3 or 1 in output.shape[1:]:
        return
    if any(one.is_floating_point() and one.dim() == 3 for one in inputs):
        return
    _captum.warn(
        f"The output has the shape {tuple(output.shape)}, and the softmax is taken over dimension "
        "1, as the classes are there unless something else is said. Where they come last, as in "
        "samples x queries x classes, give score_func=lambda output: output.softmax(-1); to "
        "confirm dimension 1, give score_func=lambda output: output.softmax(1)."
    )


def checked_scores(scores: Any, output: Tensor) -> Tensor:
    """What a score_func returns, if it is scores of the output."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"score_func must return a tensor, got {type(scores).__name__}.")
    if scores.shape != output.shape or not scores.is_floating_point():
        raise ValueError(
            "score_func must return floating-point scores of the output's shape, "
            f"{tuple(output.shape)}; got {tuple(scores.shape)}, {scores.dtype}."
        )
    return scores


def with_rows(output: Tensor, rows: int) -> Tensor:
    """The output with a row for each input, also where a single one was squeezed away."""
    squeezed = rows == 1 and (output.dim() == 0 or output.shape[0] != 1)
    return output.unsqueeze(0) if squeezed else output


def at_least_float32(tensor: Tensor) -> Tensor:
    """The values in float32, or in what is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
