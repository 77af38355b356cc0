"""Options that several commands have, each group declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

__all__ = ["network_details", "network_options", "with_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def with_options(**groups: Callable[..., Any]) -> Callable[[_Function], Callable[..., Any]]:
    """Gives a command the options of groups beside its own.

    Args:
        **groups (Callable): By the name of an argument of the command, a function whose keywords
            are options; what it makes of them is the argument.

    Returns:
        Callable: A decorator.

    Examples::

        >>> def size(*, height: int = 2, width: int = 3):
        ...     return height, width
        >>> @with_options(size=size)
        ... def command(name: str = "a", *, size):
        ...     return name, size
        >>> list(inspect.signature(command).parameters)
        ['name', 'height', 'width']
        >>> command(name="b", height=1)
        ('b', (1, 3))
    """

    def decorate(command: _Function) -> Callable[..., Any]:
        parameters = inspect.signature(command).parameters.values()
        taken = {name: list(inspect.signature(group).parameters) for name, group in groups.items()}

        @functools.wraps(command)
        def with_groups(*arguments: Any, **options: Any) -> Any:
            made = {
                name: group(**{one: options.pop(one) for one in taken[name] if one in options})
                for name, group in groups.items()
            }
            return command(*arguments, **options, **made)

        hints: dict[str, Any] = {}
        shown = [parameter for parameter in parameters if parameter.name not in groups]
        for function in (command, *groups.values()):
            hints |= get_type_hints(function, include_extras=True)
        for group in groups.values():
            shown += inspect.signature(group).parameters.values()
        signature = inspect.Signature(
            [
                parameter.replace(
                    kind=inspect.Parameter.KEYWORD_ONLY,
                    annotation=hints.get(parameter.name, parameter.annotation),
                )
                for parameter in shown
            ]
        )
        with_groups.__signature__ = signature  # type: ignore[attr-defined]
        with_groups.__annotations__ = {
            name: parameter.annotation for name, parameter in signature.parameters.items()
        }
        return with_groups

    return decorate


def network_details(
    *,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A checkpoint or safetensors file; 'random'; or a name of torchvision's weights. "
            "Otherwise the network's own.",
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Dotted name of the layer to explain. Otherwise the last one with positions.",
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Names of the classes, one in each line, or JSON."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="'imagenet', or module:transform. Otherwise the network's own.",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="N", help="Side of the network's inputs in pixels, or HEIGHTxWIDTH."),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Length of the shorter side before the centre is cut out; 'stretch' cuts nothing.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Mean that is taken off, of values from 0 to 1."),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Standard deviation that is divided by.")
    ] = None,
    interpolation: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="bilinear, bicubic, lanczos or nearest."),
    ] = None,
) -> dict[str, Any]:
    """Arguments of :func:`~captum_groupcam.models.load_model` beside the name.

    Raises:
        typer.BadParameter: If a number cannot be read.
    """
    values = {
        "image_size": _size(image_size),
        "resize": resize if resize == "stretch" else _whole("--resize", resize),
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "interpolation": interpolation,
    }
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    whole = {"base": preprocess, **given} if preprocess is not None else given
    arguments = {
        "weights": weights,
        "layer": layer,
        "class_names": class_names,
        "preprocess": whole if given else preprocess,
    }
    return {name: value for name, value in arguments.items() if value is not None}


@with_options(details=network_details)
def network_options(
    *,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="efficientnet_lite0, a classifier of torchvision, timm:NAME, hf:NAME or "
            "hf:FOLDER; your own: package.module:object, FILE.py:object, or what describes it, "
            "FILE.toml.",
        ),
    ] = "efficientnet_lite0",
    details: dict[str, Any],
) -> dict[str, Any]:
    """Arguments of :func:`~captum_groupcam.models.load_model`."""
    return {"name": model, **details}


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None or "x" not in text:
        return _whole("--image-size", text)
    height, _, width = text.partition("x")
    sides = _whole("--image-size", height), _whole("--image-size", width)
    assert sides[0] is not None
    assert sides[1] is not None
    return sides[0], sides[1]


def _whole(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        raise typer.BadParameter(f"{option} is a number of pixels, got {text!r}.") from None


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3):
        raise typer.BadParameter(f"{option} is three numbers, or one for all, got {text!r}.")
    return numbers * (3 // len(numbers))
