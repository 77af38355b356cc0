"""What fine-tuning gives: a row for each epoch, differences to the plain arm, curves."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from captum_groupcam.metrics.bootstrap import Interval
from captum_groupcam.visualization import save_figure

from ...run.rows import write_atomically

__all__ = ["DamagedError", "EpochRow", "Run", "crossed_bootstrap", "write_results"]

_PLAIN = "plain"


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one arm and seed.

    Attributes:
        arm (str): What is done to the training pictures.
        seed (int): The seed.
        epoch (int): Its number, from 1.
        learning_rate (float): The learning rate.
        train_loss (float): Mean cross-entropy of the training pictures, as they were seen.
        val_loss (float): Mean cross-entropy of the validation pictures after the epoch.
        top1 (float): Share of validation pictures whose class is predicted.
        map_entropy (float): Mean entropy of Group-CAM's maps of some validation pictures.
        step_seconds (float): Mean seconds of a step without its augmentation.
        blur_seconds (float): Mean seconds of the augmentation.
    """

    arm: str
    seed: int
    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    top1: float
    map_entropy: float
    step_seconds: float
    blur_seconds: float


class DamagedError(ValueError):
    """A file of a stopped run that it cannot go on from; the message says what to do.

    Args:
        path (Path): The file.
        reason (object): What is wrong with it.
    """

    def __init__(self, path: Path, reason: object) -> None:
        text = " ".join(str(reason).split())
        super().__init__(
            f"{path} is damaged ({text[:200]}): delete {path.parent} to train this arm and seed "
            "anew."
        )


class Run:
    """The folder of one arm and seed.

    ::

        epochs.csv        a row for each epoch
        predictions.csv   the class predicted for each validation picture after the last one
        epoch-3.pt        network and optimizer after it

    Args:
        path (Path): The folder; it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, epoch: int) -> Path:
        """The checkpoint after so many epochs."""
        return self.path / f"epoch-{epoch}.pt"

    @property
    def epochs_done(self) -> int:
        """Epochs that are done: those up to the last checkpoint."""
        names = (re.fullmatch(r"epoch-(\d+)", path.stem) for path in self.path.glob("*.pt"))
        return max((int(name[1]) for name in names if name), default=0)

    @property
    def rows(self) -> list[EpochRow]:
        """A row for each epoch that is done.

        Raises:
            DamagedError: If the file of rows is damaged.
        """
        path = self.path / "epochs.csv"
        lines = _read_csv(path, [field.name for field in fields(EpochRow)])
        try:
            rows = [_epoch_row(line) for line in lines]
        except ValueError as error:
            raise DamagedError(path, error) from error
        done = [row for row in rows if row.epoch <= self.epochs_done]
        if [row.epoch for row in done] != list(range(1, self.epochs_done + 1)):
            raise DamagedError(path, "it has not all epochs")
        return done

    @property
    def predictions(self) -> list[dict[str, str]]:
        """Picture, label and predicted class, after the last epoch.

        Raises:
            DamagedError: If the file is damaged.
        """
        return _read_csv(self.path / "predictions.csv", ["picture", "label", "predicted"])

    def write(
        self, row: EpochRow, names: Sequence[str], labels: Sequence[int], predicted: Sequence[int]
    ) -> None:
        """Keeps what an epoch has given. It counts once there is a checkpoint."""
        _write_csv(self.path / "epochs.csv", [asdict(r) for r in (*self.rows, row)])
        _write_csv(
            self.path / "predictions.csv",
            [
                {"picture": name, "label": label, "predicted": prediction}
                for name, label, prediction in zip(names, labels, predicted, strict=True)
            ],
        )


def crossed_bootstrap(
    differences: np.ndarray, confidence: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of paired differences over seeds and pictures, with its interval.

    Seeds and pictures are both drawn with replacement, independently of each other (the pigeonhole
    bootstrap, Owen 2007): the interval allows for other seeds as well as for other pictures. The
    noise of single pairs counts several times, which makes it wider; of S seeds the spread is
    understated, (S - 1) / S of its variance, which makes it narrower.

    Args:
        differences (array): Seeds x pictures.
        confidence (float, optional): Confidence level. Default: 0.95.
        n_resamples (int, optional): Number of resamples. Default: 10,000.
        seed (int, optional): Seed of the resampling. Default: 0.

    Returns:
        Interval: Mean, ends of the interval, and number of seeds times pictures.

    Examples::

        >>> crossed_bootstrap(np.full((3, 4), 0.25))
        Interval(mean=0.25, low=0.25, high=0.25, n=12)
    """
    n_seeds, n_pictures = differences.shape
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), n_resamples) / n_seeds
    # A row of the product is one resample's mean over seeds, for each picture.
    means = [rng.choice(row, n_pictures).mean() for row in seeds @ differences]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(differences.mean()), float(low), float(high), differences.size)


def write_results(out: Path, runs: Mapping[tuple[str, int], Run], about: Mapping[str, Any]) -> Path:
    """Puts the results of finished runs together.

    Writes ``epochs.csv``, ``predictions.csv`` (a column for each run), ``curves.png`` and
    ``summary.md``.

    Args:
        out (Path): Where to.
        runs (mapping): The runs by arm and seed.
        about (mapping): The configuration, for the summary.

    Returns:
        Path: The summary.

    Raises:
        DamagedError: If a file of a run is damaged.
    """
    rows = {key: run.rows for key, run in runs.items()}
    _write_csv(out / "epochs.csv", [asdict(row) for run in rows.values() for row in run])
    predictions = {key: run.predictions for key, run in runs.items()}
    first = next(iter(predictions.values()))
    for key, lines in predictions.items():
        if [line["picture"] for line in lines] != [line["picture"] for line in first]:
            raise DamagedError(runs[key].path / "predictions.csv", "other pictures than the rest")
    _write_csv(
        out / "predictions.csv",
        [
            {"picture": line["picture"], "label": line["label"]}
            | {f"{arm}-{seed}": p[place]["predicted"] for (arm, seed), p in predictions.items()}
            for place, line in enumerate(first)
        ],
    )
    correct = {
        key: np.array([float(line["label"] == line["predicted"]) for line in lines])
        for key, lines in predictions.items()
    }
    save_figure(_curves(rows), out / "curves.png")
    summary = out / "summary.md"
    write_atomically(summary, _summary(rows, correct, about).encode())
    return summary


def _summary(
    rows: Mapping[tuple[str, int], Sequence[EpochRow]],
    correct: Mapping[tuple[str, int], np.ndarray],
    about: Mapping[str, Any],
) -> str:
    arms, seeds = _arms(rows), sorted({seed for _, seed in rows})
    lines = [
        "# Fine-tuning with and without augmentation",
        "",
        f"| arm | top-1 in % | of seeds {', '.join(map(str, seeds))} | difference to {_PLAIN} | "
        "map entropy | time of a step |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm in arms:
        tops = [100 * correct[arm, seed].mean() for seed in seeds]
        last = [rows[arm, seed][-1] for seed in seeds]
        lines.append(
            f"| {arm} | {np.mean(tops):.2f} | {', '.join(f'{top:.2f}' for top in tops)} | "
            f"{_difference(arm, seeds, correct)} | "
            f"{np.mean([row.map_entropy for row in last]):.4f} | {_cost(arm, rows):.2f} x |"
        )
    lines += [
        "",
        "Top-1 after the last epoch. Differences are in percentage points, paired over seeds and "
        "validation pictures, with the 95 % interval that a bootstrap over both gives. Entropy is "
        "that of Group-CAM's maps of validation pictures after the last epoch, 1 for a map that is "
        "the same everywhere. The time of a step is the median over augmented epochs, relative to "
        "the same step without augmentation.",
        "",
        "![Top-1 and map entropy by epoch](curves.png)",
        "",
        "| setting | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in about.items()),
        "",
    ]
    return "\n".join(lines)


def _difference(
    arm: str, seeds: Sequence[int], correct: Mapping[tuple[str, int], np.ndarray]
) -> str:
    if arm == _PLAIN or any((_PLAIN, seed) not in correct for seed in seeds):
        return ""
    pairs = np.stack([100 * (correct[arm, seed] - correct[_PLAIN, seed]) for seed in seeds])
    interval = crossed_bootstrap(pairs)
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _cost(arm: str, rows: Mapping[tuple[str, int], Sequence[EpochRow]]) -> float:
    ratios = [
        1 + row.blur_seconds / row.step_seconds
        for (name, _), run in rows.items()
        for row in run
        if name == arm and row.blur_seconds
    ]
    return statistics.median(ratios) if ratios else 1.0


def _curves(rows: Mapping[tuple[str, int], Sequence[EpochRow]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = {"top1": "top-1 accuracy", "map_entropy": "mean map entropy"}
    for axes, (column, title) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for number, arm in enumerate(_arms(rows)):
            runs = [run for (name, _), run in rows.items() if name == arm]
            epochs = [row.epoch for row in runs[0]]
            values = np.array([[getattr(row, column) for row in run] for run in runs])
            for one in values:
                axes.plot(epochs, one, color=f"C{number}", alpha=0.25, linewidth=0.8)
            axes.plot(epochs, values.mean(0), color=f"C{number}", label=arm)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend(fontsize="small")
    return figure


def _arms(rows: Iterable[tuple[str, int]]) -> list[str]:
    return list(dict.fromkeys(arm for arm, _ in rows))


def _epoch_row(line: Mapping[str, str]) -> EpochRow:
    kinds = {"str": str, "int": int, "float": float}
    return EpochRow(**{f.name: kinds[str(f.type)](line[f.name]) for f in fields(EpochRow)})


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a file, none if there is no file.

    Raises:
        DamagedError: If it has other columns, or lines of other lengths.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DamagedError(path, error) from error
    for line in lines:
        if list(line) != list(columns) or None in line.values():
            raise DamagedError(path, f"expected the columns {', '.join(columns)}")
    return lines


def _write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(path, text.getvalue().encode())
