"""Explains a network for signals and one for volumes, and draws the maps: python dimensions.py."""

from pathlib import Path

import matplotlib
import torch
from torch import Tensor, nn

from captum_groupcam import GroupCAM
from captum_groupcam.visualization import save_figure, signal_plot, volume_slices


def examples(n: int, *size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (N x 1 x size), in class 1 with a bump somewhere; and where that is."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 0.3 * torch.randn(n, 1, *size, generator=generator)
    classes = torch.randint(2, (n,), generator=generator)
    shares = torch.rand(n, len(size), generator=generator)
    places = (4 + shares * (torch.tensor(size) - 8)).long()
    for one, label, place in zip(inputs, classes, places, strict=True):
        axes = torch.meshgrid(*map(torch.arange, size), indexing="ij")
        distance = sum((axis - at).square() for axis, at in zip(axes, place, strict=True))
        one += 2.0 * label * torch.exp(-distance / 4.0)
    return inputs, classes, places


def train(convolution: type[nn.Module], pool: type[nn.Module], *size: int) -> nn.Sequential:
    """Trains a small network (Conv1d or Conv3d) to find the bump."""
    torch.manual_seed(0)
    network = nn.Sequential(
        convolution(1, 8, 3, padding=1),
        nn.ReLU(),
        convolution(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        pool(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    inputs, classes, _ = examples(32, *size)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), classes).backward()
        optimizer.step()
    return network.eval()


def main() -> None:
    """Draws one of each."""
    images = Path(__file__).parents[1] / "images"
    network = train(nn.Conv1d, nn.AdaptiveMaxPool1d, 96)
    signals, classes, _ = examples(8, 96, seed=1)
    signal = signals[classes == 1][:1]
    maps = GroupCAM(network, network[3]).attribute(signal, 1, n_groups=8)
    save_figure(signal_plot(signal[0], maps[0]), images / "signal.png", dpi=100)

    network = train(nn.Conv3d, nn.AdaptiveMaxPool3d, 12, 12, 12)
    volumes, classes, _ = examples(8, 12, 12, 12, seed=1)
    volume = volumes[classes == 1][:1]
    maps = GroupCAM(network, network[3]).attribute(volume, 1, n_groups=8)
    matplotlib.rcParams["font.size"] = 16  # the page shows it at half its size
    save_figure(volume_slices(volume[0], maps[0]), images / "volume.png", dpi=70)


if __name__ == "__main__":
    main()
