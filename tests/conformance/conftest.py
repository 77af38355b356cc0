"""Segments of an image are found once: nearly all of the time that XRAI takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

_FOUND: dict[tuple[Any, ...], np.ndarray] = {}


@pytest.fixture(autouse=True)
def _segments_found_once() -> Iterator[None]:
    try:
        from skimage import segmentation
    except ImportError:  # the environment of captum 0.8 need not have it
        yield
        return
    felzenszwalb = segmentation.felzenszwalb

    def found(image: np.ndarray, **options: Any) -> np.ndarray:
        key = (image.tobytes(), *sorted(options.items()))
        if key not in _FOUND:
            _FOUND[key] = felzenszwalb(image, **options)
        return _FOUND[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "felzenszwalb", found)
        yield
