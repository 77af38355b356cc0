"""Two processes give the result of one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from captum_groupcam.metrics import DeletionInsertion, PointingGame

# Process 0 has three samples, process 1 has one of its own and, as padding, one of process 0's.
SHARDS = [[0, 3, 1], [2, 0]]
BOXES = torch.tensor([[0, 0, 3, 3]])


def score(inputs: Tensor) -> Tensor:
    return (inputs.flatten(1) * torch.linspace(0, 1, 32)).sum(1)


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.rand(4, 2, 4, 4, generator=generator),
        torch.rand(4, 1, 4, 4, generator=generator),
    )


def run(rank: int, shards: list[list[int]], rendezvous: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=rendezvous,
        rank=rank,
        world_size=len(shards),
        timeout=timedelta(seconds=120),
    )
    try:
        torch.save(evaluate(shards[rank], only_first=rank > 0), Path(results) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def evaluate(indices: list[int], only_first: bool = False) -> list[dict[str, Any]]:
    inputs, maps = samples()
    areas, pointing = DeletionInsertion(score), PointingGame(tolerance=0)
    for i in indices:
        one = slice(i, i + 1)
        areas.update(maps[one], inputs[one], ids=[i])
        if not only_first:  # the second metric gets no sample at all in the second process
            pointing.update(maps[one], [i % 2], boxes=[BOXES], difficult=[i == 3], ids=[i])
    found = [areas.compute(), areas.per_sample()]
    if pointing.update_called or dist.is_initialized():
        found += [pointing.compute(), pointing.per_sample()]
    # Unsynced again, a process has its own samples only.
    assert sum(map(len, areas.deletion)) == len(indices)
    return found


def test_two_processes_equal_one(tmp_path: Path) -> None:
    rendezvous = (tmp_path / "rendezvous").as_uri()
    mp.spawn(run, (SHARDS, rendezvous, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    expected = evaluate([0, 1, 2, 3])[:2] + evaluate([0, 1, 3])[2:]
    assert expected[1]["ids"].tolist() == [0, 1, 2, 3]
    for result in (first, second):
        torch.testing.assert_close(result, expected)
