"""What several test modules share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports matplotlib.
os.environ["MPLBACKEND"] = "Agg"
# Before anything starts CUDA, whose convolutions round to TF32 otherwise: tests compare it with the
# CPU.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

import pytest
import torch
from PIL import Image
from torch import Tensor

from captum_groupcam.images import sample_images
from captum_groupcam.models import ImageClassifier, load_model

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# Small tensors gain nothing from more threads, and workers must not compete.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session")
def lite0() -> ImageClassifier:
    """EfficientNet-Lite0 with its ImageNet weights."""
    return load_model("efficientnet_lite0")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data in {folder}")
    return folder


@pytest.fixture(scope="session")
def images(lite0: ImageClassifier) -> Callable[..., Tensor]:
    """``images("cat", "coffee")``: sample images as EfficientNet-Lite0 takes them (N x 3 x ...)."""

    def load(*names: str) -> Tensor:
        samples = sample_images()
        return torch.stack([lite0.preprocess(samples[name]()) for name in names])

    return load


@pytest.fixture
def cat_file(tmp_path: Path) -> Path:
    """The sample image of a cat as a file."""
    path = tmp_path / "cat.png"
    sample_images()["cat"]().save(path)
    return path


@pytest.fixture
def damaged_file(tmp_path: Path) -> Path:
    """A JPEG whose second half is missing."""
    whole = tmp_path / "whole.tmp"
    Image.effect_noise((64, 64), 50).save(whole, "JPEG")
    path = tmp_path / "damaged.jpg"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Chromium without a window, that notes its console and requests, and knows no other host."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install 'captum_groupcam[dev]'"
    )
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        # Pages have to do without a network.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        "--window-size=1280,1400",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser
