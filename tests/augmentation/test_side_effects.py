"""What the recipe leaves as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from captum_groupcam.augmentation import BackgroundBlur
from tests.augmentation.small_network import BLURS, LABELS, Network, batch, state


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_leaves_no_trace(
    network: Network, blur: type[BackgroundBlur], grad: bool, fails: bool
) -> None:
    inputs, labels = batch(), LABELS + 100 * fails
    whole = inputs.clone()
    network.features[3].requires_grad_(False)
    before = state(network)
    with torch.set_grad_enabled(grad):
        if fails:
            with pytest.raises((ValueError, IndexError, AssertionError, RuntimeError)):
                blur(network, network.features)(inputs, labels)
        else:
            altered = blur(network, network.features, probability=0.7)(inputs, labels)
            assert not altered.requires_grad
    after = state(network)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(inputs, whole)


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_keeps_dtype_and_memory_format(
    network: Network,
    blur: type[BackgroundBlur],
    dtype: torch.dtype,
    layout: torch.memory_format,
    probability: float,
) -> None:
    inputs = batch().to(dtype).contiguous(memory_format=layout)
    make = blur(network.to(dtype), network.features, probability=probability, seed=3)
    altered = make(inputs, LABELS)
    assert not torch.equal(altered, inputs)
    assert (altered.dtype, altered.shape) == (inputs.dtype, inputs.shape)
    assert altered.stride() == inputs.stride()


@pytest.mark.parametrize("blur", BLURS)
def test_inside_autocast_training_still_has_gradients(
    network: Network, blur: type[BackgroundBlur]
) -> None:
    inputs = batch()
    with torch.autocast("cpu", torch.bfloat16):
        altered = blur(network, network.features)(inputs, LABELS)
        assert altered.dtype == torch.float32
        loss = F.cross_entropy(network(altered), LABELS)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("blur", BLURS)
def test_compiled_network(network: Network, blur: type[BackgroundBlur]) -> None:
    inputs = batch()
    expected = blur(network, network.features)(inputs, LABELS)
    compiled = torch.compile(network, backend="eager")
    altered = blur(compiled, network.features)(inputs, LABELS)
    torch.testing.assert_close(altered, expected)
    assert compiled.training
    assert network.training
