"""Additional forward arguments: which of them go with the samples, row by row."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_groupcam._captum import without_class

__all__ = ["Entries", "Shared", "arrays_of", "dealing", "dealt", "listed", "of_rows", "of_samples"]
__all__ += ["plain", "sharing"]


#: What the arguments are called in messages.
_ARGUMENTS = "additional_forward_args"
#: What may have an entry for each sample, beside arrays; named tuples have fields.
_LISTS = (list, tuple)


@dataclasses.dataclass(frozen=True)
class Shared:
    """An additional forward argument that belongs to all samples, whatever its first size is.

    A tensor in ``additional_forward_args`` with as many rows as there are samples goes with them,
    row by row, also inside tuples, lists, dicts and dataclasses. One that does not, such as the
    prompts of an image-text network, is wrapped. An error says so where the network shows it.

    A list, a tuple or an array of NumPy with an entry for each sample, such as captions, goes with
    them where the network answers a sample alone otherwise than beside others.

    Args:
        value (Any): The argument.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> from captum_groupcam import GroupCAM
        >>> from captum_groupcam.masking import Shared
        >>> conv = nn.Conv2d(3, 8, 3)
        >>> def similarity(images, prompts):  # N x 3 x H x W and P x 8 to N x P
        ...     return conv(images).mean((2, 3)) @ prompts.T
        >>> images, prompts = torch.rand(2, 3, 16, 16), torch.rand(2, 8)
        >>> maps = GroupCAM(similarity, conv).attribute(
        ...     images, target=1, additional_forward_args=Shared(prompts), n_groups=4
        ... )
        >>> maps.shape
        torch.Size([2, 1, 16, 16])
    """

    value: Any


@dataclasses.dataclass(frozen=True)
class Entries:
    """A list, a tuple or an array of which each sample has one entry.

    Args:
        value (list, tuple or numpy.ndarray): N entries.

    Examples::

        >>> import torch
        >>> Entries(["a cat", "a dog"]).at(torch.tensor([1, 1, 0]))
        ['a dog', 'a dog', 'a cat']
    """

    value: Any

    @property
    def shape(self) -> tuple[int]:
        """The number of samples, as of a tensor."""
        return (len(self.value),)

    def __getitem__(self, n: int) -> Tensor:
        """A number for an entry, the same for equal ones; 0 where it is the first."""
        places = (k for k in range(n) if _is_same(self.value[k], self.value[n]))
        return torch.tensor(next(places, n))

    def at(self, samples: Tensor) -> Any:
        """The entries of some samples, in the same form.

        Args:
            samples (Tensor): Q indices.

        Returns:
            list, tuple or numpy.ndarray: Q entries.
        """
        places = samples.tolist()
        if isinstance(self.value, np.ndarray):
            return self.value[places]
        return type(self.value)(self.value[place] for place in places)


def of_rows(arguments: tuple[Any, ...], samples: Tensor, n_samples: int) -> tuple[Any, ...]:
    """The arguments of some rows: what goes with the samples cut, what is shared unwrapped.

    Args:
        arguments (tuple): The arguments of all samples.
        samples (Tensor): Q indices of the samples that the rows come from.
        n_samples (int): N.

    Returns:
        tuple: The arguments of Q rows.

    Examples::

        >>> import torch
        >>> rows = {"shift": torch.tensor([1, 2]), "scale": Shared(torch.tensor([3, 4]))}
        >>> of_rows((rows,), torch.tensor([1]), 2)
        ({'shift': tensor([2]), 'scale': tensor([3, 4])},)
    """

    def cut(_name: str, value: Any) -> Any:
        if isinstance(value, Shared):
            return value.value
        if isinstance(value, Entries):
            return value.at(samples)
        return value[samples.to(value.device)] if _has_rows(value, n_samples) else value

    return _of_all(arguments, cut)


def of_samples(arguments: tuple[Any, ...], samples: Tensor, n_samples: int) -> tuple[Any, ...]:
    """The same as arguments of these samples, of which none but those with rows have any.

    Args:
        arguments (tuple): The arguments of all samples.
        samples (Tensor): Q indices of samples.
        n_samples (int): N.

    Returns:
        tuple: The arguments of Q samples.

    Examples::

        >>> import torch
        >>> of_samples((torch.tensor([1, 2]), torch.tensor([3])), torch.tensor([1]), 2)
        (tensor([2]), Shared(value=tensor([3])))
    """

    def cut(_name: str, value: Any) -> Any:
        if isinstance(value, Entries):
            return Entries(value.at(samples))
        if not isinstance(value, Tensor):
            return value
        # By its size it could be taken for rows of these samples.
        return value[samples.to(value.device)] if _has_rows(value, n_samples) else Shared(value)

    return _of_all(arguments, cut)


def arrays_of(arguments: tuple[Any, ...]) -> dict[str, Tensor | np.ndarray]:
    """The tensors and arrays that are not :class:`Shared`, by what they are called in messages.

    Args:
        arguments (tuple): The arguments of all samples, as they were given.

    Returns:
        dict of str to Tensor or numpy.ndarray: They, N x ... or of any other shape.

    Examples::

        >>> import torch
        >>> list(arrays_of((1.5, {"mask": torch.ones(2, 3)}, Shared(torch.ones(5)))))
        ["additional_forward_args[1]['mask']"]
    """
    return _found(arguments, lambda value: isinstance(value, (Tensor, np.ndarray)))


def dealt(arguments: tuple[Any, ...], n_samples: int) -> dict[str, Any]:
    """What goes with the samples, by what it is called in messages.

    Args:
        arguments (tuple): The arguments of all samples.
        n_samples (int): N.

    Returns:
        dict of str to Tensor or Entries: The tensors, N x ... each, and the entries.

    Examples::

        >>> import torch
        >>> list(dealt((torch.ones(2, 3), torch.ones(5)), 2))
        ['additional_forward_args[0]']
    """
    return _found(arguments, lambda one: isinstance(one, Entries) or _has_rows(one, n_samples))


def sharing(arguments: tuple[Any, ...], names: Collection[str]) -> tuple[Any, ...]:
    """The arguments with some of the tensors :class:`Shared`.

    Args:
        arguments (tuple): The arguments of all samples.
        names (collection of str): What :func:`dealt` calls them.

    Returns:
        tuple: The arguments.

    Examples::

        >>> import torch
        >>> sharing((torch.ones(1), 2), ["additional_forward_args[0]"])
        (Shared(value=tensor([1.])), 2)
    """

    def share(name: str, value: Any) -> Any:
        if name not in names:
            return value
        return Shared(value.value if isinstance(value, Entries) else value)

    return _of_all(arguments, share)


def listed(arguments: tuple[Any, ...], n_samples: int) -> dict[str, Any]:
    """What may have an entry for each sample and is no tensor, by what it is called in messages.

    Args:
        arguments (tuple): The arguments of all samples.
        n_samples (int): N.

    Returns:
        dict of str to Any: Lists, tuples and arrays of N entries, none of which has a tensor whose
        rows go with the samples, or something :class:`Shared`, in it.

    Examples::

        >>> listed((["a cat", "a dog"], {"size": (8, 8)}, [1, 2, 3]), 2)
        {'additional_forward_args[0]': ['a cat', 'a dog'],
         "additional_forward_args[1]['size']": (8, 8)}
    """
    return _found(arguments, lambda value: _is_listed(value, n_samples))


def dealing(arguments: tuple[Any, ...], names: Collection[str]) -> tuple[Any, ...]:
    """The arguments with some lists, tuples or arrays as :class:`Entries`.

    Args:
        arguments (tuple): The arguments of all samples.
        names (collection of str): What :func:`listed` calls them.

    Returns:
        tuple: The arguments.

    Examples::

        >>> dealing((["a cat", "a dog"], 2), ["additional_forward_args[0]"])
        (Entries(value=['a cat', 'a dog']), 2)
    """

    def deal(name: str, value: Any) -> Any:
        return Entries(value) if name in names else value

    return _of_all(arguments, deal)


def plain(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, their tensors without what only a class of their own knows.

    Tensors of inference mode have no graph, so that they are copied.

    Args:
        arguments (tuple): The arguments of all samples.

    Returns:
        tuple: The arguments.

    Examples::

        >>> import torch
        >>> with torch.inference_mode():
        ...     made = torch.ones(2)
        >>> [argument.is_inference() for argument in plain((made,))]
        [False]
    """

    def strip(name: str, value: Any) -> Any:
        if isinstance(value, Shared):
            return Shared(_changed(value.value, strip, name))
        if not isinstance(value, Tensor):
            return value
        value = without_class(value)
        return value.clone() if value.is_inference() else value

    return _of_all(arguments, strip)


def _is_same(one: Any, other: Any) -> bool:
    """Whether entries are equal, as far as they can be compared."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # they hold arrays
        return False


def _has_rows(value: Any, n_samples: int) -> bool:
    return isinstance(value, Tensor) and value.shape[:1] == (n_samples,)


def _is_listed(value: Any, n_samples: int) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.shape[:1] == (n_samples,))
    if type(value) not in _LISTS or len(value) != n_samples:
        return False
    return not any(
        isinstance(part, (Shared, Entries)) or _has_rows(part, n_samples)
        for _name, part in _inside(value)
    )


def _found(arguments: tuple[Any, ...], is_meant: Callable[[Any], bool]) -> dict[str, Any]:
    """What is meant of all that is in the arguments, by what it is called in messages."""
    inside = _inside(arguments, _ARGUMENTS)
    return {name: value for name, value in inside if is_meant(value)}


def _inside(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All that is in a value, at any depth: each container, then what it holds."""
    for key, part in _parts(value).items():
        called = _called(name, value, key)
        yield called, part
        yield from _inside(part, called)


def _of_all(arguments: tuple[Any, ...], change: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    """The arguments with what ``change`` makes of each value in them, by its name in messages."""
    return tuple(
        _changed(argument, change, _called(_ARGUMENTS, arguments, place))
        for place, argument in enumerate(arguments)
    )


def _changed(value: Any, change: Callable[[str, Any], Any], name: str) -> Any:
    """What ``change`` makes of a value or, where it leaves that as it is, of what is in it.

    A container in which nothing changes is given back itself.
    """
    changed = change(name, value)
    if changed is not value:
        return changed
    parts = _parts(value)
    found = {key: _changed(part, change, _called(name, value, key)) for key, part in parts.items()}
    others = {key: part for key, part in found.items() if part is not parts[key]}
    return _with_parts(value, found, others) if others else value


def _parts(value: Any) -> dict[Any, Any]:
    """What a container holds; :class:`Shared` and :class:`Entries` count as one thing."""
    if isinstance(value, (Tensor, Shared, Entries)):
        return {}
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {}


def _called(name: str, value: Any, key: Any) -> str:
    """What a part is called in a message."""
    return f"{name}[{key!r}]" if isinstance(value, (Mapping, list, tuple)) else f"{name}.{key}"


def _with_parts(value: Any, parts: dict[Any, Any], others: dict[Any, Any]) -> Any:
    """A container like another, with other parts."""
    if isinstance(value, tuple):
        make = getattr(type(value), "_make", type(value))  # of named tuples
        return make(parts.values())
    try:
        changed: Any = copy.copy(value)
        for key, part in others.items():
            if isinstance(value, (Mapping, list)):
                changed[key] = part
            else:
                object.__setattr__(changed, key, part)  # also where it is frozen
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"A {type(value).__name__} in additional_forward_args holds tensors with as many rows "
            "as there are samples, and there is no way to make another with some of the rows. Pass "
            "the tensors as arguments of their own, or in a dict; if they belong to all samples, "
            "wrap it: captum_groupcam.masking.Shared(...)."
        ) from error
    return changed
