from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.transforms._presets import ImageClassification

from benchmarks.data import DATASETS, Dataset, Sample, to_inputs
from benchmarks.measures.explained import Explained
from captum_groupcam.models import ImageClassifier

HEADER = "file,label,x0,y0,x1,y1"


def write(root: Path, *rows: str, header: str = HEADER, images: tuple[str, ...] = ()) -> Path:
    """A folder with a table, and images of 40 x 30 pixels in the shades 0, 1, 2, ..."""
    (root / "images").mkdir(exist_ok=True)
    for shade, name in enumerate(images):
        Image.new("RGB", (40, 30), (shade,) * 3).save(root / "images" / name)
    (root / "boxes.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def load(root: Path | str) -> Dataset:
    return DATASETS["folder"](root)


def sample(image: Image.Image, *boxes: tuple[float, ...]) -> Sample:
    corners = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4) if boxes else None
    return Sample("image:0", image, (0,), "0", boxes=corners)


# --- a folder and its table


def test_rows_of_a_file_and_label_are_one_sample(tmp_path):
    write(
        tmp_path,
        "b.png,7,0,0,20,15",
        "a.png,3,1.5,2.25,40,30",
        "b.png,8,30,20,40,30",
        "b.png,7,20,15,40,30",
        images=("a.png", "b.png"),
    )
    dataset = load(str(tmp_path))
    assert len(dataset) == 3
    first, second, third = dataset
    assert [one.id for one in (first, second, third)] == ["b.png:7", "a.png:3", "b.png:8"]
    assert [one.targets for one in (first, second, third)] == [(7,), (3,), (8,)]
    assert first.boxes.tolist() == [[0, 0, 20, 15], [20, 15, 40, 30]]
    assert second.boxes.tolist() == [[1.5, 2.25, 40, 30]]
    assert first.image_size == (30, 40)
    assert [one.image.getpixel((0, 0)) for one in dataset] == [(1, 1, 1), (0, 0, 0), (1, 1, 1)]
    assert not dataset.failures


def test_boxes_are_in_the_pixels_as_stored_whatever_the_camera_noted(tmp_path):
    write(tmp_path, "a.jpg,3,0,0,10,5", images=())
    image = Image.new("RGB", (40, 30))
    image.paste((255, 0, 0), (0, 0, 10, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "images" / "a.jpg", exif=exif, quality=95)
    (sample,) = load(tmp_path)
    assert sample.image_size == (30, 40)
    assert sample.image.getpixel((1, 1))[0] > 200
    assert sample.image.getpixel((20, 20))[0] < 50


def test_other_columns_their_order_and_a_byte_order_mark_do_not_matter(tmp_path):
    header = "\ufeffwnid,y1,x1,y0,x0,label,file"
    write(tmp_path, "n1,4,3,2,1,5,a.png", "", header=header, images=("a.png",))
    (one,) = load(tmp_path)
    assert (one.targets, one.label, one.boxes.tolist()) == ((5,), "5", [[1, 2, 3, 4]])


def test_greys_become_rgb(tmp_path):
    write(tmp_path, "a.png,0,0,0,5,5")
    Image.new("L", (10, 10), 9).save(tmp_path / "images" / "a.png")
    (one,) = load(tmp_path)
    assert (one.image.mode, one.image.getpixel((3, 3))) == ("RGB", (9, 9, 9))


def test_images_are_loaded_when_their_turn_comes(tmp_path):
    write(tmp_path, "a.png,0,0,0,5,5", "b.png,0,0,0,5,5", images=("a.png",))
    samples = iter(load(tmp_path))
    assert next(samples).id == "a.png:0"  # no word about b.png yet
    write(tmp_path, "a.png,0,0,0,5,5", "b.png,0,0,0,5,5", images=("a.png", "b.png"))
    assert [one.id for one in samples] == ["b.png:0"]


def test_what_cannot_be_loaded_is_warned_of_and_counted(tmp_path, damaged_file):
    write(
        tmp_path,
        "missing.png,1,0,0,5,5",
        "a.png,2,0,0,5,5",
        "damaged.jpg,3,0,0,5,5",
        "a.png,4,0,0,5,5",
        "a.png,4,40,0,50,5",
        images=("a.png",),
    )
    damaged_file.rename(tmp_path / "images" / "damaged.jpg")
    dataset = load(tmp_path)
    with pytest.warns(UserWarning, match="left out") as caught:
        ids = [one.id for one in dataset]
    assert ids == ["a.png:2"]
    assert len(dataset) == 4
    assert list(dataset.failures) == ["missing.png:1", "damaged.jpg:3", "a.png:4"]
    assert [name in str(w.message) for name, w in zip(dataset.failures, caught, strict=True)] == [
        True
    ] * 3
    assert "40 x 30 pixels, so the box in line 6" in dataset.failures["a.png:4"]
    with pytest.warns(UserWarning, match="left out"):  # again, and not counted twice
        assert len(list(dataset)) == 1
    assert len(dataset.failures) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,1,0,0,5", r"as many fields as the header"),
        ("a.png,1,0,0,5,5,6", r"as many fields as the header"),
        (",1,0,0,5,5", r"name of the file is empty"),
        ("a.png,cat,0,0,5,5", r"a label is the index .* 'cat'"),
        ("a.png,-1,0,0,5,5", r"a label is the index .* '-1'"),
        ("a.png,1.0,0,0,5,5", r"a label is the index .* '1\.0'"),
        ("a.png,1000,0,0,5,5", r"label 1000, but the network has 1000 classes"),
        ("a.png,1,0,zero,5,5", r"a box is .* got 0,zero,5,5"),
        ("a.png,1,0,,5,5", r"a box is .* got 0,,5,5"),
        ("a.png,1,0,0,nan,5", r"a box is"),
        ("a.png,1,0,0,5,inf", r"a box is"),
        ("a.png,1,5,0,5,5", r"a box is"),
        ("a.png,1,0,6,5,5", r"a box is"),
    ],
)
def test_a_bad_row_is_an_error_with_its_line(tmp_path, row, message):
    write(tmp_path, "a.png,1,0,0,5,5", row, images=("a.png",))
    with pytest.raises(ValueError, match=r"boxes\.csv, line 3: .*" + message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("header", "missing"), [("file,label,x0,y0,x1", "y1"), ("image,x0,y0,x1,y1", "file, label")]
)
def test_missing_columns_are_named(tmp_path, header, missing):
    write(tmp_path, "a.png,1,0,0,5,5", header=header)
    with pytest.raises(ValueError, match=rf"boxes\.csv, line 1: .*missing: {missing}\."):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"line 1: expected the columns"),
        (HEADER.encode() + b"\n", r"no rows"),
        (HEADER.encode() + b'\na.png,1,0,0,5,5\n"b.png,1,0,0,5,5\n', r"not a CSV"),
        (HEADER.encode() + b"\n\xff\xfe.png,1,0,0,5,5\n", r"not a CSV"),
    ],
)
def test_a_file_that_is_no_such_table(tmp_path, content, message):
    (tmp_path / "images").mkdir()
    (tmp_path / "boxes.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"boxes\.csv.*" + message):
        load(tmp_path)


def test_a_folder_without_images_or_table(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*images"):
        load(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"there is no .*boxes\.csv"):
        load(tmp_path)


def test_a_table_of_labels_only(tmp_path):
    write(tmp_path, "b.png,7", "a.png,3", "b.png,7", header="file,label", images=("a.png", "b.png"))
    (tmp_path / "boxes.csv").rename(tmp_path / "labels.csv")
    dataset = load(tmp_path)
    assert not dataset.has_objects
    assert [(one.id, one.targets, one.boxes) for one in dataset] == [
        ("b.png:7", (7,), None),
        ("a.png:3", (3,), None),
    ]
    with pytest.raises(
        ValueError, match=r"labels\.csv, line 2: label 7, .* has 7 classes \(0 to 6"
    ):
        DATASETS["folder"](tmp_path, list("abcdefg"))
    write(tmp_path, "a.png,3,0,0,5,5")
    assert load(tmp_path).has_objects  # boxes.csv comes first


def test_some_samples_without_loading_any(tmp_path):
    names = [f"{index}.png" for index in range(5)]
    write(tmp_path, *(f"{name},1,0,0,5,5" for name in names))
    dataset = load(tmp_path)
    even, odd = (list(dataset.part(slice(start, None, 2)).loaders) for start in (0, 1))
    assert even == ["0.png:1", "2.png:1", "4.png:1"]
    assert odd == ["1.png:1", "3.png:1"]
    assert list(dataset.part(slice(-1, 2, -1)).loaders) == ["4.png:1", "3.png:1"]
    assert not dataset.failures


def test_the_first_samples_without_loading_any(tmp_path):
    write(tmp_path, "missing.png,1,0,0,5,5", "a.png,2,0,0,5,5", images=("a.png",))
    dataset = load(tmp_path)
    assert list(dataset.limit(1).loaders) == ["missing.png:1"]
    assert len(dataset.limit(0)) == 0
    assert len(dataset.limit(9)) == 2
    assert not dataset.failures


# --- what the network sees


def test_inputs_are_normalised_pixels(lite0):
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    model = ImageClassifier(lite0.network, lite0.preprocess, mean=mean, std=std)
    inputs = to_inputs([sample(Image.fromarray(pixels))], model)
    expected = (pixels / 255 - np.array(model.mean)) / np.array(model.std)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(inputs[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_each_axis_is_resized_to_the_size_of_the_model_and_nothing_is_cut_off(lite0):
    model = ImageClassifier(lite0.network, ImageClassification(crop_size=160, resize_size=200))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    pictures = []
    for size in [(90, 40), (31, 300)]:
        picture = Image.new("RGB", (2, 2))
        picture.putdata(colours)
        pictures.append(sample(picture.resize(size, Image.Resampling.NEAREST)))
    inputs = model.denormalize(to_inputs(pictures, model))
    assert inputs.shape == (2, 3, 160, 160)
    corners = inputs[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(
        corners, (torch.tensor(colours) / 255).T.expand(2, 3, 4), atol=0.02, rtol=0
    )


def test_boxes_lie_on_the_object_at_the_size_of_the_input(lite0):
    """A white rectangle on black is where the measures look for it."""
    box = (30, 100, 90, 220)
    picture = Image.new("RGB", (120, 240))
    ImageDraw.Draw(picture).rectangle((30, 100, 89, 219), fill="white")
    one = sample(picture, box)
    inputs = to_inputs([one], lite0)
    explained = Explained(
        lite0.network,
        inputs,
        torch.tensor([0]),
        torch.rand(1, 1, *inputs.shape[2:]),
        boxes=[one.boxes],
        image_sizes=torch.tensor([one.image_size]),
    )
    white = lite0.denormalize(inputs).mean(1, keepdim=True) > 0.5
    assert explained.objects is not None
    agree = (white & explained.objects).sum() / (white | explained.objects).sum()
    assert agree > 0.97


def test_no_samples_make_no_inputs(lite0):
    with pytest.raises(ValueError, match="at least one sample"):
        to_inputs([], lite0)


# --- ImageNet


@pytest.fixture(scope="module")
def ilsvrc(shared) -> Path:
    root = shared / "data/ilsvrc_val"
    if not root.is_dir():
        pytest.skip(f"needs the images in {root}")
    return root


def test_every_box_of_the_table_is_there(ilsvrc):
    dataset = load(ilsvrc)
    samples = list(dataset)
    assert not dataset.failures
    assert len(samples) == len(dataset) == len(list((ilsvrc / "images").iterdir()))
    assert {one.image_size for one in samples} == {(227, 227)}
    table = np.genfromtxt(
        ilsvrc / "boxes.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    rows = {
        (f"{file}:{label}", int(label), *map(float, box))
        for file, label, _, *box, _ in table.tolist()
    }
    assert rows == {(one.id, one.targets[0], *box) for one in samples for box in one.boxes.tolist()}


def test_the_network_knows_the_labels_of_squashed_images(ilsvrc, lite0):
    samples = [one for one, _ in zip(load(ilsvrc), range(16), strict=False)]
    with torch.no_grad():
        predicted = lite0.network(to_inputs(samples, lite0)).argmax(1)
    right = predicted == torch.tensor([one.targets[0] for one in samples])
    assert right.float().mean() > 0.6  # of 1000 classes
