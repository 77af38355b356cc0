"""The settings of the page as an address, so that a link restores them; the photo is left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from urllib.parse import urlencode

from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._options import offered_options
from captum_groupcam.masking.checks import check_between
from captum_groupcam.methods import offered_methods
from captum_groupcam.options import Option, Value

__all__ = ["SIDES", "STEPS", "TABS", "query_of", "read_query"]

#: Shares of the pixels that deletion and insertion replace at a time, as the page names them.
STEPS = {"10 % a step": 0.1, "5 % a step": 0.05, "2 % a step": 0.02, "1 % a step (paper)": 0.01}
#: What stands below the maps, as the page names it.
TABS = {"Groups": "groups", "Curves": "curves", "Save": "save"}
#: What the address calls the methods that are compared.
SIDES = ("method", "compare")
#: Characters of a value, more than a layer's name has; and of what is said about it.
_LONGEST = 200
#: Characters that a message repeats of an address, and names.
_REPEATED, _LISTED = 40, 10


def query_of(settings: Mapping[str, Value]) -> str:
    """Writes settings as the query of an address.

    Args:
        settings (mapping of str to value): "network", "layer", "target", "method" and "compare",
            their options as "method.n_groups", "opacity", "step" and "tab", as far as they are set.

    Examples::

        >>> query_of({"network": "resnet50", "method": "rise", "method.seed": 1})
        'network=resnet50&method=rise&method.seed=1'
    """
    return urlencode({name: "" if value is None else value for name, value in settings.items()})


def read_query(query: Mapping[str, str], models: Models) -> tuple[dict[str, Value], list[str]]:
    """Reads settings from the query of an address, which anybody can have written.

    A value counts if the page could have it: it is checked like what is typed there. Nothing is
    loaded or imported but a network on offer.

    Args:
        query (mapping of str to str): Names and values.
        models (Models): The networks on offer.

    Returns:
        tuple of dict and list of str: The settings that :func:`query_of` takes, and what is wrong
        with the others.

    Examples::

        >>> read_query({"method": "rise", "method.seed": "1.5"}, Models(["efficientnet_lite0"]))
        ({'method': 'rise'}, ['seed is a whole number, got 1.5.'])
    """
    # Gradio's own begin so: `__theme=dark`.
    left = {name: text for name, text in query.items() if not name.startswith("__")}
    settings: dict[str, Value] = {}
    problems: list[str] = []

    def read(name: str, parse: Callable[[str], Value]) -> None:
        if name not in left:
            return
        text = left.pop(name)
        try:
            if len(text) > _LONGEST:
                raise ValueError(f"{name} has {len(text)} characters, more than {_LONGEST}.")
            settings[name] = parse(text)
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            problems.append(str(error)[:_LONGEST])

    read("network", partial(_network, models))
    if "network" in query and "network" not in settings:
        left = {name: text for name, text in left.items() if name not in ("layer", "target")}
    network = str(settings.get("network", models.names[0]))
    read("layer", partial(_layer, models, network))
    read("target", partial(_target, models, network))
    for side in SIDES:
        read(side, partial(_one_of, offered_methods(), "method"))
        for option in offered_options(str(settings[side])) if side in settings else ():
            read(f"{side}.{option.name}", partial(_option, option))
    read("opacity", _opacity)
    read("step", _step)
    read("tab", partial(_one_of, TABS.values(), "tab"))
    if left:
        unknown = [name[:_REPEATED] for name in left]
        more = f" and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
        problems.append(f"Unknown names: {', '.join(unknown[:_LISTED])}{more}.")
    return settings, problems


def _one_of(names: Collection[str], what: str, text: str) -> str:
    if text not in names:
        # The page lists more than a message can.
        few = f": expected one of {', '.join(names)}" if len(names) <= _LISTED else ""
        raise ValueError(f"Unknown {what} {text[:_REPEATED]!r}{few}.")
    return text


def _network(models: Models, text: str) -> str:
    models.layers(_one_of(models.names, "network", text))  # it can be loaded
    return text


def _layer(models: Models, network: str, text: str) -> str:
    if text and text not in models.layers(network):
        raise ValueError(f"{network} has no layer {text[:_REPEATED]!r} with positions.")
    return text


def _target(models: Models, network: str, text: str) -> int:
    n_classes = len(models.load(network).class_names)
    if not (text.isascii() and text.isdecimal()) or int(text) >= n_classes:
        raise ValueError(
            f"target must be a class of {network}, 0 to {n_classes - 1}, got {text[:_REPEATED]!r}."
        )
    return int(text)


def _option(option: Option, text: str) -> Value:
    value: Value = text
    if option.kind is bool:
        value = {"True": True, "False": False}.get(text, text)
    return option.parse(value)


def _opacity(text: str) -> float:
    opacity = _number("opacity", text)
    check_between("opacity", opacity, 0, 1)
    return opacity


def _step(text: str) -> float:
    step = _number("step", text)
    if step not in STEPS.values():
        raise ValueError(f"step must be one of {', '.join(map(str, STEPS.values()))}, got {step}.")
    return step


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what} is a number, got {text[:_REPEATED]!r}.") from None
