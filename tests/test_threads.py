"""One thread at a time in each network; what four threads ask is tested by the attacks."""

from __future__ import annotations

import functools
import threading
import warnings

import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from captum_groupcam import GroupCAM, _compiled
from captum_groupcam.methods import METHODS, Method
from captum_groupcam.networks.outputs import SelectOutput
from captum_groupcam.threads import (
    network_locks,
    of_this_thread,
    reached_modules,
    run_alone,
    surely,
)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


class Server:
    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def answer(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.answer(inputs)


GLOBAL = net()


def of_a_global(inputs):
    return GLOBAL(inputs)


def test_a_forward_function_leads_to_the_network_that_it_calls():
    model = net()
    server = Server(model)
    for forward in (
        model,
        lambda inputs: model(inputs),
        lambda inputs, called=model: called(inputs),
        functools.partial(lambda called, inputs: called(inputs), model),
        functools.partial(lambda inputs, called: called(inputs), called=model),
        functools.wraps(model.forward)(lambda *inputs: model(*inputs)),
        model.forward,
        server,
        server.answer,
        lambda inputs: server.answer(inputs),
        SelectOutput(model, "logits"),
        GroupCAM(model, model[0]),
        torch.compile(model, backend="eager"),
    ):
        assert set(model.modules()) <= set(reached_modules(forward))
    assert set(GLOBAL.modules()) == set(reached_modules(of_a_global))
    assert reached_modules(torch.relu) == []


def test_networks_that_share_a_module_share_a_lock():
    one, other = net(), net()
    (lock,) = network_locks(one.modules())
    assert network_locks(SelectOutput(one, "logits").modules()) == [lock]
    assert network_locks([one[0]]) == [lock]
    (second,) = network_locks(other.modules())
    assert second is not lock
    # One order for all threads, whichever network is first.
    assert network_locks(nn.ModuleList([other, one]).modules()) == [lock, second]


def test_a_call_waits_until_another_thread_is_done():
    model, inputs = net(), torch.rand(1, 3, 8, 8)
    order: list[str] = []

    def explain() -> None:
        GroupCAM(lambda x: model(x), model[0]).attribute(inputs, 1, n_groups=2)
        order.append("explained")

    def work() -> None:
        thread.start()
        thread.join(0.2)
        order.append("alone")

    thread = threading.Thread(target=explain)
    run_alone(model, work)
    thread.join()
    assert order == ["alone", "explained"]


def test_another_network_need_not_wait():
    done = threading.Event()

    def explain() -> None:
        model = net()
        GroupCAM(model, model[0]).attribute(torch.rand(1, 3, 8, 8), 1, n_groups=2)
        done.set()

    thread = threading.Thread(target=explain)

    def work() -> bool:
        thread.start()
        return done.wait(60)

    assert run_alone(net(), work)
    thread.join()


def test_predictions_of_another_thread_are_none_of_the_layers():
    model, inputs = net(), torch.rand(2, 3, 8, 8)
    expected = GroupCAM(model, model[0]).attribute(inputs, 1, n_groups=2)
    others = torch.rand(1, 3, 8, 8)

    class Busy(nn.Module):
        """Has another thread predict before each of its own passes is through."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x):
            features = self.model[0](x)
            grad = []

            def predict() -> None:
                with torch.no_grad():
                    model(others)
                    grad.append(torch.is_grad_enabled())

            thread = threading.Thread(target=predict)
            thread.start()
            thread.join()
            assert grad == [False]
            return self.model[3](self.model[2](self.model[1](features)))

    found = GroupCAM(Busy().eval(), model[0]).attribute(inputs, 1, n_groups=2)
    assert torch.allclose(found, expected)


def test_what_comes_afterwards_is_done_when_it_is_interrupted_itself():
    done: list[str] = []

    def afterwards() -> None:
        done.append("begun")
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append("done")

    with pytest.raises(KeyboardInterrupt):
        surely(lambda: 3, afterwards)
    assert done == ["begun", "begun", "done"]


def test_hooks_of_others_stay():
    model = net()

    def work() -> None:
        model[0].register_forward_hook(lambda *_: None)
        model.train()
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        run_alone(model, work)
    assert len(model[0]._forward_hooks) == 1
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["smooth_grad", "rise", "group_cam"])
def test_methods_leave_the_global_generator_to_other_threads(name):
    """One who draws meanwhile draws on: nothing is put back."""
    model = net()
    drawn = []

    class Drawing(nn.Module):
        def forward(self, inputs):
            drawn.append(torch.rand(1))
            return model(inputs)

    options = {"smooth_grad": {"n_samples": 2}, "rise": {"n_masks": 2}}.get(name, {"n_groups": 2})
    torch.manual_seed(5)
    METHODS[name](Drawing().eval(), model[0], **options)(torch.rand(1, 3, 8, 8), 1)
    assert torch.rand(1) not in drawn


def test_smooth_grad_is_that_of_captum():
    model = net()
    inputs = torch.rand(2, 3, 16, 16)
    found = METHODS["smooth_grad"](model, n_samples=10, internal_batch_size=4, seed=3)(inputs, 1)
    for index in range(2):
        sample = inputs[index : index + 1]
        torch.manual_seed(3)
        expected = NoiseTunnel(Saliency(model)).attribute(
            sample,
            nt_type="smoothgrad",
            nt_samples=10,
            nt_samples_batch_size=4,
            stdevs=float(sample.max() - sample.min()) * 0.15,
            target=1,
            abs=False,
        )
        torch.testing.assert_close(
            found[index : index + 1], expected.abs().sum(1, keepdim=True), rtol=1e-5, atol=1e-8
        )


def test_a_method_of_ones_own_may_draw():
    def noise(model, inputs, target):
        assert target == 1
        return torch.rand_like(inputs[:, :1]) + model(inputs).amin()

    model, inputs = net(), torch.rand(1, 3, 8, 8)
    state = torch.get_rng_state()
    Method("noise", "Noise", noise)(model)(inputs, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_warnings_name_the_program():
    model = net()
    with pytest.warns(UserWarning, match="are zero") as caught:
        GroupCAM(model, model[0]).attribute(torch.zeros(1, 3, 8, 8), 1, n_groups=2)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS["guided_backprop"](model)(torch.rand(1, 3, 8, 8), 1)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs set_stance")
def test_what_is_compiled_stays_so_whichever_thread_ends_first():
    ran: list[int] = []

    def backend(graph, _inputs):
        def run(*arguments):
            ran.append(1)
            return graph.forward(*arguments)

        return run

    compiled = torch.compile(lambda inputs: inputs + 1, backend=backend)
    began, may_end = threading.Event(), threading.Event()

    def longer() -> None:
        with _compiled.uncompiled():
            began.set()
            may_end.wait()

    thread = threading.Thread(target=longer)
    with _compiled.uncompiled():
        thread.start()
        began.wait()
    compiled(torch.zeros(2))
    assert not ran  # the other thread still needs it
    may_end.set()
    thread.join()
    compiled(torch.zeros(2))
    assert ran


def test_passes_of_other_threads_are_none_of_a_hook() -> None:
    network = nn.Linear(2, 2)
    seen: list[int] = []
    handle = network.register_forward_hook(of_this_thread(lambda *_: seen.append(1)))
    other = threading.Thread(target=network, args=(torch.ones(1, 2),))
    other.start()
    other.join()
    assert not seen
    network(torch.ones(1, 2))
    handle.remove()
    assert seen == [1]


def test_filters_that_an_interrupt_leaves_behind():
    before = list(warnings.filters)

    def work() -> None:
        # As where the interrupt comes in the end of another library's `with catch_warnings()`.
        warnings.catch_warnings().__enter__()
        warnings.simplefilter("ignore")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_alone(net(), work)
    assert list(warnings.filters) == before
