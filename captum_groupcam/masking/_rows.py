"""Whether each row of a batch is answered by itself, as cutting a call into passes assumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking._arguments import Shared, dealt, of_rows, sharing
from captum_groupcam.masking._scores import with_rows
from captum_groupcam.masking.network import Network
from captum_groupcam.networks._sameness import Rounding, precision_of
from captum_groupcam.networks.training import has_batch_statistics, in_training

__all__ = ["random_states", "settled", "warn_of_company"]

#: Queries of a single sample among which one more is no cost to speak of.
_MANY = 100
#: How often one that draws random numbers is asked for the same rows again.
_TRIES = 5
#: What a network raises for rows that it does not take.
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)

_STATE = (
    "The network answers the same input differently when it is asked again: it keeps a state "
    "between its passes, or draws at random. So the map depends on what was asked before. Explain "
    "a function that resets the state, or seeds the generator, and then calls the network."
)


def random_states(device: torch.device) -> list[Tensor]:
    """The states of torch's global generators that a network on a device may draw from.

    Args:
        device (torch.device): The device.

    Returns:
        list of Tensor: The states, K bytes each.

    Examples::

        >>> before = random_states(torch.device("cpu"))
        >>> all(map(torch.equal, before, random_states(torch.device("cpu"))))
        True
    """
    on_cuda = device.type == "cuda" and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if on_cuda else [])]


def settled(network: Network, inputs: tuple[Tensor, ...]) -> Network:
    """Makes sure that the arguments that go with the samples belong to them, if there are any.

    A sample has to be answered alone, with its rows of the arguments, as it is beside another with
    the rows of both. It is not where a tensor belongs to all samples, such as the prompts of an
    image-text network, and has as many rows as there are samples by chance. Of one sample such a
    tensor is both, so that it is shared where the network takes it in no other way.

    Args:
        network (Network): The network with its arguments.
        inputs (tuple of Tensor): Inputs, N x ... each.

    Returns:
        Network: The same, which looks no more for rows where there are none.

    Raises:
        ValueError: If the answers differ; it names the argument.
    """
    arguments, n_samples = network.additional_forward_args, network.n_samples
    rows = dealt(arguments, n_samples)
    # So that long lists are not searched for each pass.
    none = torch.zeros(0, dtype=torch.long)
    network = replace(
        network,
        additional_forward_args=tuple(
            argument
            if dealt((argument,), n_samples)
            else Shared(of_rows((argument,), none, n_samples)[0])
            for argument in arguments
        ),
    )
    if not rows:
        return network
    # Rows that are equal show nothing.
    other = next((n for n in range(1, n_samples) if _differ(rows, n)), min(n_samples - 1, 1))
    pair = torch.tensor([0, other], device=inputs[0].device)
    problem, error = _problem(network, inputs, pair, pair)
    if problem is None:
        return network
    ways = [[name] for name in rows] + ([list(rows)] if len(rows) > 1 else [])
    for names in ways:
        arguments = sharing(network.additional_forward_args, names)
        shared = replace(network, additional_forward_args=arguments)
        if _problem(shared, inputs, pair, pair)[0] is not None:
            continue
        if n_samples == 1:
            return shared
        which = " and ".join(f"{name}, {tuple(rows[name].shape)}," for name in names)
        raise ValueError(
            f"{which} has as many rows as there are samples, so that each sample got one of them. "
            f"But {problem}: it belongs to all samples. Wrap it: "
            "captum_groupcam.masking.Shared(...)."
        ) from error
    if error is not None:
        raise error
    if other and _depends_on_inputs(network, inputs, pair):
        return network  # by itself, whatever the arguments are
    raise ValueError(
        f"Each sample got one of the rows of {' and '.join(rows)}. But {problem}. If a tensor "
        "belongs to all samples, wrap it: captum_groupcam.masking.Shared(...). Otherwise explain "
        "one sample at a time."
    )


def _depends_on_inputs(network: Network, inputs: tuple[Tensor, ...], pair: Tensor) -> bool:
    """Whether the answer for a sample depends on another also where all have the same arguments."""
    problem, error = _problem(network, inputs, pair, torch.zeros_like(pair))
    return problem is not None and error is None


def warn_of_company(
    network: Network, scores: Tensor, ask: Callable[[Tensor], Tensor], n_queries: int
) -> None:
    """Warns of a network whose score for a row depends on the rows beside it.

    One of some rows is asked alone, once in each call for several samples, or for very many
    queries.

    Args:
        network (Network): The network.
        scores (Tensor): Its scores for some rows, Q or Q x T.
        ask (Callable): Gives the scores of some of these rows, by their places.
        n_queries (int): Rows that are asked in all.

    Warns:
        UserWarning: If the score of the row alone is another, or another each time.

    Examples::

        >>> from captum_groupcam.masking.targets import Target
        >>> network = Network(torch.nn.Identity(), Target(None), (), n_samples=2)
        >>> scores = torch.tensor([1.0, 2.0])
        >>> warn_of_company(network, scores, lambda places: scores[places], 2)
    """
    if len(scores) < 2 or not (network.n_samples > 1 or n_queries >= _MANY):
        return
    if not network.once.is_first("company") or not scores.isfinite().all():
        return
    if in_training(network.forward_func) or has_batch_statistics(network.forward_func):
        return  # of which there is a warning
    # Not the first, which gets its own row of what a closure holds. A low score shows little.
    size = scores.detach().abs().flatten(1).amax(1) if scores.dim() > 1 else scores.detach().abs()
    place = 1 + size[1:].argmax(0, keepdim=True)
    scale = Rounding((size[place].amax(),))
    before = random_states(scores.device)
    alone, place = _asked_alone(ask, place, len(scores))
    expected = scores.detach()[place]
    dtype = precision_of(network.forward_func, scores)
    if _same(scale, alone, expected, dtype):
        return
    drawn = not all(map(torch.equal, before, random_states(scores.device)))
    if drawn:
        # Few answers of a network that draws may differ; of these there is another warning.
        everyone = torch.arange(len(scores), device=scores.device)
        if not all(_same(scale, ask(everyone), scores.detach(), dtype) for _ in range(_TRIES)):
            return
    elif not _same(scale, ask(place), alone, dtype):
        _captum.warn(_STATE)
        return
    worst = int((alone - expected).abs().argmax())
    _captum.warn(
        "The network's answer for a row depends on the rows beside it: a score is "
        f"{float(alone.flatten()[worst]):.4g} alone, and {float(expected.flatten()[worst]):.4g} "
        f"among {len(scores)}. So the map depends on how samples are put into batches. Where the "
        "network or a function around it holds a row for each sample, pass these rows in "
        "additional_forward_args; where it normalises or attends over the batch, give "
        "internal_batch_size=1."
    )


def _asked_alone(
    ask: Callable[[Tensor], Tensor], place: Tensor, n_rows: int
) -> tuple[Tensor, Tensor]:
    """The score of a row alone; or of nothing but this row, if the batch has to have its size."""
    try:
        return ask(place), place
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        beside = place.expand(n_rows)
        scores = ask(beside)
        try:
            ask(place)
        except _FAILURES:
            return scores, beside
        raise error  # which had another reason


def _same(rounding: Rounding, found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    return rounding.difference([found.to(dtype)], [expected.to(dtype)]) is None


def _differ(rows: dict[str, Tensor], n: int) -> bool:
    return any(not torch.equal(tensor[n], tensor[0]) for tensor in rows.values())


def _problem(
    network: Network, inputs: tuple[Tensor, ...], rows: Tensor, samples: Tensor
) -> tuple[str | None, Exception | None]:
    """What is otherwise where two rows are asked together than where each is alone.

    Args:
        network (Network): The network.
        inputs (tuple of Tensor): Inputs, N x ... each.
        rows (Tensor): 2 indices of what is seen.
        samples (Tensor): 2 indices of samples whose arguments go with it.

    Returns:
        tuple of str and Exception: What it is, if anything, and the error if one is raised.

    Raises:
        OutOfMemoryError: If there is no memory for two rows.
    """
    seen = tuple(tensor[rows] for tensor in inputs)
    try:
        alone = [
            _answers(network, [one[n : n + 1] for one in seen], samples[n : n + 1])
            for n in range(1 + bool(rows[0] != rows[1]))
        ]
        both = _answers(network, seen, samples)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        return "the network fails with a part of it", error
    shapes = tuple(alone[0].shape), tuple(both.shape)
    if shapes[1] != (2, *shapes[0][1:]):
        return f"the output has the shape {shapes[0]} for one row and {shapes[1]} for two", None
    if in_training(network.forward_func) or has_batch_statistics(network.forward_func):
        return None, None  # then values depend on chance, or on the batch
    dtype = precision_of(network.forward_func, both, *inputs)
    expected = torch.cat(alone) if len(alone) > 1 else alone[0].expand_as(both)

    def run(given: Sequence[Tensor]) -> list[Tensor]:
        return [_answers(network, given, samples).to(dtype)]

    if _same(Rounding(), both, expected, dtype):
        return None, None
    difference = Rounding.measured(run, seen, run(seen)).difference(
        [both.to(dtype)], [expected.to(dtype)]
    )
    again = _answers(network, [one[:1] for one in seen], samples[:1])
    if difference is None or not _same(Rounding(), again, alone[0], dtype):
        return None, None  # by rounding, or by chance
    return f"beside another row {difference.rstrip('.')}", None


def _answers(network: Network, seen: Sequence[Tensor], samples: Tensor) -> Tensor:
    """The output for some rows, which the network may change."""
    given = tuple(tensor.clone() for tensor in seen)
    with torch.no_grad():
        output = _captum.run_forward(network.forward_func, given, network.arguments(samples))
    return with_rows(output, len(samples))
