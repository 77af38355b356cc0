"""Ideas for a better map than the paper's, as methods that the benchmark can compare.

They were on trial: the reason for each, and its results, are in ``docs/research``. Each is a
function of the network, inputs (N x C x H x W), target and options of its own that gives
N x 1 x H x W for at most 34 queries an image. A query is an image that passes through the network,
as in :func:`~benchmarks.run.network.counted`; a pass with gradients all the way back to the input
counts three.
"""

from captum_groupcam.masking.call import isolated
from captum_groupcam.methods import METHODS, Method

from . import agreed, choices, joint, judged, looks, questions

__all__ = ["RESEARCH"]

#: Every idea, by the name that the benchmark knows it by.
RESEARCH: dict[str, Method] = {
    f"research.{name}": Method(
        f"research.{name}",
        name.replace("_", " ").capitalize(),
        isolated()(getattr(module, name)),
        kind="research",
    )
    for module in (agreed, choices, joint, judged, looks, questions)
    for name in module.__all__
}
METHODS.update(RESEARCH)
