"""GroupCAM on photographs, with a network of real weights."""

from __future__ import annotations

import csv

import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from torchvision.transforms.functional import normalize, to_tensor

from captum_groupcam import GroupCAM
from captum_groupcam.images import sample_images

pytest.importorskip("efficientnet_lite_pytorch")
data = pytest.importorskip("skimage.data")

CAT, ESPRESSO = 285, 967  # "Egyptian cat", "espresso"
SIDE = 256  # before the crop to 224, which takes 16 pixels off each edge


def explain(model, x, target, **options):
    return GroupCAM(model.network, model.layer.module).attribute(
        x, target, **model.layer.keywords, **options
    )


def share(attribution, rows, columns):
    """Share of a map's sum that lies in a rectangle."""
    return (attribution[0, rows, columns].sum() / attribution.sum()).item()


def quadrant(corner):
    """The cat in one quarter of a brick wall."""
    picture = Image.fromarray(data.brick()).convert("RGB").resize((SIDE, SIDE))
    cat = ImageOps.fit(sample_images()["cat"](), (SIDE // 2, SIDE // 2))
    picture.paste(cat, (corner[1] * SIDE // 2, corner[0] * SIDE // 2))
    return picture


def panels(left, right):
    """Two photographs side by side."""
    picture = Image.new("RGB", (SIDE, SIDE))
    for position, name in enumerate((left, right)):
        half = ImageOps.fit(sample_images()[name](), (SIDE // 2, SIDE))
        picture.paste(half, (position * SIDE // 2, 0))
    return picture


HALVES = (slice(0, 112), slice(112, 224))


def test_map_lies_on_the_cat_wherever_it_is(lite0):
    corners = [(0, 1), (1, 0)]
    x = torch.stack([lite0.preprocess(quadrant(corner)) for corner in corners])
    attributions = explain(lite0, x, CAT)
    for attribution, (row, column) in zip(attributions, corners, strict=True):
        # A quarter of the area.
        assert share(attribution, HALVES[row], HALVES[column]) > 0.5
        y, x_ = divmod(attribution.argmax().item(), 224)
        # The layer has 7 x 7 positions: one may straddle the edge by half of its 32 pixels.
        assert HALVES[row].start - 16 <= y < HALVES[row].stop + 16
        assert HALVES[column].start - 16 <= x_ < HALVES[column].stop + 16


def test_maps_of_two_classes_lie_on_their_objects(lite0):
    """The class-discriminative claim: one picture, two objects, two questions."""
    pictures = [panels("cat", "coffee"), panels("coffee", "cat")]
    x = torch.stack([lite0.preprocess(picture) for picture in pictures])
    with torch.no_grad():
        top = lite0.network(x).topk(6).indices.tolist()
    assert all({CAT, ESPRESSO} <= set(classes) for classes in top)
    cats, cups = (explain(lite0, x, target) for target in (CAT, ESPRESSO))
    everywhere = slice(None)
    for n, (cat_half, cup_half) in enumerate([HALVES, HALVES[::-1]]):
        assert share(cats[n], everywhere, cat_half) > 0.8
        assert share(cups[n], everywhere, cup_half) > 0.8
        both = torch.stack([cats[n].flatten(), cups[n].flatten()])
        assert torch.corrcoef(both)[0, 1] < 0


def test_seeing_only_what_the_map_shows_keeps_the_class(lite0, images):
    """The half of the cat's picture with the higher values beats the other half."""
    x = images("cat")
    ranks = explain(lite0, x, CAT).flatten().argsort(stable=True).argsort().view(224, 224)
    blurred = torchvision.transforms.functional.gaussian_blur(x, 51, 50.0)
    upper = ranks >= ranks.numel() // 2
    with torch.no_grad():
        seen = torch.cat([torch.where(part, x, blurred) for part in (upper, ~upper)])
        kept, lost = lite0.network(seen).softmax(1)[:, CAT].tolist()
    assert kept > 2 * lost


def test_maps_lie_in_the_boxes_of_small_objects(lite0, shared):
    """ILSVRC images whose boxes cover less than a fifth of the picture."""
    with (shared / "data/ilsvrc_val/boxes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if float(row["union_cover"]) < 0.2]
    names = list(dict.fromkeys(row["file"] for row in rows))[:10]
    pictures, targets, boxes = [], [], torch.zeros(len(names), 224, 224, dtype=torch.bool)
    for n, name in enumerate(names):
        picture = Image.open(shared / "data/ilsvrc_val/images" / name).convert("RGB")
        assert picture.size == (227, 227)
        pictures.append(normalize(to_tensor(picture.resize((224, 224))), lite0.mean, lite0.std))
        of_image = [row for row in rows if row["file"] == name]
        targets.append(int(of_image[0]["label"]))
        for row in of_image:
            left, top, right, bottom = (
                round(float(row[key]) * 224 / 227) for key in ("x0", "y0", "x1", "y1")
            )
            boxes[n, top:bottom, left:right] = True
    attributions = explain(lite0, torch.stack(pictures), targets, n_groups=16).squeeze(1)
    alive = attributions.flatten(1).any(1)
    assert alive.float().mean() > 0.9
    inside = (attributions * boxes).sum((1, 2))[alive] / attributions.sum((1, 2))[alive]
    area = boxes.float().mean((1, 2))[alive]
    assert inside.mean() > 2 * area.mean()
    assert (inside > area).float().mean() > 0.75
