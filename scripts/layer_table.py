"""The table of layers: what ``find_layer`` chooses in many networks, and whether it is right.

    python -m scripts.layer_table --out docs/layers.csv

A row is appended for each network; those that are there are skipped, so a run that was ended goes
on. The verdict does not rest on what ``find_layer`` looks at: patches of the image are replaced one
by one, and the place where the layer's grid changes most has to be that of the patch.
"""

from __future__ import annotations

import csv
import ctypes
import fnmatch
import gc
import itertools
import logging
import os
import resource
import sys
import warnings
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_groupcam.networks import TargetLayer, find_layer
from scripts.layer_networks import Entry, entries

#: Patches along each axis, and how often each is replaced: more only while that tells too little.
N_PATCHES = {1: 8, 2: 3, 3: 2}
DRAWS = (1, 3, 8)
#: What the place of the change has to have in common with that of the patch.
LEAST_CORRELATION = 0.7
MOST_OF = 0.9
MOST_SHIFT = 0.15
#: Gigabytes, more than which a run begins anew in a fresh process.
MOST_MEMORY = 7.0


@dataclass(frozen=True)
class Row:
    """One network in the table.

    Attributes:
        source (str): Where the network comes from.
        network (str): Its name.
        input (str): Shape of the input.
        layer (str): What ``find_layer`` chooses.
        grid (str): Positions along each axis.
        correlation (str): Of the place of a patch with that where the grid changes, by axis.
        verdict (str): right, refused or wrong.
        reason (str): Why it is refused or wrong.
    """

    source: str
    network: str
    input: str
    layer: str = ""
    grid: str = ""
    correlation: str = ""
    verdict: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Places:
    """Where a grid changes when patches of the input do.

    Attributes:
        correlation (tuple of float): Along each axis of several positions, of the place of a patch
            with that of the change.
        shift (tuple of float): Mean distance from the patch to the change, in sides of the input.
    """

    correlation: tuple[float, ...]
    shift: tuple[float, ...]

    @property
    def follow(self) -> bool:
        """Whether the change is where the patch is."""
        return (
            min(self.correlation) >= LEAST_CORRELATION and max(map(abs, self.shift)) <= MOST_SHIFT
        )


def values_of(model: nn.Module, layer: TargetLayer, inputs: tuple[Tensor, ...]) -> Tensor:
    """The values of a layer on its grid, N x C x spatial."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, args: object, output: object = None) -> None:
        value = args if layer.attribute_to_layer_input else output
        value = value[0] if isinstance(value, (tuple, list)) else value
        found.append(layer.to_grid(value.clone()))  # type: ignore[union-attr]

    module = layer.module
    register = (
        module.register_forward_pre_hook
        if layer.attribute_to_layer_input
        else module.register_forward_hook
    )
    handle = register(keep)
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        handle.remove()
    return found[-1].double()


def places(model: nn.Module, layer: TargetLayer, inputs: tuple[Tensor, ...], draws: int) -> Places:
    """Where a layer's grid changes when one patch of the first input is replaced by noise.

    What changes everywhere says nothing, so each position is read as a share of what it changes by
    with all patches; the place of the change is that of the largest shares.

    Args:
        model (torch.nn.Module): The network.
        layer (TargetLayer): The layer.
        inputs (tuple of Tensor): Its inputs, the image first.
        draws (int): How often each patch is replaced.

    Returns:
        Places: Where it changes.
    """
    image, others = inputs[0], inputs[1:]
    size = image.shape[2:]
    before = values_of(model, layer, inputs)
    grid = before.shape[2:]
    n_patches = [min(N_PATCHES[len(size)], cells) for cells in grid]
    patches = list(itertools.product(*(range(n) for n in n_patches)))
    changes = torch.zeros(len(patches), *grid, dtype=torch.double)
    generator = torch.Generator().manual_seed(1)
    for which, patch in enumerate(patches):
        region = tuple(
            slice(side * i // n, side * (i + 1) // n)
            for i, n, side in zip(patch, n_patches, size, strict=True)
        )
        for _ in range(draws):
            changed = image.clone()
            part = changed[(..., *region)]
            part.copy_(torch.rand(part.shape, generator=generator))
            after = values_of(model, layer, (changed, *others))
            changes[which] += (after - before).square().sum(1)[0]
    shares = changes / changes.sum(0).clamp_min(1e-300)
    most = shares.flatten(1).amax(1).view(-1, *(1 for _ in grid))
    peaks = (shares >= MOST_OF * most).double()
    peaks /= peaks.flatten(1).sum(1).view(most.shape)
    correlation, shift = [], []
    for axis, cells in enumerate(grid):
        if cells == 1:
            continue  # of one position, there is nothing to be wrong about but the others
        where = (torch.tensor([p[axis] for p in patches]).double() + 0.5) / n_patches[axis]
        lines = peaks.movedim(axis + 1, 1).flatten(2).sum(2)
        found = lines @ (torch.arange(cells, dtype=torch.double) + 0.5) / cells
        both = torch.corrcoef(torch.stack([where, found]))
        correlation.append(float(both[0, 1].nan_to_num()))
        shift.append(float((found - where).mean()))
    return Places(tuple(correlation), tuple(shift))


def reaches(model: nn.Module, layer: TargetLayer, inputs: tuple[Tensor, ...]) -> bool:
    """Whether the output is another one with NaN in the layer."""

    def spoil(_module: nn.Module, args: object, output: object = None) -> object:
        value = args if layer.attribute_to_layer_input else output
        if isinstance(value, (tuple, list)):
            return type(value)(torch.full_like(one, torch.nan) for one in value)
        return torch.full_like(value, torch.nan)  # type: ignore[arg-type]

    module = layer.module
    register = (
        module.register_forward_pre_hook
        if layer.attribute_to_layer_input
        else module.register_forward_hook
    )
    with torch.no_grad():
        before = model(*inputs)
    handle = register(spoil)
    try:
        with torch.no_grad():
            return not torch.equal(before, model(*inputs))
    finally:
        handle.remove()


def row_of(entry: Entry) -> Row:
    """Builds a network, asks for its layer and judges it."""
    torch.manual_seed(0)
    row = {"source": entry.source, "network": entry.name, "input": _text(entry.shape)}
    model = entry.build().eval()
    image = torch.rand(1, *entry.shape, generator=torch.Generator().manual_seed(0))
    inputs = (image, *entry.more(model, image))
    try:
        layer = find_layer(model, inputs)
    except ValueError as error:
        reason = " ".join(str(error).split())
        return Row(**row, verdict="refused", reason=reason)
    grid = values_of(model, layer, inputs).shape[2:]
    for draws in DRAWS:
        found = places(model, layer, inputs, draws)
        if found.follow:
            break
    if not reaches(model, layer, inputs):
        reason = "the output does not depend on the layer"
    elif not found.follow:
        reason = f"a changed patch changes another place, shifted by {_numbers(found.shift)}"
    else:
        reason = ""
    return Row(
        **row,
        layer=str(layer),
        grid=_text(grid),
        correlation=_numbers(found.correlation),
        verdict="wrong" if reason else "right",
        reason=reason,
    )


def read(path: Path) -> list[Row]:
    """The rows of a table; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def write(path: Path, rows: list[Row]) -> None:
    """Writes a table, in the order of the networks."""
    order = {(entry.source, entry.name): n for n, entry in enumerate(entries())}
    rows = sorted(rows, key=lambda row: order.get((row.source, row.network), len(order)))
    fresh = path.with_suffix(".new")
    with fresh.open("w", newline="") as file:
        table = csv.DictWriter(file, list(Row.__dataclass_fields__), lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in rows)
    fresh.replace(path)


def main() -> None:
    """Adds the rows that are missing."""
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("docs/layers.csv"))
    parser.add_argument("--only", default="*", help="networks of this name, with wildcards")
    parser.add_argument("--most", type=int, default=10**6, help="rows to add")
    parser.add_argument("--source", default="*", help="networks from here, with wildcards")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for entry in entries():
        rows = read(options.out)
        done = {(row.source, row.network) for row in rows}
        asked = fnmatch.fnmatch(entry.name, options.only)
        asked &= fnmatch.fnmatch(entry.source, options.source)
        if not asked or (entry.source, entry.name) in done:
            continue
        if not options.most:
            break
        options.most -= 1
        try:
            row = row_of(entry)
        except Exception as error:  # the other networks' rows are worth having
            print(f"{entry.source} {entry.name}: FAILED, {error!r:.500}", flush=True)
            continue
        write(options.out, [*rows, row])
        gc.collect()
        memory = _memory()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{row.source} {row.network}: {row.layer} {row.grid} {row.verdict} {row.correlation} "
            f"{row.reason[:200]} ({memory:.1f} GB, at most {peak:.1f})",
            flush=True,
        )
        if memory > MOST_MEMORY:
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606


def _memory() -> float:
    """Resident memory in gigabytes, once what is free was given back."""
    if sys.platform != "linux":
        return 0.0
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


if __name__ == "__main__":
    main()
