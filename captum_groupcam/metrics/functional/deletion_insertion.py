"""Deletion and insertion: does the score follow the pixels that a map ranks first?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam._captum import ForwardFunc, TargetType
from captum_groupcam.masking.baselines import Baseline, GaussianBlur, resolve_baselines
from captum_groupcam.masking.call import prepare
from captum_groupcam.masking.network import Network, ScoreFunc, class_probability, in_chunks
from captum_groupcam.masking.queries import warn_of_company
from captum_groupcam.masking.ranks import pixel_ranks
from captum_groupcam.metrics.functional._maps import match_maps, warn_if_constant
from captum_groupcam.threads import exclusive

__all__ = [
    "PRESETS",
    "DeletionInsertionProtocol",
    "DeletionInsertionResult",
    "deletion_insertion",
    "rise_blur",
]


def rise_blur(inputs: Tensor) -> Tensor:
    r"""Blurs inputs as the published code of RISE does before insertion.

    Its kernel of 11 pixels is a unit impulse that scipy has filtered with a Gaussian of sigma 5
    (cut at 20 pixels) inside those 11 pixels, so the tails are folded back in; the image's border
    is filled with zeros.

    Args:
        inputs (Tensor): N x C x spatial.

    Returns:
        Tensor: The blurred inputs, of the same shape and dtype.

    Examples::

        >>> import torch
        >>> rise_blur(torch.ones(1, 1, 11)).squeeze()[[0, 5]]
        tensor([0.5470, 1.0000])
    """
    offsets = torch.arange(-20, 21)  # on the CPU, where what is folded in is added in order
    weights = torch.softmax(-0.5 * (offsets / 5.0) ** 2, dim=0)
    kernel = weights.new_zeros(11).index_add_(0, (offsets + 5) % 11, weights).view(1, 1, -1)
    blurred = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    kernel = kernel.to(blurred)
    with torch.autocast(inputs.device.type, enabled=False):
        for axis in range(2, inputs.dim()):
            rows = blurred.movedim(axis, -1)
            lines = rows.reshape(-1, 1, rows.shape[-1])
            blurred = F.conv1d(lines, kernel, padding=5).view(rows.shape).movedim(-1, axis)
    return blurred.to(inputs.dtype)


@dataclass(frozen=True)
class DeletionInsertionProtocol:
    """How pixels are taken away and brought back.

    Args:
        step (float or int): Pixels replaced at a time: a share of all (float, in (0, 1]) or a
            number (int), at least one pixel. The last step takes what is left. Default: 0.01.
        deletion_baseline (Tensor, float, callable or None): What deleted pixels are replaced by,
            in the space of the network's input, where 0 is the mean colour if inputs are
            normalised. None is :class:`~captum_groupcam.masking.baselines.GaussianBlur`.
            Default: None.
        insertion_baseline (Tensor, float, callable or None): What insertion starts from.
            Default: None.
    """

    step: float | int = 0.01
    deletion_baseline: Baseline = None
    insertion_baseline: Baseline = None

    def __post_init__(self) -> None:
        if not isinstance(self.step, (int, float)):
            raise TypeError(f"step must be a number, got {self.step!r}.")
        valid = self.step >= 1 if type(self.step) is int else 0 < self.step <= 1
        if isinstance(self.step, bool) or not valid:
            raise ValueError(
                "step is a share of all pixels (float, in (0, 1]) or a number of pixels (int, at "
                f"least 1), got {self.step!r}."
            )

    def counts(self, n_pixels: int) -> list[int]:
        """Pixels replaced at each point of the curve, from none to all of them.

        Args:
            n_pixels (int): Pixels of the image.

        Returns:
            list of int: K + 1 numbers, rising.

        Examples::

            >>> DeletionInsertionProtocol(step=4).counts(10)
            [0, 4, 8, 10]
            >>> DeletionInsertionProtocol(step=0.25).counts(10)
            [0, 2, 5, 8, 10]
        """
        is_share = isinstance(self.step, float)
        pixels = max(self.step * n_pixels, 1) if is_share else self.step
        # 1 / 28 is not exact: 28 steps of it must not become 29.
        n_steps = math.ceil(n_pixels / pixels - 1e-9)
        return sorted({min(round(k * pixels), n_pixels) for k in range(n_steps)} | {n_pixels})


#: Published protocols. All score the softmax probability and take the area by the trapezoid rule.
#:
#: - ``paper``: Group-CAM (arXiv 2103.13859), section 4: 1 % of the pixels at a time, the highly
#:   blurred image in both directions.
#: - ``rise``: RISE's published code (arXiv 1806.07421; ``evaluation.py`` and
#:   ``Evaluation.ipynb``): 224 of 224 x 224 pixels at a time, deletion to zero, insertion from
#:   :func:`rise_blur`.
#: - ``official``: Group-CAM's published code (``ins_del_gc.py``): 8 x 224 of 224 x 224 pixels
#:   (3.6 %) at a time, deletion to zero, insertion from the 51 x 51 blur with sigma 50.
#:
#: Step sizes in pixels are kept as shares, so that other image sizes take as many steps.
PRESETS = {
    "paper": DeletionInsertionProtocol(0.01, GaussianBlur(), GaussianBlur()),
    "rise": DeletionInsertionProtocol(1 / 224, 0.0, rise_blur),
    "official": DeletionInsertionProtocol(1 / 28, 0.0, GaussianBlur()),
}


class DeletionInsertionResult(NamedTuple):
    """Values of N samples, and their curves of K + 1 points.

    Attributes:
        deletion (Tensor): Area under the deletion curve, N; lower is better.
        insertion (Tensor): Area under the insertion curve, N; higher is better.
        over_all (Tensor): Insertion minus deletion, N; higher is better.
        fractions (Tensor): Share of the pixels replaced at each point, K + 1, from 0 to 1.
        deletion_curve (Tensor): Score at each point of deletion, N x (K + 1).
        insertion_curve (Tensor): Score at each point of insertion, N x (K + 1).
    """

    deletion: Tensor
    insertion: Tensor
    over_all: Tensor
    fractions: Tensor
    deletion_curve: Tensor
    insertion_curve: Tensor


@exclusive()
def deletion_insertion(
    forward_func: ForwardFunc,
    maps: Tensor,
    inputs: Tensor,
    target: TargetType = None,
    additional_forward_args: Any = None,
    *,
    protocol: DeletionInsertionProtocol | str = "paper",
    score_func: ScoreFunc = class_probability,
    seed: int | Sequence[int] = 0,
    internal_batch_size: int | None = None,
) -> DeletionInsertionResult:
    r"""Deletion and insertion (RISE, arXiv 1806.07421, section 4.1; Group-CAM, section 4).

    Pixels are ranked by the map's value, largest first, sign included. Deletion replaces them in
    that order by a baseline, insertion starts from a baseline and brings them back; the score of
    the target is taken after every step. Equal values are ordered by one seeded permutation of
    the pixels, the same for every sample, so that a sample's value depends neither on its batch
    nor on the order of rows. Each image that both curves share is scored once.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        maps (Tensor): N x 1 x spatial or N x spatial, of the inputs' spatial size.
        inputs (Tensor): N x C x spatial, one to three spatial dimensions.
        target (int, tuple, Tensor, list or None, optional): As in Captum. Default: None.
        additional_forward_args (Any, optional): As in Captum. Default: None.
        protocol (DeletionInsertionProtocol or str, optional): The protocol, or the name of one in
            :data:`PRESETS`. Default: "paper".
        score_func (Callable, optional): Turns the network's output into scores. Default: softmax
            over dimension 1.
        seed (int or sequence of int, optional): Seed of the permutation that breaks ties, or one
            for each sample. Default: 0.
        internal_batch_size (int, optional): Images of one forward pass, whichever samples and
            steps they belong to; no more of them are held. Default: None,
            :data:`~captum_groupcam.masking.network.DEFAULT_BATCH_SIZE`.

    Returns:
        DeletionInsertionResult: Areas, curves and their x-axis, in the order of the samples.

    Raises:
        ValueError: If shapes do not fit (that maps and inputs are swapped is said where shapes show
            it), a map, an input, a baseline or a score is not finite
            (the samples are named), a target is out of range, or the protocol is unknown.

    Warns:
        UserWarning: If a map is constant: its order is the permutation alone.

    Examples::

        >>> import torch
        >>> weights = torch.tensor([4.0, 3.0, 2.0, 1.0])
        >>> protocol = DeletionInsertionProtocol(1, deletion_baseline=0.0, insertion_baseline=0.0)
        >>> result = deletion_insertion(
        ...     lambda x: (x * weights).sum((1, 2)) / 10,
        ...     weights.expand(1, 1, 4),
        ...     torch.ones(1, 1, 4),
        ...     protocol=protocol,
        ... )
        >>> result.deletion_curve
        tensor([[1.0000, 0.6000, 0.3000, 0.1000, 0.0000]])
        >>> result.deletion, result.insertion
        (tensor([0.3750]), tensor([0.6250]))
    """
    protocol = _protocol(protocol)
    maps = match_maps(maps, inputs)
    (whole,), (deleted,), network, _ = prepare(
        forward_func,
        inputs,
        target,
        additional_forward_args,
        protocol.deletion_baseline,
        score_func=score_func,
        internal_batch_size=internal_batch_size,
    )
    assert deleted is not None  # `prepare` accepts nothing but a spatial input
    (inserted,) = resolve_baselines(protocol.insertion_baseline, (whole,))
    warn_if_constant(maps, "pixels are deleted and inserted in random order.")

    ranks = pixel_ranks(maps, seed)
    counts = protocol.counts(ranks[0].numel())
    deletion = _curve(network, whole, deleted, ranks, counts, deletes=True)
    # Deletion began with the whole image, where insertion ends, and ended with its baseline.
    shares_start = torch.equal(deleted, inserted)
    start = deletion[:, -1:] if shares_start else deletion[:, :0]
    missing = counts[start.shape[1] : -1]
    rising = _curve(network, whole, inserted, ranks, missing, deletes=False)
    insertion = torch.cat([start, rising, deletion[:, :1]], dim=1)

    fractions = torch.tensor(counts, device=whole.device, dtype=deletion.dtype) / counts[-1]
    deletion_auc = torch.trapezoid(deletion, fractions)
    insertion_auc = torch.trapezoid(insertion, fractions)
    return DeletionInsertionResult(
        deletion_auc, insertion_auc, insertion_auc - deletion_auc, fractions, deletion, insertion
    )


def _protocol(protocol: DeletionInsertionProtocol | str) -> DeletionInsertionProtocol:
    if isinstance(protocol, DeletionInsertionProtocol):
        return protocol
    if protocol not in PRESETS:
        raise ValueError(
            f"Unknown protocol {protocol!r}: expected a DeletionInsertionProtocol or one of "
            f"{', '.join(PRESETS)}."
        )
    return PRESETS[protocol]


def _curve(
    network: Network,
    inputs: Tensor,
    baselines: Tensor,
    ranks: Tensor,
    counts: list[int],
    *,
    deletes: bool,
) -> Tensor:
    """Scores with the first so many pixels deleted, or only them inserted: N x len(counts)."""
    n_points = len(counts)
    limits = torch.tensor(counts, device=inputs.device, dtype=ranks.dtype)
    limits = limits.view(-1, *[1] * (ranks.dim() - 1))
    # So that the network gets its usual memory format.
    baselines = torch.empty_like(inputs).copy_(baselines)
    parts: list[Tensor] = []

    def ask(jobs: Tensor, chunk: slice) -> Tensor:
        samples, points = jobs // n_points, jobs % n_points
        first, last = chunk.start // n_points, (chunk.stop - 1) // n_points
        # Within one sample the image is broadcast, not copied.
        rows = slice(first, last + 1) if first == last else samples
        ranked_first = ranks[rows] < limits[points]
        shown = ~ranked_first if deletes else ranked_first
        images = torch.where(shown, inputs[rows], baselines[rows])
        return network.scores((images,), samples)

    def query(chunk: slice) -> None:
        jobs = torch.arange(chunk.start, chunk.stop, device=inputs.device)
        parts.append(ask(jobs, chunk))
        n_queries = len(inputs) * n_points
        warn_of_company(network, parts[-1], lambda places: ask(jobs[places], chunk), n_queries)

    in_chunks(len(inputs) * n_points, network.batch_size(inputs.device), query)
    if not parts:
        return ranks.new_zeros(len(inputs), 0, dtype=torch.float32)
    curve = torch.cat(parts).view(-1, n_points)
    broken = ~curve.isfinite().all(1)
    if broken.any():
        raise ValueError(
            "The network returned NaN or infinite scores for samples "
            f"{broken.nonzero().flatten().tolist()}."
        )
    return curve
