"""Targets against Captum's own selection, for every form that it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum._utils.common import _select_targets
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_groupcam.masking.targets import Target, TargetError

CPU = torch.device("cpu")


def select(target, output, samples=None):
    n = len(output) if samples is None else int(samples.max()) + 1
    samples = torch.arange(n) if samples is None else samples
    return Target.of(target, n, CPU).select(output, samples)


FORMS = {
    "int": (4, lambda n, c: c),
    "tensor": (4, lambda n, c: torch.tensor(c)),
    "tensor with one element": (4, lambda n, c: torch.tensor([c])),
    "list": (4, lambda n, c: [(c + i) % 5 for i in range(n)]),
    "1-D tensor": (4, lambda n, c: torch.tensor([(c + i) % 5 for i in range(n)])),
}


@pytest.mark.parametrize(("n", "make"), FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("c", [0, 3, 4])
def test_as_captum_for_two_dimensions(n, make, c):
    output = torch.randn(n, 5)
    torch.testing.assert_close(
        select(make(n, c), output), _select_targets(output, make(n, c)).reshape(n)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=2, max_size=3), st.data())
def test_as_captum_for_more_dimensions(n, sizes, data):
    output = torch.randn(n, *sizes)
    index = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    one = data.draw(index)
    many = data.draw(st.lists(index, min_size=n, max_size=n))
    torch.testing.assert_close(select(one, output), _select_targets(output, one).reshape(n))
    torch.testing.assert_close(select(many, output), _select_targets(output, many).reshape(n))


@pytest.mark.parametrize(
    "target",
    [np.int64(1), np.uint8(1), -2, (np.int32(1),), [1, np.int64(1)], [torch.tensor(1), -2]],
    ids=repr,
)
def test_whatever_is_an_integer(target):
    output = torch.randn(2, 3)
    assert torch.equal(select(target, output), output[:, 1])


@pytest.mark.parametrize("target", [True, [True, False], (True,), [np.True_, 1]], ids=repr)
def test_truth_is_no_place(target):
    with pytest.raises(TypeError, match="A target is"):
        select(target, torch.randn(2, 3))


def test_rows_of_the_output_are_those_of_their_samples():
    output = torch.arange(12.0).view(4, 3)
    samples = torch.tensor([1, 0, 1, 2])
    assert select([0, 1, 2], output, samples).tolist() == [1, 3, 7, 11]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1)])
def test_no_target_for_one_value_a_sample(shape):
    output = torch.randn(shape)
    assert torch.equal(select(None, output), output.reshape(4))


def test_one_index_where_what_is_left_has_one_element():
    output = torch.randn(2, 3, 1, 1)
    assert torch.equal(select(2, output), output[:, 2, 0, 0])


def test_gradient_flows():
    output = torch.randn(2, 3, requires_grad=True)
    select([2, 0], output).sum().backward()
    assert output.grad.tolist() == [[0, 0, 1], [1, 0, 0]]


BAD = {
    "too high": (3, (2, 3), TargetError, "3 is out of range .* 0 to 2"),
    "too low": (-4, (2, 3), TargetError, "-4 is out of range"),
    "one of several": ([0, 5], (2, 3), TargetError, "5 is out of range"),
    "in the second dimension": ((1, 4), (2, 3, 4), TargetError, "4 is out of range .* 0 to 3"),
    "none for several values": (None, (2, 3), TargetError, "give a target"),
    "too few indices": (
        1,
        (2, 3, 4),
        TargetError,
        r"with 1 index does .* expected 2 indices for each",
    ),
    "too many indices": (
        (1, 1),
        (2, 3),
        TargetError,
        r"with 2 indices does .* expected 1 index for each",
    ),
    "an index for no dimension": (0, (2,), TargetError, r"expected 0 indices"),
    "too few targets": ([1], (2, 3), TargetError, "each of 2 samples, got 1"),
    "no targets": ([], (2, 3), TargetError, "each of 2 samples, got 0"),
    "too many targets": (torch.tensor([1, 1, 1]), (2, 3), TargetError, "of 2 samples, got 3"),
    "a matrix": (torch.ones(2, 2).long(), (2, 3), TargetError, r"the shape \(2, 2\)"),
    "tuples of two lengths": ([(1,), (1, 2)], (2, 3), TargetError, "need one length"),
    "floats": (1.0, (2, 3), TypeError, "A target is an int.*got 1.0"),
    "a float in a list": ([1, 1.5], (2, 3), TypeError, "got 1.5"),
    "a tensor of floats": (torch.tensor(1.0), (2, 3), TypeError, "tensor of torch.float32"),
    "a tensor of booleans": (torch.tensor([True, False]), (2, 3), TypeError, "torch.bool"),
    "text": ("dog", (2, 3), TypeError, "got 'dog'"),
}


@pytest.mark.parametrize(("target", "shape", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_target(target, shape, error, message):
    with pytest.raises(error, match=message):
        select(target, torch.randn(shape))


def test_wrong_target_is_the_error_of_torch_and_of_captum():
    assert issubclass(TargetError, ValueError)
    assert issubclass(TargetError, AssertionError)


def test_output_with_other_rows():
    with pytest.raises(ValueError, match=r"shape \(3, 5\) for 2 inputs; expected one row for each"):
        Target.of(1, 2, CPU).select(torch.randn(3, 5), torch.arange(2))
