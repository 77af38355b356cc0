"""What the methods have in common: the name that is printed, and arguments described once."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar, get_type_hints

__all__ = ["Titled", "arguments_of", "options_of", "shared_arguments"]

_Documented = TypeVar("_Documented", bound=Callable[..., Any])

#: Arguments that several methods have, by the name that stands in braces in their docstrings.
_ARGUMENTS = {
    "forward_func": "The forward function of the model or any modification of it.",
    "layer": "The layer that is explained, usually the last one with spatial dimensions.",
    "device_ids": (
        "Device IDs, necessary only if forward_func applies a DataParallel model; not if it is "
        "one. Default: None."
    ),
    "inputs": (
        "N x C x spatial, with one to three spatial dimensions. Every floating-point input with "
        "spatial dimensions is masked, with the same masks; others reach the network as they are."
    ),
    "unmasked_inputs": (
        "N x C x spatial, with one to three spatial dimensions. Of a tuple one at least has them."
    ),
    "target": (
        "The output that is explained, in any of Captum's forms: an int or a tensor with one "
        "element, or a tuple for outputs with more than two dimensions, for all samples; a list or "
        "a 1-D tensor with one for each sample. Not needed where the network gives one value a "
        "sample. Default: None."
    ),
    "additional_forward_args": (
        "Arguments of forward_func after the inputs, a tuple if several. Tensors of batch size N "
        "go with their samples, also those in lists, dicts and dataclasses, unless they are "
        ":class:`~captum_groupcam.masking.network.Shared`; lists and arrays with an entry for each "
        "sample, such as captions, do so where the network shows it. Default: None."
    ),
    "attribute_to_layer_input": (
        "Whether the input of the layer is meant rather than its output. Default: False."
    ),
    "relu_attributions": (
        "Whether only positive attributions are returned, as in the paper; otherwise the signed "
        "sum. Default: True."
    ),
    "baselines": (
        "What is seen where a mask hides the input: a tensor of the input's shape (or batch size "
        "1), a number, a function of the input, or a tuple with one of these for each input. "
        "Captum's NoiseTunnel passes functions on that are given by "
        ":class:`~captum_groupcam.attr.partial.Partial`."
    ),
    "score_func": (
        "Turns the network's output (N x classes x ...) into the scores of the samples."
    ),
    "reshape_transform": (
        "Brings activations without spatial dimensions to N x K x spatial: those of a transformer, "
        "for which :func:`~captum_groupcam.networks.layers.find_layer` finds it. Default: None."
    ),
    "layer_call": (
        "Which call of the layer is meant, from 0, where it runs several times in one pass of the "
        "network: an activation that several blocks share, an encoder that several inputs share. "
        "A tuple has an entry for each input, its own call, or None for one without a map; each "
        "map is then that of its input alone, with the others as they are. Default: None, it runs "
        "once."
    ),
    "internal_batch_size": (
        "Largest number of inputs in one pass of the network; sets the peak of memory, not the "
        "result. Default: None, a size that runs fast on the device "
        "(:data:`~captum_groupcam.masking.network.DEFAULT_BATCH_SIZE`)."
    ),
    "show_progress": "Whether to show a progress bar. Default: False.",
}
#: ``name (type): {argument}``, and what a method adds to it.
_LINK = re.compile(r"^( *)(\w+ \([^\n]*\)):\s+\{(\w+)\}((?: .*)?(?:\n\1    .*)*)$", re.MULTILINE)
#: The same with a text of its own.
_ENTRY = re.compile(r"^( *)((\w+) \([^\n]*\)):(.*(?:\n\1    .*)*)$", re.MULTILINE)
#: Where the options stand that a method takes from a function.
_OPTIONS = re.compile(r"^( *)\*\*options: \{options\}$", re.MULTILINE)


def shared_arguments(documented: _Documented) -> _Documented:
    """Puts the texts of shared arguments into a docstring, for ``name (type): {name}``."""
    return _linked(documented, _ARGUMENTS)


def arguments_of(function: Callable[..., Any]) -> Callable[[_Documented], _Documented]:
    """Does the same, with the arguments that a function describes before those that are shared."""
    texts = {name: text for name, (_, text) in _entries(function).items()}
    return partial(_linked, texts={**_ARGUMENTS, **texts})


def options_of(*functions: Callable[..., Any]) -> Callable[[_Documented], _Documented]:
    """Writes out what ``**options`` stands for: the keyword-only arguments of functions.

    They stand in the signature, in the annotations, and below ``Args:`` in the docstring, for
    ``**options: {options}``. An argument that the method has itself is not taken from a function.
    """

    def written_out(method: _Documented) -> _Documented:
        signature, annotations = inspect.signature(method), method.__annotations__
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options: dict[str, inspect.Parameter] = {}
        entries: list[tuple[str, str]] = []
        for function in functions:
            hints, described = get_type_hints(function), _entries(function)
            for name, parameter in inspect.signature(function).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY and name not in signature.parameters:
                    options[name], annotations[name] = parameter, hints[name]
                    entries.append(described.get(name, (name, "")))
        del annotations["options"]
        method.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *options.values()]
        )
        if method.__doc__ is not None:  # python -OO has none
            method.__doc__ = _OPTIONS.sub(
                lambda place: "\n".join(_filled(place[1], *entry) for entry in entries),
                method.__doc__,
            )
        return shared_arguments(method)

    return written_out


def _entries(function: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """What a function says of its arguments, by name: ``name (type)``, and the text."""
    found = _ENTRY.findall(inspect.cleandoc(function.__doc__ or ""))
    return {name: (head, " ".join(text.split())) for _, head, name, text in found}


def _linked(documented: _Documented, texts: Mapping[str, str]) -> _Documented:
    def described(entry: re.Match[str]) -> str:
        indent, head, argument, more = entry.groups()
        return _filled(indent, head, " ".join([texts[argument], *more.split()]))

    if documented.__doc__ is not None:  # python -OO has none
        documented.__doc__ = _LINK.sub(described, documented.__doc__)
    return documented


def _filled(indent: str, head: str, text: str) -> str:
    """An entry below ``Args:``, in lines of at most 100 columns."""
    filled = textwrap.fill(
        f"{head}: {text}".replace("Default: ", "Default:\xa0"),  # stays in one line with its value
        width=100,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\xa0", " ")


class Titled:
    """An attribution method whose name is written as its paper writes it."""

    title: ClassVar[str]

    @classmethod
    def get_name(cls) -> str:
        """The name of the method, for people.

        Returns:
            str: The name, as its paper writes it.
        """
        return str(vars(cls).get("title") or super().get_name())  # type: ignore[misc]
