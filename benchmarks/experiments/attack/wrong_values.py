"""Values that nothing takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .threads import network

__all__ = ["ANSWERS", "COUNTS", "INF", "NAN", "NUMBERS", "SCORE_FUNCS", "TARGETS", "TRANSFORMS"]
__all__ += ["Answering", "Call", "bad_baselines", "bad_inputs", "of"]

#: A call that is wrong.
Call = Callable[[], object]
NAN, INF = math.nan, math.inf


class Answering(nn.Module):
    """The network of the threads, which answers with something else."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.features, *head = network()
        self.head = nn.Sequential(*head)
        self._answer = answer

    def forward(self, inputs: Tensor) -> Any:
        """N x 3 x 16 x 16 to what the function makes of N x 5."""
        return self._answer(self.head(self.features(inputs)))


def bad_inputs(good: Tensor) -> dict[str, Any]:
    """Inputs by what is wrong with them, made of good ones."""
    return {
        "None": None,
        "a word": "image",
        "a number": 3,
        "a list": [good],
        "an array": good.numpy(),
        "a dict": {"image": good},
        "no inputs": (),
        "no dimension": torch.tensor(1.0),
        "no samples": good[:0],
        "no height": good[:, :, :0],
        "no batch": good[0],
        "six dimensions": good[:, :, None, None],
        "integers": (good * 255).long(),
        "bytes": (good * 255).to(torch.uint8),
        "booleans": good > 0.5,
        "complex": good.to(torch.complex64),
        "sparse": good.to_sparse(),
        "quantised": torch.quantize_per_tensor(good, 0.1, 0, torch.qint8),
        "nested": torch.nested.nested_tensor([good[0], good[1]]),
        "meta": good.to("meta"),
        "NaN": good * NAN,
        "infinite": good + INF,
    }


TARGETS: Mapping[str, Any] = {
    "5 of 5": 5,
    "-6": -6,
    "2**70": 2**70,
    "True": True,
    "booleans": [True, False],
    "a word": "1",
    "a float": 1.0,
    "NaN": NAN,
    "None": None,
    "one for two": [1],
    "three for two": [1, 2, 3],
    "none for two": [],
    "floats": torch.tensor([1.0, 2.0]),
    "a tensor of booleans": torch.tensor([True, False]),
    "a matrix": torch.tensor([[1, 2], [1, 2]]),
    "an empty tensor": torch.tensor([], dtype=torch.long),
    "two places": (1, 2),
    "no place": (),
    "unequal places": [(1,), (1, 2)],
    "a range": range(2),
    "an array": np.array([1, 2]),
    "a set": {1},
    "a dict": {0: 1},
    "meta": torch.tensor([1, 2], device="meta"),
}
SCORE_FUNCS: Mapping[str, Any] = {
    "None": None,
    "a number": 3,
    "returns None": lambda _: None,
    "returns a list": lambda output: [output],
    "returns an array": lambda output: output.numpy(),
    "no dimension": lambda output: output.sum(),
    "fewer classes": lambda output: output[:, :2],
    "one a row": lambda output: output[:, 0],
    "fewer rows": lambda output: output[:1],
    "transposed": lambda output: output.T,
    "complex": lambda output: output + 1j,
    "integers": lambda output: (output * 100).long(),
    "booleans": lambda output: output > 0,
    "NaN": lambda output: output * NAN,
}
TRANSFORMS: Mapping[str, Any] = {
    "a number": 3,
    "returns None": lambda _: None,
    "returns a list": lambda activations: [activations],
    "flattened": lambda activations: activations.flatten(1),
    "one sample": lambda activations: activations[:1],
    "sparse": lambda activations: activations.to_sparse(),
}
ANSWERS: Mapping[str, Callable[[Tensor], Any]] = {
    "None": lambda _: None,
    "a dict": lambda output: {"out": output},
    "a tuple": lambda output: (output, output),
    "an array": lambda output: output.detach().numpy(),
    "a word": lambda _: "cat",
    "a number": lambda _: 1.0,
    "one row": lambda output: output[:1],
    "one value": lambda output: output.sum(),
    "no classes": lambda output: output[:, :0],
    "NaN": lambda output: output * NAN,
    "complex": lambda output: output.to(torch.complex64),
    "meta": lambda output: output.to("meta"),
    "sparse": lambda output: output.to_sparse(),
    "booleans": lambda output: output > 0,
}
COUNTS: tuple[Any, ...] = (0, -1, 1.5, "8", True, None, NAN, [8], torch.tensor([4.0]))
NUMBERS: tuple[Any, ...] = (NAN, INF, -1, "1", [1], True)


def of(function: Callable[..., Any], *arguments: Any, **options: Any) -> Call:
    """A call whose arguments have types that they should not have."""
    return lambda: function(*arguments, **options)


def bad_baselines(good: Tensor) -> dict[str, Any]:
    """Baselines by what is wrong with them, for inputs."""
    return {
        "a word": "black",
        "NaN": NAN,
        "infinite": INF,
        "half the size": good[..., :8, :8],
        "three for two": torch.rand(3, 3, 16, 16),
        "two for one": (0, 0),
        "none for one": (),
        "a tuple in a tuple": ((0,),),
        "an array": good.numpy(),
        "returns None": lambda _: None,
        "returns one channel": lambda inputs: inputs[:, :1],
        "a complex number": 1j,
        "True": True,
        "too large": 10**400,
        "complex": good.to(torch.complex64),
        "meta": good.to("meta"),
        "sparse": good.to_sparse(),
    }
