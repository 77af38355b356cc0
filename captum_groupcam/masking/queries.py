"""Transform and merge: what the network says of the input seen through each mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking._rows import warn_of_company
from captum_groupcam.masking.masks import MaskSource
from captum_groupcam.masking.network import Network, finite, in_chunks

__all__ = [
    "blend",
    "merge_masks",
    "score_masks",
    "score_samples",
    "score_stream",
    "warn_of_company",
]


def blend(inputs: Tensor, baselines: Tensor, masks: Tensor) -> Tensor:
    r"""Shows the input where the mask is one and the baseline where it is zero.

    :math:`I' = I \cdot M + B \cdot (1 - M)` (Group-CAM, eq. 6), exact at both ends.

    Args:
        inputs (Tensor): Q x C x spatial, I; or a single one.
        baselines (Tensor): Q x C x spatial, B; or a single one.
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
        >>> from captum_groupcam.masking.targets import Target
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

    def of_rows(whole: Tensor, rows: Tensor) -> Tensor:
        return whole if len(whole) == 1 else whole[rows]  # a single one is broadcast, not copied

    def ask(rows: Tensor, which: Tensor) -> Tensor:
        seen = tuple(
            whole[rows]
            if baseline is None
            else blend(
                of_rows(whole, rows),
                of_rows(baseline, rows),
                masks.render(rows, which, whole.shape[2:]),
            )
            for whole, baseline in zip(inputs, baselines, strict=True)
        )
        return network.scores(seen, rows)

    scores = score_stream(
        network, inputs, queried, ask, description=description, show_progress=show_progress
    )
    return scores, queried


def score_stream(
    network: Network,
    inputs: tuple[Tensor, ...],
    queried: Tensor,
    ask: Callable[[Tensor, Tensor], Tensor],
    *,
    description: str = "",
    show_progress: bool = False,
) -> Tensor:
    """Asks G questions about each sample, as many at a time as one forward pass takes.

    Args:
        network (Network): Says how many that are, and how many targets it has.
        inputs (tuple of Tensor): Inputs, N samples each.
        queried (Tensor): N x G booleans: which questions are asked.
        ask (Callable): Gets Q indices of samples and Q of questions; gives Q scores (Q x T).
        description (str, optional): Title of the progress bar. Default: "".
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: Scores, N x G (N x G x T for T targets); zero for what is not asked.

    Raises:
        ValueError: If a score is NaN or infinite.

    Warns:
        UserWarning: If the network's answer for a row depends on the rows beside it.

    Examples::

        >>> from captum_groupcam.masking.targets import Target
        >>> network = Network(torch.nn.Identity(), Target(None), (), n_samples=2)
        >>> queried = torch.tensor([[True, True], [False, True]])
        >>> inputs = (torch.zeros(2, 1, 3),)
        >>> score_stream(network, inputs, queried, lambda rows, which: 10.0 * rows + which)
        tensor([[ 0.,  1.],
                [ 0., 11.]])
    """
    samples, which = queried.nonzero().unbind(1)
    scores = inputs[0].new_zeros(
        *queried.shape,
        *network.target.shape,
        dtype=torch.promote_types(inputs[0].dtype, torch.float32),
    )
    with _captum.progress_bar(description, len(samples), show_progress) as bar:

        def query(chunk: slice) -> None:
            rows, of_rows = samples[chunk], which[chunk]
            found = ask(rows, of_rows).to(scores)
            scores[rows, of_rows] = found
            warn_of_company(
                network,
                found,
                lambda places: ask(rows[places], of_rows[places]).to(scores),
                len(samples),
            )
            bar.update(len(rows))

        in_chunks(len(samples), network.batch_size(inputs[0].device), query)
    return finite(scores)


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

        >>> from captum_groupcam.masking.targets import Target
        >>> target = Target.of(1, 1, torch.device("cpu"))
        >>> network = Network(lambda inputs: inputs.flatten(1), target, (), n_samples=1)
        >>> score_samples(network, (torch.tensor([[[2.0, 2.0]]]),))
        tensor([0.5000])
    """
    (scores,) = network.by_sample(inputs, lambda rows, samples: (network.scores(rows, samples),))
    return finite(scores)


def merge_masks(
    masks: MaskSource,
    weights: Tensor,
    size: Sequence[int],
    *,
    batch_size: int,
    normalized: bool = True,
) -> Tensor:
    r"""Sums the masks of each sample by their weights, :math:`\sum_l \alpha_l M'_l`.

    Masks are added one by one, so that the same call gives the same sum, on accelerators as well.

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
    places = samples.tolist()  # once: an accelerator is waited for

    def merge(chunk: slice) -> None:
        rows = samples[chunk]
        rendered = masks.render(rows, which[chunk], size, normalized=normalized)
        factors = weights[rows, which[chunk]].view(len(rows), -1, *(1 for _ in size))
        weighted = (factors * rendered).to(merged.dtype)
        # Not index_add_, which adds rows of one sample in any order on CUDA: rounding would differ.
        for place, one in zip(places[chunk], weighted, strict=True):
            merged[place].add_(one)

    in_chunks(len(samples), batch_size, merge)
    return merged
