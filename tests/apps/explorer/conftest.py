from __future__ import annotations

import pytest

from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._questions import Photo, Question, View, look

LITE0 = "efficientnet_lite0"
RANDOM = "squeezenet1_1=random"
#: A layer of LITE0 that is cheap to explain.
ON_FEW_CHANNELS = "_blocks.0._bn2"


@pytest.fixture(scope="session")
def models() -> Models:
    return Models([LITE0, RANDOM])


@pytest.fixture(scope="session")
def cat() -> Photo:
    return Photo("cat")


@pytest.fixture(scope="session")
def views(models: Models, cat: Photo) -> dict[str, View]:
    """The cat as each of the networks sees it."""
    return {name: look(models, cat, name) for name in models.names}


@pytest.fixture(scope="session")
def ask(views: dict[str, View]):
    """Makes a question about the cat: ``ask("group_cam", n_groups=4)``."""

    def make(method: str, *, model: str = LITE0, layer: str = "", target: int = 281, **options):
        return Question(views[model], layer, target, method, options)

    return make
