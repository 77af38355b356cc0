"""Transform and merge: what the network says of the input seen through each mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam._targets import Target, Targets
from captum_groupcam.masking.masks import MaskSource

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "Network",
    "ScoreFunc",
    "blend",
    "class_probability",
    "default_batch_size",
    "in_chunks",
    "merge_masks",
    "score_masks",
    "score_samples",
]

#: Turns the network's output (N x classes x ...) into scores of the same shape.
ScoreFunc: TypeAlias = Callable[[Tensor], Tensor]

#: Rows of one forward pass, by device type; 64 on any other. On the CPU few are fastest: the
#: activations of larger batches outgrow what the allocator keeps, and each is mapped anew.
#: Measured by ``python -m benchmarks speed batch_sizes``.
DEFAULT_BATCH_SIZE = {"cpu": 4}


def default_batch_size(device: torch.device) -> int:
    """Rows of one forward pass that run fast on a device.

    Args:
        device (torch.device): The device.

    Returns:
        int: What :data:`DEFAULT_BATCH_SIZE` has for its type, or 64.

    Examples::

        >>> default_batch_size(torch.device("cuda"))
        64
    """
    return DEFAULT_BATCH_SIZE.get(device.type, 64)


def class_probability(output: Tensor) -> Tensor:
    """Softmax over dimension 1, the score F of Group-CAM.

    An output without classes to choose from (N, or N x 1) is its own score.

    Args:
        output (Tensor): The network's output, N x classes x ...

    Returns:
        Tensor: Scores of the same shape.

    Examples::

        >>> class_probability(torch.tensor([[1.0, 1.0]]))
        tensor([[0.5000, 0.5000]])
    """
    if output.dim() < 2 or output.shape[1] == 1:
        return output
    return output.softmax(dim=1)


def in_chunks(total: int, size: int, work: Callable[[slice], None]) -> None:
    """Does work on consecutive slices, on smaller ones when the accelerator runs out of memory.

    Args:
        total (int): Length of the whole.
        size (int): Length of a slice, halved whenever ``work`` runs out of memory.
        work (Callable): Called with each slice; must be able to start a slice again.

    Raises:
        torch.OutOfMemoryError: If a slice of one is still too large.

    Examples::

        >>> in_chunks(5, 2, print)
        slice(0, 2, None)
        slice(2, 4, None)
        slice(4, 5, None)
    """
    start = 0
    while start < total:
        stop = min(start + size, total)
        try:
            work(slice(start, stop))
        except torch.cuda.OutOfMemoryError:
            if stop - start == 1:
                raise
            size = (stop - start + 1) // 2
        else:
            start = stop
            continue
        # Only here, past the except block, is what the failed slice held free.
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Network:
    """A forward function with all that one call of ``attribute`` says about it.

    It is asked about rows: inputs of Q samples, altered or not, together with the Q indices of the
    samples that they come from, by which target and additional arguments are found.

    Attributes:
        forward_func (Callable): As in Captum.
        target (Target or Targets): Which output is meant, for each sample; or which T of them,
            where one set of queries serves several targets.
        additional_forward_args (tuple): Passed on after the inputs; of tensors with batch size N
            each row gets its sample's part.
        n_samples (int): N.
        score_func (Callable): Turns the output into scores. Default: softmax over dimension 1.
        internal_batch_size (int, optional): Rows of one forward pass. Default: None, the size in
            :data:`DEFAULT_BATCH_SIZE`.
        device_ids (list of int, optional): As in Captum, for DataParallel. Default: None.
    """

    forward_func: _captum.ForwardFunc
    target: Target | Targets
    additional_forward_args: tuple[Any, ...]
    n_samples: int
    score_func: ScoreFunc = class_probability
    internal_batch_size: int | None = None
    device_ids: list[int] | None = None

    def __post_init__(self) -> None:
        size = self.internal_batch_size
        if size is not None and size < 1:
            raise ValueError(f"internal_batch_size must be at least 1, got {size}.")

    def batch_size(self, device: torch.device) -> int:
        """Rows of one forward pass on a device.

        Args:
            device (torch.device): The device.

        Returns:
            int: ``internal_batch_size``, or :func:`default_batch_size`.
        """
        return self.internal_batch_size or default_batch_size(device)

    def scores(self, inputs: tuple[Tensor, ...], samples: Tensor) -> Tensor:
        """F_c, the score of the target for each of Q rows, without a graph.

        Args:
            inputs (tuple of Tensor): Inputs, Q x C x spatial each.
            samples (Tensor): Q indices of the samples that they come from.

        Returns:
            Tensor: Q scores, or Q x T for T targets.
        """
        with torch.no_grad():
            output = _captum.run_forward(self.forward_func, inputs, self.arguments(samples))
            return self.target.select(self.score_func(_at_least_float32(output)), samples)

    def activations(
        self, layer: Module, inputs: tuple[Tensor, ...], attribute_to_layer_input: bool
    ) -> Tensor:
        """The layer's activations for all samples.

        Args:
            layer (torch.nn.Module): The layer.
            inputs (tuple of Tensor): Inputs, N x C x spatial each.
            attribute_to_layer_input (bool): Whether the layer's input is meant.

        Returns:
            Tensor: Activations A, N x ...

        Raises:
            ValueError: As :meth:`by_sample`.
        """
        return self.by_sample(
            inputs,
            lambda rows, samples: (
                _captum.layer_activations(
                    self.forward_func,
                    layer,
                    rows,
                    self.arguments(samples),
                    attribute_to_layer_input=attribute_to_layer_input,
                    device_ids=self.device_ids,
                ),
            ),
        )[0]

    def gradients_and_activations(
        self, layer: Module, inputs: tuple[Tensor, ...], attribute_to_layer_input: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients dy_c/dA and A for all samples; y_c is the raw output at the target.

        Args:
            layer (torch.nn.Module): The layer.
            inputs (tuple of Tensor): Inputs, N x C x spatial each.
            attribute_to_layer_input (bool): Whether the layer's input is meant.

        Returns:
            tuple of Tensor: Gradients and activations, N x ... each.

        Raises:
            ValueError: If a gradient is NaN or infinite, or as :meth:`by_sample`.
        """
        gradients, activations = self.by_sample(
            inputs,
            lambda rows, samples: _captum.layer_gradients_and_activations(
                self.forward_func,
                layer,
                rows,
                self.arguments(samples),
                lambda output: self.target.select(output, samples),
                attribute_to_layer_input=attribute_to_layer_input,
                device_ids=self.device_ids,
            ),
        )
        return _finite(gradients, "gradients at the layer"), activations

    def by_sample(
        self,
        inputs: tuple[Tensor, ...],
        work: Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        """Runs the samples as they are, as many as fit at a time, and joins the results.

        Args:
            inputs (tuple of Tensor): Inputs, N x C x spatial each.
            work (Callable): Gets some rows of the inputs and the indices of these samples; returns
                a tuple of tensors with one row for each.

        Returns:
            tuple of Tensor: What ``work`` returned, N x ... each, at least float32.

        Raises:
            ValueError: If ``work`` returns another number of rows.
        """
        device = inputs[0].device
        results: list[tuple[Tensor, ...]] = []

        def run(chunk: slice) -> None:
            samples = torch.arange(self.n_samples, device=device)[chunk]
            result = work(tuple(tensor[samples] for tensor in inputs), samples)
            for tensor in result:
                if tensor.shape[:1] != samples.shape:
                    raise ValueError(
                        f"The layer has a batch size of {tuple(tensor.shape[:1])} for "
                        f"{len(samples)} inputs. Choose a layer with one row for each input."
                    )
            results.append(tuple(_at_least_float32(tensor).to(device) for tensor in result))

        in_chunks(self.n_samples, self.batch_size(device), run)
        return tuple(torch.cat(parts) for parts in zip(*results, strict=True))

    def arguments(self, samples: Tensor) -> tuple[Any, ...]:
        """The additional forward arguments of Q rows.

        Args:
            samples (Tensor): Q indices of the samples that the rows come from.

        Returns:
            tuple: The arguments; tensors of batch size N with the samples' parts.
        """
        return tuple(
            argument[samples.to(argument.device)]
            if isinstance(argument, Tensor) and argument.shape[:1] == (self.n_samples,)
            else argument
            for argument in self.additional_forward_args
        )


def blend(inputs: Tensor, baselines: Tensor, masks: Tensor) -> Tensor:
    r"""Shows the input where the mask is one and the baseline where it is zero.

    :math:`I' = I \cdot M + B \cdot (1 - M)` (Group-CAM, eq. 6), exact at both ends.

    Args:
        inputs (Tensor): Q x C x spatial, I.
        baselines (Tensor): Q x C x spatial, B.
        masks (Tensor): Q x 1 x spatial in [0, 1], M.

    Returns:
        Tensor: Q x C x spatial, of the inputs' dtype and memory format.

    Examples::

        >>> import torch
        >>> mask = torch.tensor([[[0.0, 0.5, 1.0]]])
        >>> blend(torch.full((1, 1, 3), 4.0), torch.full((1, 1, 3), 2.0), mask)
        tensor([[[2., 3., 4.]]])
    """
    # From the input to the baseline, since the first operand decides the memory format.
    return torch.lerp(inputs, baselines, 1 - masks.to(inputs.dtype))


def score_masks(
    network: Network,
    inputs: tuple[Tensor, ...],
    baselines: tuple[Tensor | None, ...],
    masks: MaskSource,
    *,
    description: str = "",
    show_progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scores every sample seen through each of its masks, in one stream of queries.

    The stream runs over samples and masks alike; each forward pass takes the next few of it,
    whichever samples they belong to, and only their masks are rendered.

    Args:
        network (Network): Gives the scores.
        inputs (tuple of Tensor): Inputs, N samples each.
        baselines (tuple of Tensor or None): What is seen where a mask hides the input, of its
            shape; None for an input that no mask covers.
        masks (MaskSource): G masks for each sample.
        description (str, optional): Title of the progress bar. Default: "".
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        tuple of Tensor: Scores, N x G (N x G x T for T targets), and booleans, N x G: whether the
        mask was queried. A mask that is not informative, or that covers an input equal to its
        baseline, costs no query and has score zero.

    Raises:
        ValueError: If a score is NaN or infinite.

    Examples::

        >>> from captum_groupcam.masking.masks import LayerMasks
        >>> target = Target.of(1, 1, torch.device("cpu"))
        >>> network = Network(lambda inputs: inputs.flatten(1), target, (), n_samples=1)
        >>> masks = LayerMasks(torch.tensor([[[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]]))
        >>> inputs, baselines = torch.tensor([[[2.0, 2.0]]]), torch.zeros(1, 1, 2)
        >>> scores, queried = score_masks(network, (inputs,), (baselines,), masks)
        >>> scores, queried
        (tensor([[0.8808, 0.1192, 0.0000]]), tensor([[ True,  True, False]]))
    """
    covered = [(i, b) for i, b in zip(inputs, baselines, strict=True) if b is not None]
    differs = torch.stack([(i != b).flatten(1).any(1) for i, b in covered]).any(0)
    queried = masks.informative & differs.unsqueeze(1)
    samples, which = queried.nonzero().unbind(1)
    scores = inputs[0].new_zeros(
        *queried.shape,
        *network.target.shape,
        dtype=torch.promote_types(inputs[0].dtype, torch.float32),
    )

    with _captum.progress_bar(description, len(samples), show_progress) as bar:

        def query(chunk: slice) -> None:
            rows = samples[chunk]
            seen = tuple(
                whole[rows]
                if baseline is None
                else blend(
                    whole[rows],
                    baseline[rows],
                    masks.render(rows, which[chunk], whole.shape[2:]),
                )
                for whole, baseline in zip(inputs, baselines, strict=True)
            )
            scores[rows, which[chunk]] = network.scores(seen, rows).to(scores)
            bar.update(len(rows))

        in_chunks(len(samples), network.batch_size(inputs[0].device), query)
    return _finite(scores), queried


def score_samples(network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
    """Scores inputs as they are.

    Args:
        network (Network): Gives the scores.
        inputs (tuple of Tensor): Inputs, N x C x spatial each.

    Returns:
        Tensor: N scores, or N x T for T targets.

    Raises:
        ValueError: If a score is NaN or infinite.

    Examples::

        >>> target = Target.of(1, 1, torch.device("cpu"))
        >>> network = Network(lambda inputs: inputs.flatten(1), target, (), n_samples=1)
        >>> score_samples(network, (torch.tensor([[[2.0, 2.0]]]),))
        tensor([0.5000])
    """
    (scores,) = network.by_sample(inputs, lambda rows, samples: (network.scores(rows, samples),))
    return _finite(scores)


def merge_masks(
    masks: MaskSource,
    weights: Tensor,
    size: Sequence[int],
    *,
    batch_size: int,
    normalized: bool = True,
) -> Tensor:
    r"""Sums the masks of each sample by their weights, :math:`\sum_l \alpha_l M'_l`.

    Args:
        masks (MaskSource): G masks for each of N samples. Those of weight zero are not rendered.
        weights (Tensor): N x G, or N x G x T for T sums.
        size (sequence of int): Spatial size of the result.
        batch_size (int): Masks rendered at a time.
        normalized (bool, optional): Whether masks are brought to [0, 1] first. Default: True.

    Returns:
        Tensor: N x 1 x size, or N x T x size.

    Examples::

        >>> from captum_groupcam.masking.masks import LayerMasks
        >>> masks = LayerMasks(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
        >>> merge_masks(masks, torch.tensor([[0.5, 2.0]]), (2,), batch_size=1)
        tensor([[[2.0000, 0.5000]]])
    """
    weights = weights.unsqueeze(-1) if weights.dim() == 2 else weights
    samples, which = weights.ne(0).any(-1).nonzero().unbind(1)
    merged = weights.new_zeros(weights.shape[0], weights.shape[2], *size)

    def merge(chunk: slice) -> None:
        rows = samples[chunk]
        rendered = masks.render(rows, which[chunk], size, normalized=normalized)
        factors = weights[rows, which[chunk]].view(len(rows), -1, *(1 for _ in size))
        merged.index_add_(0, rows, (factors * rendered).to(merged.dtype))

    in_chunks(len(samples), batch_size, merge)
    return merged


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _finite(values: Tensor, what: str = "scores") -> Tensor:
    broken = ~values.isfinite().flatten(1).all(1) if values.dim() > 1 else ~values.isfinite()
    if broken.any():
        raise ValueError(
            f"The network's {what} contain NaN or infinite values for samples "
            f"{broken.nonzero().flatten().tolist()}."
        )
    return values
