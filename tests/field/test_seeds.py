"""A seed that was set before CUDA was initialised still waits for it afterwards."""

from __future__ import annotations

import pytest
import torch

from captum_groupcam.methods import METHODS
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.networks import find_layer
from tests.toy_networks import classifier

if torch.cuda.is_initialized():
    pytest.skip("CUDA has taken its seed", allow_module_level=True)

NETWORK, IMAGES = classifier().eval(), torch.rand(2, 3, 16, 16)
CALLS = {
    "smooth_grad": lambda: METHODS["smooth_grad"](NETWORK)(IMAGES, 1),
    "rise": lambda: METHODS["rise"](NETWORK, n_masks=8)(IMAGES, 1),
    "group_cam": lambda: METHODS["group_cam"](NETWORK, NETWORK.features)(IMAGES, 1),
    "deletion_insertion": lambda: deletion_insertion(NETWORK, IMAGES[:, :1], IMAGES, 1),
    "find_layer": lambda: find_layer(NETWORK, IMAGES),
}


@pytest.mark.filterwarnings("ignore:The maps of samples")
@pytest.mark.parametrize("name", CALLS)
def test_the_seed_that_waits_for_cuda_is_kept(name: str) -> None:
    torch.manual_seed(5)
    waiting = torch.cuda._lazy_seed_tracker.manual_seed_all_cb
    CALLS[name]()
    assert torch.cuda._lazy_seed_tracker.manual_seed_all_cb is waiting
    assert torch.initial_seed() == 5
