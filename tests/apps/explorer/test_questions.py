from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_groupcam import GroupCAM
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._questions import (
    THUMBNAIL,
    Photo,
    Question,
    Stopped,
    explain,
    groups_of,
    look,
    measure,
    value_at,
)
from captum_groupcam.images import ImageError
from captum_groupcam.methods import METHODS, offered_methods
from captum_groupcam.metrics.functional import DeletionInsertionProtocol, deletion_insertion
from captum_groupcam.models import ImageClassifier
from tests.apps.explorer.conftest import LITE0, ON_FEW_CHANNELS
from tests.toy_networks import hooks

CHEAP = {
    "group_cam": {"n_groups": 4},
    "group_cam_gradient_free": {"n_groups": 4},
    "rise": {"n_masks": 12},
    "xrai": {"n_steps": 4},
    "integrated_gradients": {"n_steps": 20},
    "smooth_grad": {"n_samples": 20},
    "occlusion": {"window": 112},
    "gradient_shap": {"n_samples": 12},
    "feature_ablation": {"n_segments": 9},
    "lime": {"n_samples": 10},
    "kernel_shap": {"n_samples": 10},
    "shapley_value_sampling": {"n_segments": 9},
}
#: They ask the network nothing, or once; CAM watches its second pass.
AT_MOST_ONE_QUERY = {"cam"} | {
    name for name, method in METHODS.items() if method.passes and method.n_passes() <= 1
}
#: They cannot explain this network.
REFUSED = {"lrp", "attention_rollout", "le_grad"}


def test_photos_are_upright_and_rgb(tmp_path: Path) -> None:
    stored = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    stored.save(tmp_path / "turned.jpg", exif=exif)
    photo = Photo("mine.jpg", tmp_path / "turned.jpg")
    assert (photo.open().size, photo.is_sample) == ((20, 40), False)
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "clear.png")
    assert Photo("clear.png", tmp_path / "clear.png").open().getpixel((3, 3)) == (255, 255, 255)


def test_a_damaged_photo_is_refused_without_its_place(damaged_file: Path) -> None:
    with pytest.raises(ImageError, match=r"^mine\.jpg: cannot be read as an image") as error:
        Photo("mine.jpg", damaged_file).open()
    assert str(damaged_file.parent) not in str(error.value)


def test_a_view_is_what_the_network_sees(models: Models, cat: Photo) -> None:
    view = look(models, cat, LITE0)
    model = models.load(LITE0)
    torch.testing.assert_close(view.inputs, model.preprocess(cat.open())[None])
    torch.testing.assert_close(view.shown, view.inputs[0] * 0.5 + 0.5)
    probabilities = model.network(view.inputs).softmax(1)[0].detach()
    assert {index for index, _ in view.ranked[:3]} == {281, 282, 285}  # tabby, tiger and Egyptian
    assert [value for _, value in view.ranked] == sorted(probabilities.tolist(), reverse=True)
    assert view.probability_of(281) == pytest.approx(float(probabilities[281]))


def test_of_a_large_photo_little_is_kept(models: Models, tmp_path: Path) -> None:
    Image.new("RGB", (4000, 6000), "grey").save(tmp_path / "large.png")
    view = look(models, Photo("large.png", tmp_path / "large.png"), LITE0)
    assert view.thumbnail.size == (THUMBNAIL * 2 // 3, THUMBNAIL)
    tensors = (view.inputs, view.shown, view.classes, view.probabilities)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    assert kept + 3 * view.thumbnail.width * view.thumbnail.height < 2 * 2**20  # 72 MB decoded


def test_one_thread_decodes_for_all(models: Models, cat: Photo) -> None:
    lite0 = models.load(LITE0)
    seen = []

    def preprocess(image: Image.Image) -> torch.Tensor:
        seen.append(threading.get_ident())
        return lite0.preprocess(image)

    network = ImageClassifier(lite0.network, preprocess, mean=lite0.mean, std=lite0.std)
    watched = Models([network])
    seen.clear()
    askers = [threading.Thread(target=look, args=(watched, cat, network.name)) for _ in range(3)]
    for asker in askers:
        asker.start()
        asker.join()
    assert (len(seen), len({*seen})) == (3, 1)


@pytest.mark.parametrize("layer", ["", ON_FEW_CHANNELS])
def test_the_map_is_that_of_the_method(models: Models, ask, layer: str) -> None:
    answer = explain(models, ask("group_cam", layer=layer, n_groups=4, denoise_at="input"))
    network = models.load(LITE0).network
    module = network.get_submodule(layer or "_avg_pooling")
    inputs = answer.question.view.inputs
    expected = GroupCAM(network, module).attribute(
        inputs, 281, attribute_to_layer_input=not layer, n_groups=4, denoise_at="input"
    )
    torch.testing.assert_close(answer.attribution, expected[0])
    assert answer.class_name == "tabby"
    assert answer.probability == answer.question.view.probability_of(281)


def test_queries_are_counted(models: Models, ask) -> None:
    seen: list[int] = []
    network = models.load(LITE0).network
    handle = network.register_forward_hook(lambda _module, args, _out: seen.append(len(args[0])))
    reported: list[int] = []
    try:
        answer = explain(models, ask("group_cam", n_groups=4), reported.append)
    finally:
        handle.remove()
    assert answer.queries == sum(seen) == 4 + 2  # the image for gradients, and the baseline
    assert reported == [sum(seen[:n]) for n in range(len(seen))]


@pytest.mark.parametrize("method", sorted({*offered_methods()} - AT_MOST_ONE_QUERY - REFUSED))
def test_every_method_can_be_stopped(models: Models, ask, method: str) -> None:
    network = models.load(LITE0).network
    before = hooks(network)
    calls = []

    def stop_at_the_second(_done: int) -> None:
        calls.append(_done)
        if len(calls) == 2:
            raise Stopped

    question = ask(method, layer=ON_FEW_CHANNELS, **CHEAP.get(method, {}))
    with pytest.raises(Stopped):
        explain(models, question, stop_at_the_second)
    assert len(calls) == 2, "It went on after it was stopped."
    assert hooks(network) == before
    after = explain(models, ask("grad_cam"))
    assert after.attribution.max() > 0


def test_measures_can_be_stopped(models: Models, ask) -> None:
    answer = explain(models, ask("grad_cam"))

    def stop(done: int) -> None:
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        measure(models, answer, 0.1, stop)
    with pytest.raises(Stopped):
        groups_of(models, explain(models, ask("group_cam", n_groups=2)), stop)
    assert hooks(models.load(LITE0).network).total() == 0


def test_warnings_are_part_of_the_answer(models: Models, tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "grey.png")
    grey = look(models, Photo("grey.png", tmp_path / "grey.png"), LITE0)
    answer = explain(models, Question(grey, "", 0, "group_cam", {"n_groups": 2}))
    assert any("maps of samples [0] are zero" in warning for warning in answer.warnings)


def test_what_a_method_refuses(models: Models, ask) -> None:
    with pytest.raises(ValueError, match="n_groups must be at least 1"):
        explain(models, ask("group_cam", n_groups=0))
    for target in (1000, -1):
        with pytest.raises(ValueError, match=f"no class {target}: efficientnet_lite0 has 1000"):
            explain(models, ask("grad_cam", target=target))


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.grouped])
def test_the_groups_make_up_the_map(models: Models, ask, method: str) -> None:
    answer = explain(models, ask(method, n_groups=5, denoise_percentile=None))
    groups = groups_of(models, answer)
    assert groups.masks.shape == (5, 224, 224)
    merged = torch.einsum("g,ghw->hw", groups.scores, groups.masks).relu()
    torch.testing.assert_close(answer.attribution[0], merged, rtol=1e-4, atol=1e-5)
    assert groups.standard_error.shape == (1, 224, 224)
    assert groups.standard_error.max() > 0


def test_curves_are_those_of_the_protocol(models: Models, ask) -> None:
    answer = explain(models, ask("grad_cam"))
    reported: list[int] = []
    result = measure(models, answer, 0.25, reported.append)
    expected = deletion_insertion(
        models.load(LITE0).network,
        answer.attribution[None],
        answer.question.view.inputs,
        281,
        protocol=DeletionInsertionProtocol(step=0.25),
    )
    torch.testing.assert_close(result, expected)
    assert reported[0] == 0
    assert len(reported) > 1


def test_the_value_at_a_pixel(models: Models, ask) -> None:
    answer = explain(models, ask("grad_cam"))
    values = answer.attribution[0].numpy()
    below = (values < values[20, 10]).mean()
    said = value_at(answer, 10, 20)
    assert said.startswith(f"x = 10, y = 20: {values[20, 10]:.4g}, higher than {below:.0%}")
    assert said.endswith(f"{values.max():.4g}.")


@pytest.mark.parametrize(("x", "y"), [(224, 0), (0, 224), (-1, 5)])
def test_there_is_no_value_beside_the_map(models: Models, ask, x: int, y: int) -> None:
    with pytest.raises(ValueError, match=f"There is no pixel {x}, {y} in a map of 224 x 224"):
        value_at(explain(models, ask("grad_cam")), x, y)
