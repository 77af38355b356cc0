"""Video whose frames go through an image network: as samples, or as what comes before channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import (
    RISE,
    XRAI,
    AblationCAM,
    EigenCAM,
    GradCAM,
    GroupCAM,
    LayerCAM,
    ScoreCAM,
    ShapleyCAM,
)
from captum_groupcam.metrics.functional import average_drop, deletion_insertion
from captum_groupcam.networks import TargetLayer, check_layer, find_layer

STEPS = 4


class FramesAsSamples(nn.Module):
    """A clip (N x C x T x H x W): features of each frame, then a recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.recurrent = nn.LSTM(8, 8, batch_first=True)
        self.fc = nn.Linear(8, 5)
        nn.init.normal_(self.fc.weight, std=2.0)

    def head(self, maps: Tensor) -> Tensor:
        """N x K x T x h x w to N x classes."""
        features = maps.mean((3, 4)).transpose(1, 2)
        return self.fc(self.recurrent(features)[0][:, -1])

    def forward(self, clip: Tensor) -> Tensor:
        maps = self.image(clip.transpose(1, 2).flatten(0, 1))
        return self.head(by_clip(maps))


def by_clip(maps: Tensor) -> Tensor:
    """(N T) x K x h x w to N x K x T x h x w, whatever N is."""
    return maps.unflatten(0, (-1, STEPS)).transpose(1, 2)


class Volume(nn.Module):
    """The same network with a layer that gives the features as a volume: what to compare with."""

    def __init__(self, network: FramesAsSamples) -> None:
        super().__init__()
        self.network, self.maps = network, nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        frames = clip.transpose(1, 2).flatten(0, 1)
        return self.network.head(self.maps(by_clip(self.network.image(frames)) + 0))


@pytest.fixture
def network() -> FramesAsSamples:
    return FramesAsSamples().eval()


@pytest.mark.filterwarnings("ignore:The maps of samples")
@pytest.mark.parametrize("internal_batch_size", [1, 2, None])
@pytest.mark.parametrize("method", [GroupCAM, ScoreCAM, GradCAM])
def test_each_frame_has_its_map(method, internal_batch_size, network) -> None:
    """The transform runs on each chunk, before its rows are counted."""
    clips, target = torch.rand(3, 3, STEPS, 16, 16), torch.tensor([0, 2, 4])
    options = {"internal_batch_size": internal_batch_size, "relu_attributions": False}
    maps = method(network, network.image).attribute(
        clips, target, reshape_transform=by_clip, **options
    )
    size = (STEPS, 8, 8) if method is GradCAM else (STEPS, 16, 16)
    assert maps.shape == (3, 1, *size)
    assert not torch.allclose(maps[:, :, 0], maps[:, :, 1])
    volume = Volume(network).eval()
    expected = method(volume, volume.maps).attribute(clips, target, **options)
    torch.testing.assert_close(maps, expected)
    assert check_layer(
        network, TargetLayer.of(network, "image", reshape_transform=by_clip), clips
    ).fits


def test_rows_that_are_no_samples_are_refused(network) -> None:
    clips = torch.rand(2, 3, STEPS, 16, 16)
    with pytest.raises(ValueError, match=r"batch size of \(8,\) for 2 inputs"):
        GroupCAM(network, network.image).attribute(clips, 1)


def by_place(maps: Tensor) -> Tensor:
    """What would be right for (T N) x K x h x w: rows of the same frame beside each other."""
    return maps.unflatten(0, (STEPS, -1)).permute(1, 2, 0, 3, 4)


class PlacesFirst(FramesAsSamples):
    """The same network with the frames in the other order."""

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(by_place(self.image(clip.permute(2, 0, 1, 3, 4).flatten(0, 1))))


WITH_A_TRANSFORM = {
    "GradCAM": (GradCAM, {}),
    "LayerCAM": (LayerCAM, {}),
    "GroupCAM": (GroupCAM, {"n_groups": 4}),
    "GroupCAM without gradients": (GroupCAM, {"n_groups": 4, "gradient_free": True}),
    "ScoreCAM": (ScoreCAM, {}),
    "AblationCAM": (AblationCAM, {}),
    "EigenCAM": (EigenCAM, {}),
    "ShapleyCAM": (ShapleyCAM, {}),
}


@pytest.mark.filterwarnings("ignore:The maps of samples")
@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("method", WITH_A_TRANSFORM)
def test_a_transform_that_mixes_the_samples_is_refused(method: str, n: int) -> None:
    make, options = WITH_A_TRANSFORM[method]
    clips = torch.rand(n, 3, STEPS, 16, 16)
    for kind, right, wrong in (
        (FramesAsSamples, by_clip, by_place),
        (PlacesFirst, by_place, by_clip),
    ):
        net = kind().eval()

        def explain(transform, net=net, **more) -> Tensor:
            return make(net, net.image).attribute(
                clips, target=1, reshape_transform=transform, **options, **more
            )

        torch.testing.assert_close(explain(right), explain(right, internal_batch_size=1))
        with pytest.raises(
            ValueError, match=r"reshape_transform .* has parts of others.*unflatten"
        ):
            explain(wrong)


def test_clips_that_attend_to_each_other_are_no_fault_of_the_transform() -> None:
    """The network mixes the samples; the transform does not."""

    class Company(FramesAsSamples):
        def forward(self, clip: Tensor) -> Tensor:
            maps = by_clip(self.image(clip.transpose(1, 2).flatten(0, 1)))
            return self.head(maps + 0.5 * maps.flip(0) + maps.mean(0, keepdim=True))

    class CompanyBefore(FramesAsSamples):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip + 3 * clip.flip(0).square())

    clips = torch.rand(3, 3, STEPS, 16, 16)
    for kind in (Company, CompanyBefore):
        net = kind().eval()
        for method in (GradCAM, EigenCAM):
            method(net, net.image).attribute(clips, 1, reshape_transform=by_clip)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rounding_is_no_fault_of_the_transform(dtype: torch.dtype) -> None:
    net = FramesAsSamples().eval().to(dtype)
    clips = torch.rand(3, 3, STEPS, 16, 16, dtype=dtype)
    for method in (GradCAM, EigenCAM):
        method(net, net.image).attribute(clips, 1, reshape_transform=by_clip)
        with pytest.raises(ValueError, match="has parts of others"):
            method(net, net.image).attribute(clips, 1, reshape_transform=by_place)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_layer_of_frames_is_listed_with_its_transform(axis, network) -> None:
    """The line of code of the error, as it stands there, gives the map."""
    net = network if axis == 0 else AcrossRows(network).eval()
    size = [16, 16, 16]
    size[axis] = STEPS
    clip = torch.rand(1, 3, *size)
    with pytest.raises(ValueError, match=r"rows are not the samples, but N x 4 parts") as caught:
        find_layer(net, clip)
    (line,) = [one for one in str(caught.value).splitlines() if "image, 4 x 8 x 8 x 8" in one]
    code = line.partition("regroup them: ")[2]
    assert code == f"lambda rows: rows.unflatten(0, (-1, 4)).movedim(1, {2 + axis})"
    transform = eval(code)
    layer = TargetLayer(network.image, reshape_transform=transform)
    assert check_layer(net, layer, clip).fits
    maps = GradCAM(net, network.image).attribute(clip, 1, reshape_transform=transform)
    assert maps.shape[2 + axis] == STEPS


class AcrossRows(nn.Module):
    """The slices of a volume lie along its second axis."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> Tensor:
        return self.network(volume.transpose(2, 3))


class FramesSecond(nn.Module):
    """Takes N x T x C x H x W, as datasets of video give it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, clip: Tensor) -> Tensor:
        features = self.conv(clip.flatten(0, 1)).relu().mean((2, 3))
        return self.fc(features.unflatten(0, clip.shape[:2]).mean(1))


@pytest.mark.parametrize("shape", [(2, 8, 3, 16, 16), (1, 4, 3, 16, 16), (1, 16, 1, 24, 16)])
def test_frames_before_channels_are_named(shape) -> None:
    net, clip = FramesSecond().eval(), torch.rand(shape)
    if shape[2] == 1:
        net.conv = nn.Conv2d(1, 8, 3)
    maps = torch.rand(len(clip), 1, *shape[2:])
    calls = [
        lambda: RISE(net).attribute(clip, target=1, n_masks=4),
        lambda: XRAI(net).attribute(clip, target=1),
        lambda: GroupCAM(net, net.conv).attribute(clip, 1),
        lambda: GradCAM(net, net.conv).attribute(clip, 1),
        lambda: deletion_insertion(net, maps, clip, 1),
        lambda: average_drop(net, maps, clip, 1),
        lambda: find_layer(net, clip),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"looks like N x T x C x H x W"):
            call()


@pytest.mark.parametrize("shape", [(2, 3, 3, 16, 16), (1, 3, 1, 16, 24), (2, 3, 3, 24, 16)])
def test_as_many_frames_as_channels_are_named(shape) -> None:
    """The shape does not tell, the first convolution does."""
    net, clip = FramesSecond().eval(), torch.rand(shape)
    net.conv = nn.Conv2d(shape[2], 8, 3)
    maps = torch.rand(len(clip), 1, *shape[2:])
    calls = [
        lambda: RISE(net).attribute(clip, target=1, n_masks=4),
        lambda: XRAI(net).attribute(clip, target=1),
        lambda: GradCAM(net, net.conv).attribute(clip, 1),
        lambda: deletion_insertion(net, maps, clip, 1),
        lambda: average_drop(net, maps, clip, 1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"looks like N x T x C x H x W, 3 frames of"):
            call()


def volumes(channels: int) -> nn.Module:
    """A network of volumes of so many channels."""
    features = nn.Sequential(nn.Conv3d(channels, 8, 3, padding=1), nn.ReLU())
    head = nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(features, *head).eval()


class Modalities(nn.Module):
    """The slices of a volume (N x C x D x H x W) through a network of images."""

    def __init__(self, channels: int, *, one_by_one: bool) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU())
        self.fc, self.one_by_one = nn.Linear(8, 5), one_by_one

    def forward(self, x: Tensor) -> Tensor:
        if self.one_by_one:
            return self.fc(sum(self.image(one).mean((2, 3)) for one in x.unbind(2)))
        rows = self.image(x.transpose(1, 2).flatten(0, 1)).mean((2, 3))
        return self.fc(rows.unflatten(0, (len(x), -1)).mean(1))


@pytest.mark.filterwarnings("ignore:The maps of samples")
@pytest.mark.parametrize(
    "shape", [(2, 4, 3, 16, 16), (1, 2, 1, 16, 16), (2, 8, 3, 12, 16), (1, 5, 1, 8, 8)]
)
def test_a_volume_of_few_slices_is_taken_by_a_network_of_volumes(shape) -> None:
    """Say four modalities of a scanner, three slices: the first convolution has four channels."""
    net, x = volumes(shape[1]), torch.rand(shape)
    size = (len(x), 1, *shape[2:])
    assert find_layer(net, x).name == "0"
    assert check_layer(net, TargetLayer.of(net, "0"), x).fits
    assert GroupCAM(net, net[0]).attribute(x, 1, n_groups=4).shape == size
    assert GradCAM(net, net[0]).attribute(x, 1).shape == size
    assert RISE(net).attribute(x, target=1, n_masks=4).shape == size
    assert average_drop(net, torch.rand(size), x, 1).average_drop.shape == (len(x),)


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("value", [None, 0.5])
def test_so_it_is_by_a_network_of_its_slices(one_by_one, value) -> None:
    x = torch.rand(1, 4, 3, 16, 16) if value is None else torch.full((1, 4, 3, 16, 16), value)
    net = Modalities(4, one_by_one=one_by_one).eval()
    assert RISE(net).attribute(x, target=1, n_masks=4).shape == (1, 1, 3, 16, 16)


class FramesOneByOne(nn.Module):
    """Frames (N x T x C x H x W) one after the other through a network of images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, clip: Tensor) -> Tensor:
        return self.fc(sum(self.conv(frame).relu().mean((2, 3)) for frame in clip.unbind(1)))


def test_frames_one_by_one_are_refused_by_the_channels_of_the_first_convolution() -> None:
    clip = torch.rand(1, 4, 3, 16, 16)
    with pytest.raises(ValueError, match="looks like N x T x C x H x W, 4 frames") as caught:
        RISE(FramesOneByOne().eval()).attribute(clip, target=1, n_masks=4)
    assert "no convolution that tells" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("form", ["script", "trace", "export", "fx", "channels 3"])
def test_networks_that_call_no_function_of_torch_tell_by_their_weights(form) -> None:
    channels = 3 if form == "channels 3" else 4
    net, x = volumes(channels), torch.rand(1, channels, 3, 16, 16)
    if form == "script":
        net = torch.jit.script(net)
    elif form == "trace":
        net = torch.jit.trace(net, x)
    elif form == "export":
        net = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    elif form == "fx":
        net = torch.fx.symbolic_trace(net)
    maps = RISE(net).attribute(x, target=1, n_masks=4, internal_batch_size=1)
    assert maps.shape == (1, 1, 3, 16, 16)


def test_without_a_convolution_the_error_says_how_to_go_on() -> None:
    x = torch.rand(1, 4, 3, 16, 16)
    net = flat_network(x)
    with pytest.raises(ValueError, match=r"no convolution that tells.*flatten\(1, 2\)") as caught:
        RISE(net).attribute(x, target=1, n_masks=4)
    assert "gives inputs.unflatten(1, (4, 3)) to it" in str(caught.value)

    def of_slices(stacked: Tensor) -> Tensor:
        return net(stacked.unflatten(1, (4, 3)))

    maps = RISE(of_slices).attribute(x.flatten(1, 2), target=1, n_masks=4)
    assert maps.shape == (1, 1, 16, 16)


class Frames(nn.Module):
    """Takes N x T x C x H x W into a network of volumes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv3d(channels, 8, (1, 3, 3)), nn.Linear(8, 5)

    def forward(self, clip: Tensor) -> Tensor:
        normalised = (clip - 0.5) / 0.2
        return self.fc(self.conv(normalised.transpose(1, 2)).relu().mean((2, 3, 4)))


class Clip(Frames):
    """The same of N x C x T x H x W."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip.transpose(1, 2))


@pytest.mark.parametrize("shape", [(1, 3, 3, 16, 16), (2, 1, 3, 16, 16), (1, 3, 1, 16, 16)])
def test_the_first_convolution_tells_which_axis_has_the_frames(shape) -> None:
    clip = torch.rand(shape)
    with pytest.raises(ValueError, match=r"looks like N x T x C x H x W"):
        RISE(Frames(shape[2]).eval()).attribute(clip, target=1, n_masks=4)
    maps = RISE(Clip(shape[1]).eval()).attribute(clip, target=1, n_masks=4)
    assert maps.shape == (len(clip), 1, *shape[2:])


def test_three_frames_of_a_network_of_images_are_taken() -> None:
    class Inner(FramesSecond):
        def forward(self, clip: Tensor) -> Tensor:
            return super().forward(clip.transpose(1, 2))

    net, clip = Inner().eval(), torch.rand(1, 3, 3, 16, 16)
    assert RISE(net).attribute(clip, target=1, n_masks=4).shape == (1, 1, 3, 16, 16)


def flat_network(clip: Tensor) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(5)).eval()
    net(clip)
    return net


@pytest.mark.parametrize("shape", [(1, 3, 8, 16, 16), (1, 1, 1, 16, 16), (1, 1, 8, 16, 16)])
def test_clips_and_volumes_are_taken(shape) -> None:
    clip = torch.rand(shape)
    maps = RISE(flat_network(clip)).attribute(clip, target=1, n_masks=4)
    assert maps.shape == (1, 1, *shape[2:])


@pytest.mark.parametrize("shape", [(1, 1, 3, 16, 16), (1, 3, 3, 16, 16), (1, 3, 1, 16, 16)])
def test_axes_that_the_network_does_not_tell_are_named(shape) -> None:
    clip = torch.rand(shape)
    with pytest.warns(UserWarning, match=f"{shape[1]} channels of {shape[2]} frames or slices"):
        maps = RISE(flat_network(clip)).attribute(clip, target=1, n_masks=4)
    assert maps.shape == (1, 1, *shape[2:])
