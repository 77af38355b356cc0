"""A data set by its name and options, for a network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_groupcam.models import ImageClassifier
from captum_groupcam.options import check_options, options_of, parse_value, split_text

from ._samples import Dataset, Source

__all__ = ["open_dataset"]

#: The keyword by which a source gets the network, if it has to ask it.
_MODEL = "model"


def open_dataset(
    sources: Mapping[str, Source], text: str, root: Path | None, model: ImageClassifier
) -> Dataset:
    """Finds the samples of a data set.

    Args:
        sources (mapping of str to Source): The data sets by name. The keyword-only parameters of a
            source are its options; one that is called ``model`` is the network.
        text (str): ``name``, or ``name:option=value,option=value``.
        root (Path or None): The folder of the data set.
        model (ImageClassifier): The network that the data are for.

    Raises:
        ValueError: If there is no such data set or option, a value is of another type, or what the
            source raises.

    Examples::

        >>> from captum_groupcam.models import load_model
        >>> from benchmarks.data import DATASETS
        >>> len(open_dataset(DATASETS, "bundled", None, load_model("squeezenet1_1", "random")))
        9
    """
    name, listed = (text, "") if text in sources else text.partition(":")[::2]
    if name not in sources:
        raise ValueError(f"Unknown dataset {text!r}; known are {', '.join(sources)}.")
    source, options = sources[name], {}
    for item in split_text(listed, ","):
        option, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(
                f"Expected a data set as name or name:option=value,option=value, got {text!r}."
            )
        options[option] = parse_value(value)
    known = {key: option for key, option in options_of(source).items() if key != _MODEL}
    try:
        check_options(known, options, f"The data set {name}")
    except TypeError as error:
        raise ValueError(str(error)) from error
    keywords: dict[str, Any] = dict(options)
    if _MODEL in inspect.signature(source).parameters:
        keywords[_MODEL] = model
    return source(root, model.class_names, **keywords)
