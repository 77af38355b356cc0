"""The measures by name: ours and Quantus's, with what they need, cost and mean."""

from __future__ import annotations

from .faithfulness import FAITHFULNESS
from .localisation import LOCALISATION
from .measure import Measure
from .quantus_entries import QUANTUS
from .randomisation import RANDOMISATION
from .robustness import ROBUSTNESS

__all__ = ["DEFAULT_MEASURES", "MEASURES", "Measure"]

#: Every measure by name.
#:
#: :meta hide-value:
MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (*FAITHFULNESS, *LOCALISATION, *ROBUSTNESS, *RANDOMISATION, *QUANTUS)
}

#: Measures of faithfulness and localisation that rank maps of known quality (docs/protocol.md) and
#: need no further explanations, for 202 forward passes a sample and map; most of the others take
#: about 100 more each (:meth:`Measure.queries`). Measures that need objects can be used only where
#: the data have them.
DEFAULT_MEASURES: tuple[str, ...] = (
    "DeletionInsertion",
    "AverageDrop",
    "PointingGame",
    "PointingGame.0px",
    "quantus.RelevanceRankAccuracy",
    "quantus.RelevanceMassAccuracy",
)
