"""Weights from files: state dicts, as they are and as training loops write them.

What a file holds is found by what the network expects, not by a list of conventions: of the
mappings of names to tensors in it, under whatever keys and prefixes, the one that has every entry
of the network.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

__all__ = ["Checkpoint", "is_file", "with_weights"]

#: What training loops note beside the weights, and what holds nothing but values.
_HARMLESS = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    np.float64(0).__reduce__()[0],  # makes a scalar
]
#: How deep in a file state dicts are looked for.
_DEPTH = 4
#: Put between names by torch.compile, anywhere.
_COMPILED = "_orig_mod."
#: Old files lack it, and torch adds it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds of weights.

    Attributes:
        path (Path): The file.
        states (mapping of str to mapping): The state dicts in it, by the dotted keys under which
            they stand; "" is the whole file.
    """

    path: Path
    states: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def read(cls, text: str | Path) -> Checkpoint:
        """Reads a file; nothing but tensors and plain values is loaded from it.

        Args:
            text (str or Path): The path of what ``torch.save`` or ``safetensors`` wrote. After a
                colon the key of one of several state dicts in it: ``last.pt:ema``.

        Returns:
            Checkpoint: The state dicts.

        Raises:
            ValueError: If there is no such file, or it holds no state dict or what could run code.
            ModuleNotFoundError: If it is a file of safetensors and the package is missing.
        """
        path, key = Path(text), ""
        if not is_file(path):
            before, _, key = str(text).rpartition(":")
            if not before or not is_file(before):
                raise ValueError(
                    f"Unknown weights '{text}': expected 'random', the path of a state dict, or a "
                    "name of published weights."
                )
            path = Path(before)
        states = dict(_state_dicts(_loaded(path)))
        if not states:
            raise ValueError(
                f"Expected {path} to hold a state dict, a mapping of names to tensors; save it "
                "with torch.save(network.state_dict(), path)."
            )
        if key:
            if key not in states:
                raise ValueError(f"{path} has no state dict {key!r}; it has {_listed(states)}.")
            states = {key: states[key]}
        return cls(path, states)

    def fit(self, network: Module) -> _Fit:
        """The state dict that fits a network.

        Raises:
            ValueError: If several fit, with other weights each, or tensors are of a kind that
                cannot be compared.
        """
        expected = network.state_dict()
        try:
            fits = [_fit(where, state, expected) for where, state in self.states.items()]
            whole = [one for one in fits if not one.wrong or one.n_classes is not None]
            one_only = all(_same(one.state, whole[0].state) for one in whole[1:])
        except Exception as error:  # a file may hold tensors of any kind
            raise ValueError(
                f"The tensors in {self.path} cannot be compared with the network's: {error}"
            ) from error
        if not one_only:
            raise ValueError(
                f"{self.path} holds several state dicts that fit: {_listed(self.states)}. Name one "
                f"by its key: {self.path}:{whole[-1].where}"
            )
        return whole[0] if whole else max(fits, key=lambda one: one.n_known)


@dataclass(frozen=True)
class _Fit:
    """How a state dict fits a network.

    Attributes:
        state (dict of str to Tensor): What of it the network takes, by the network's names.
        wrong (list of str): Names that are missing, unexpected or of another shape or kind.
        n_classes (int or None): How many classes it has, if that is all that differs.
        notes (list of str): What was unwrapped and left out.
    """

    state: dict[str, Tensor]
    where: str
    wrong: list[str]
    n_known: int
    n_classes: int | None
    notes: list[str]


def with_weights(
    build: Callable[[int | None], Module], text: str | Path, n_classes: int | None = None
) -> tuple[Module, int | None, list[str]]:
    """Builds a network and gives it the weights of a file, with as many classes as these have.

    Args:
        build (Callable): Builds the network for so many classes; None is its own number. What it
            raises goes to the caller.
        text (str or Path): The file, see :meth:`Checkpoint.read`.
        n_classes (int, optional): How many classes there should be. Default: None, as in the file.

    Returns:
        tuple: The network; the number of classes, None for the network's own; and what was
        unwrapped or left out, a line each.

    Raises:
        ValueError: As :meth:`Checkpoint.read`, or if the weights are of another network, or not
            finite.
    """
    checkpoint = Checkpoint.read(text)
    path = checkpoint.path
    network = build(n_classes)
    fit = checkpoint.fit(network)
    if fit.n_classes is not None:
        if n_classes is not None:
            raise ValueError(
                f"{path} is of a network of {fit.n_classes} classes; there are {n_classes} names."
            )
        n_classes = fit.n_classes
        network = build(n_classes)
        fit = checkpoint.fit(network)
    if fit.wrong:
        raise ValueError(
            f"The state dict in {path} is of another network: {len(fit.wrong)} entries are "
            f"missing, unexpected or of another shape, the first of them {_listed(fit.wrong)}."
        )
    try:
        infinite = [name for name, tensor in fit.state.items() if not tensor.isfinite().all()]
        network.load_state_dict(fit.state)
    except Exception as error:  # as above
        raise ValueError(f"The state dict in {path} cannot be loaded: {error}") from error
    if infinite:
        raise ValueError(
            f"The weights in {path} are NaN or infinite in {_listed(infinite)}: did its training "
            "diverge?"
        )
    return network, n_classes, [f"{path}: {note}" for note in fit.notes]


def is_file(path: str | Path) -> bool:
    """Whether there is a file of this name; a text that cannot be a name is none."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _loaded(path: Path) -> Any:
    """What is in a file of weights."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**27:
        return _loaded_safetensors(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")  # on formats; what matters is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on a file that is not a checkpoint
        unsafe: list[str] = []
        with suppress(Exception), torch.serialization.safe_globals(_HARMLESS):
            found = torch.serialization.get_unsafe_globals_in_checkpoint(os.fspath(path))
            unsafe = sorted(found, key=lambda name: (name.startswith("torch."), name))
        if unsafe:
            raise ValueError(
                f"{path} holds more than tensors and plain values: {_listed(unsafe)}. "
                "Loading these could run code, so they are not loaded. Save the weights alone: "
                "torch.save(network.state_dict(), path)."
            ) from error
        raise ValueError(
            f"Cannot read {path} as weights: it is damaged, no checkpoint, or holds more than "
            "tensors, which could run code and is not loaded."
        ) from error


def _loaded_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} needs the package safetensors: pip install safetensors", name=error.name
        ) from error
    try:
        return load_file(path)
    except Exception as error:  # as above
        raise ValueError(f"Cannot read {path} as weights: it is damaged.") from error


def _state_dicts(
    content: Any, where: str = "", seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The mappings of names to tensors in a file's content, by their keys; outer ones first."""
    if not isinstance(content, Mapping) or id(content) in seen or len(seen) > _DEPTH:
        return
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if tensors:
        # The very object, where it is nothing else: it may carry versions of its modules.
        yield where, content if len(tensors) == len(content) else tensors
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Mapping):
            inner = f"{where}.{name}" if where else name
            yield from _state_dicts(value, inner, seen | {id(content)})


def _fit(where: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> _Fit:
    """Brings the names of a state dict to those of a network, and compares."""
    names = {name.replace(_COMPILED, ""): name for name in state}
    ours = _common_prefix(expected)
    tails = {name.removeprefix(ours) for name in expected}
    theirs = _prefix(names, tails, ours)
    found = {
        ours + short.removeprefix(theirs): state[name]
        for short, name in names.items()
        if short.startswith(theirs)
    }
    left_out = [name for short, name in names.items() if not short.startswith(theirs)]

    missing = {name for name in expected if name not in found and not name.endswith(_COUNTER)}
    unexpected = found.keys() - expected.keys()
    differing = {
        name: (expected[name], found[name])
        for name in expected.keys() & found.keys()
        if not _alike(expected[name], found[name], from_dimension=0)
    }
    # The head is where the number of classes differs, and nothing else.
    heads = {
        (len(one), len(other)) for one, other in differing.values() if one.dim() and other.dim()
    }
    is_head = (
        len(heads) == 1
        and not missing
        and not unexpected
        and all(_alike(*pair, from_dimension=1) for pair in differing.values())
    )
    notes = [f"the weights under {where!r}"] if where else []
    compiled = sum(short != name for short, name in names.items())
    if compiled:
        notes.append(f"{_COMPILED!r} taken off {compiled} names")
    if theirs != ours:
        notes.append(f"names begin with {theirs!r}, taken for {ours!r}")
    if left_out:
        notes.append(f"left out, for the network has none of these: {_listed(left_out)}")
    return _Fit(
        state=_with_versions(found, state, theirs, ours),
        where=where,
        wrong=sorted({*missing, *unexpected, *differing}),
        n_known=len(found.keys() & expected.keys()),
        n_classes=heads.pop()[1] if is_head else None,
        notes=notes,
    )


def _prefix(names: Iterable[str], tails: Container[str], ours: str) -> str:
    """What stands before most of the names that a network knows; its own prefix, if in doubt."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in tails:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return max(counts, key=lambda prefix: (counts[prefix], prefix == ours), default=ours)


def _common_prefix(names: Iterable[str]) -> str:
    """The modules, each with a dot, with which all names begin."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{level[0]}." for level in takewhile(lambda one: len(set(one)) == 1, levels))


def _alike(expected: Tensor, found: Tensor, *, from_dimension: int) -> bool:
    """Whether shapes are the same from a dimension on, and numbers of the same kind."""
    return (
        expected.dim() == found.dim()
        and expected.shape[from_dimension:] == found.shape[from_dimension:]
        and expected.is_floating_point() == found.is_floating_point()
        and expected.is_complex() == found.is_complex()
        and found.layout == torch.strided
    )


def _same(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in state.items()
    )


def _with_versions(
    found: dict[str, Tensor], state: Mapping[str, Tensor], theirs: str, ours: str
) -> dict[str, Tensor]:
    """Carries over the versions of modules that torch keeps beside a state dict."""
    versions = getattr(state, "_metadata", None)
    if not isinstance(versions, Mapping):
        return found
    carried: Any = OrderedDict(found)
    carried._metadata = {
        (ours + f"{name}.".replace(_COMPILED, "").removeprefix(theirs)).rstrip("."): version
        for name, version in versions.items()
    }
    return cast("dict[str, Tensor]", carried)


def _listed(names: Iterable[str]) -> str:
    quoted = [name if name.isprintable() and name else repr(name) for name in names]
    return ", ".join(quoted[:3]) + (f" and {len(quoted) - 3} more" if len(quoted) > 3 else "")
