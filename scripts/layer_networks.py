"""The networks of the table of layers: torchvision's, timm's and Hugging Face's, random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from captum_groupcam.networks import BoxScore, SelectOutput

#: Sides of the input of torchvision's networks: what they were made for, or smaller. 160 if not
#: here, and where it is not admissible, the next that is.
SIDES = {
    "inception_v3": 224,
    "maxvit_t": 224,
    "vit_*_16": 112,
    "vit_*_32": 224,
    "vit_h_14": 112,
    "regnet_y_128gf": 128,
    "vgg*": 128,
    "regnet_*_16gf": 128,
    "regnet_*_32gf": 128,
    "resne*101*": 128,
    "resnet152": 128,
    "wide_*": 128,
    "efficientnet_v2_[ml]": 128,
}
VIDEOS = {"mvit*": (16, 224), "s3d": (16, 224), "swin3d*": (16, 96), "*": (16, 64)}

#: Architectures of timm.
TIMM = (  # noqa: SIM905 - a list would be a hundred lines
    "bat_resnext26ts beit_base_patch16_224 botnet26t_256 cait_xxs24_224 coat_lite_tiny "
    "coatnet_pico_rw_224 convit_tiny convmixer_768_32 convnext_atto convnextv2_atto "
    "crossvit_tiny_240 cspdarknet53 cspresnet50 darknet53 davit_tiny "
    "deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 edgenext_xx_small efficientformer_l1 "
    "efficientformerv2_s0 efficientnet_b0 efficientnet_lite0 efficientvit_b0 efficientvit_m0 "
    "ese_vovnet19b_dw eva02_tiny_patch14_224 fastvit_t8 gcvit_xxtiny ghostnet_100 gmlp_ti16_224 "
    "hgnetv2_b0 hiera_tiny_224 hrnet_w18_small lcnet_050 levit_128s levit_conv_128s "
    "mambaout_femto maxvit_rmlp_pico_rw_256 mixer_s32_224 mobilenetv1_100 mobilenetv2_100 "
    "mobilenetv3_small_100 mobilenetv4_conv_small mobilevit_xxs mobilevitv2_050 mobileone_s0 "
    "nest_tiny nfnet_l0 pit_ti_224 poolformer_s12 pvt_v2_b0 regnetx_002 regnety_002 "
    "repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_14w_8s resmlp_12_224 resnetv2_50 "
    "rexnet_100 shvit_s1 skresnet18 starnet_s1 swiftformer_xs swin_tiny_patch4_window7_224 "
    "swinv2_tiny_window8_256 tf_efficientnet_b5 tiny_vit_5m_224 tnt_s_patch16_224 "
    "twins_svt_small visformer_tiny vit_small_patch16_224 xcit_nano_12_p16_224 "
).split()

#: Class, class of its configuration, and what differs from the default: small, but of full width
#: where widths have misled (a pooled vector of 784 or 1024 looks like tokens).
HUGGING_FACE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "BEiT": ("BeitForImageClassification", "BeitConfig", {"num_hidden_layers": 2}),
    "BiT": ("BitForImageClassification", "BitConfig", {"depths": [1, 1, 1, 1]}),
    "CLIP": (
        "CLIPForImageClassification",
        "CLIPConfig",
        {"vision_config": {"num_hidden_layers": 2}},
    ),
    "ConvNeXt": ("ConvNextForImageClassification", "ConvNextConfig", {"depths": [1, 1, 1, 1]}),
    "ConvNeXt V2": (
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        {"depths": [1, 1, 1, 1]},
    ),
    "CvT": ("CvtForImageClassification", "CvtConfig", {"depth": [1, 2, 3]}),
    "Data2Vec": (
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        {"num_hidden_layers": 2},
    ),
    "DeiT": ("DeiTForImageClassification", "DeiTConfig", {"num_hidden_layers": 2}),
    "Hiera": ("HieraForImageClassification", "HieraConfig", {"depths": [1, 1, 2, 1]}),
    "DINOv2": ("Dinov2ForImageClassification", "Dinov2Config", {"num_hidden_layers": 2}),
    "DINOv2 with registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {"num_hidden_layers": 2, "image_size": 224},
    ),
    "EfficientNet": (
        "EfficientNetForImageClassification",
        "EfficientNetConfig",
        {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "image_size": 224},
    ),
    "FocalNet-B": ("FocalNetForImageClassification", "FocalNetConfig", {"embed_dim": 128}),
    "I-JEPA": ("IJepaForImageClassification", "IJepaConfig", {"num_hidden_layers": 2}),
    "LeViT": ("LevitForImageClassification", "LevitConfig", {}),
    "LeViT distilled": ("LevitForImageClassificationWithTeacher", "LevitConfig", {}),
    "MobileNet V1": ("MobileNetV1ForImageClassification", "MobileNetV1Config", {}),
    "MobileNet V2": ("MobileNetV2ForImageClassification", "MobileNetV2Config", {}),
    "MobileViT": ("MobileViTForImageClassification", "MobileViTConfig", {"image_size": 256}),
    "MobileViT V2": ("MobileViTV2ForImageClassification", "MobileViTV2Config", {"image_size": 256}),
    "PoolFormer": ("PoolFormerForImageClassification", "PoolFormerConfig", {}),
    "PVT": ("PvtForImageClassification", "PvtConfig", {"depths": [1, 1, 2, 1]}),
    "PVT V2": ("PvtV2ForImageClassification", "PvtV2Config", {}),
    "RegNet": ("RegNetForImageClassification", "RegNetConfig", {"depths": [1, 1, 2, 1]}),
    "ResNet": ("ResNetForImageClassification", "ResNetConfig", {"depths": [1, 1, 1, 1]}),
    "SegFormer": ("SegformerForImageClassification", "SegformerConfig", {}),
    "SigLIP": (
        "SiglipForImageClassification",
        "SiglipConfig",
        {"vision_config": {"num_hidden_layers": 2}},
    ),
    "SwiftFormer": ("SwiftFormerForImageClassification", "SwiftFormerConfig", {}),
    "Swin-B": (
        "SwinForImageClassification",
        "SwinConfig",
        {"embed_dim": 128, "depths": [1, 1, 2, 1], "num_heads": [4, 8, 16, 32]},
    ),
    "Swin, 784 wide": (
        "SwinForImageClassification",
        "SwinConfig",
        {"embed_dim": 98, "depths": [1, 1, 2, 1], "num_heads": [7, 7, 14, 14]},
    ),
    "Swin V2-B": (
        "Swinv2ForImageClassification",
        "Swinv2Config",
        {"embed_dim": 128, "depths": [1, 1, 2, 1], "num_heads": [4, 8, 16, 32], "image_size": 256}
        | {"window_size": 8},
    ),
    "TimeSformer": (
        "TimesformerForVideoClassification",
        "TimesformerConfig",
        {"num_hidden_layers": 2, "image_size": 64, "patch_size": 8, "num_frames": 4},
    ),
    "VideoMAE": (
        "VideoMAEForVideoClassification",
        "VideoMAEConfig",
        {"num_hidden_layers": 2, "image_size": 64, "patch_size": 8, "num_frames": 8},
    ),
    "ViT": ("ViTForImageClassification", "ViTConfig", {"num_hidden_layers": 2}),
    "ViT MSN": ("ViTMSNForImageClassification", "ViTMSNConfig", {"num_hidden_layers": 2}),
    "ViViT": (
        "VivitForVideoClassification",
        "VivitConfig",
        {"num_hidden_layers": 2, "image_size": 64, "num_frames": 8},
    ),
}


@dataclass(frozen=True)
class Entry:
    """One network of the table.

    Attributes:
        source (str): Where it comes from.
        name (str): Its name there.
        build (Callable): Makes it, with random weights.
        shape (tuple of int): Of one input, without the samples.
        more (Callable): What it takes besides, made of the network and the input.
    """

    source: str
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    more: Callable[[nn.Module, Tensor], tuple[Tensor, ...]] = field(default=lambda *_: ())


class FramesSecond(nn.Module):
    """A network for N x frames x C x H x W that takes N x C x frames x H x W."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Any:
        """Passes the clip on."""
        return self.network(clip.transpose(1, 2))


def entries() -> list[Entry]:
    """All networks of the table."""
    return [*_torchvision(), *_timm(), *_hugging_face()]


def _torchvision() -> Iterator[Entry]:
    models = torchvision.models
    plain = {"weights": None}
    for name in models.list_models(module=models):
        side = _matching(SIDES, name, 160)
        more: dict[str, Any] = {"image_size": side} if name.startswith("vit") else {}
        if name in ("googlenet", "inception_v3"):
            more = {"init_weights": False}
        build = partial(models.get_model, name, **plain, **more)
        yield Entry("torchvision", name, build, (3, side, side))
    for name in models.list_models(module=models.video):
        frames, side = _matching(VIDEOS, name, None)
        build = partial(models.get_model, name, **plain)
        yield Entry("torchvision video", name, build, (3, frames, side, side))
    for name in models.list_models(module=models.segmentation):
        # As with its published weights, which have the auxiliary head.
        aux = {} if name.startswith("lraspp") else {"aux_loss": True}
        build = partial(_selected, name, "out", weights_backbone=None, **plain, **aux)
        yield Entry("torchvision segmentation", name, build, (3, 128, 128))
    for name in models.list_models(module=models.detection):
        build = partial(_detector, name)
        side = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}.get(name, 160)
        yield Entry("torchvision detection", name, build, (3, side, side), _best_box)


def _matching(patterns: dict[str, Any], name: str, default: Any) -> Any:
    """The value of the first pattern that a name matches."""
    return next((v for pattern, v in patterns.items() if fnmatch(name, pattern)), default)


def _selected(name: str, key: str, **options: Any) -> nn.Module:
    return SelectOutput(torchvision.models.get_model(name, **options), key)


def _detector(name: str) -> nn.Module:
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    if name.startswith("ssd"):
        options |= {"score_thresh": 0.0, "topk_candidates": 50}
    elif "rcnn" in name:
        # As it is given: neither enlarged nor padded.
        options |= {"min_size": 160, "max_size": 160, "box_score_thresh": 0.0}
        options |= {"rpn_post_nms_top_n_test": 50}
        if not name.startswith("faster"):
            # The heads for masks and keypoints, which come after the scores, take seconds a box.
            options |= {"box_detections_per_img": 10}
    else:
        options |= {"min_size": 160, "max_size": 160, "score_thresh": 0.0}
    return BoxScore(torchvision.models.get_model(name, **options))


def _best_box(network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        (found,) = network.model(images)  # type: ignore[operator]
    return found["boxes"][:1], found["labels"][:1]


def _timm() -> Iterator[Entry]:
    import timm

    for name in TIMM:
        shape = timm.get_pretrained_cfg(name).input_size
        yield Entry("timm", name, partial(timm.create_model, name), tuple(shape))


def _hugging_face() -> Iterator[Entry]:
    import transformers

    for name, (network, config, options) in HUGGING_FACE.items():
        made = getattr(transformers, config)(**options)
        vision = getattr(made, "vision_config", made)
        side = getattr(vision, "image_size", 224)
        side = side[0] if isinstance(side, (tuple, list)) else side
        frames = getattr(vision, "num_frames", None)
        shape = (3, side, side) if frames is None else (3, frames, side, side)
        build = partial(_of_hugging_face, getattr(transformers, network), made, shape)
        yield Entry("Hugging Face", name, build, shape)


def _of_hugging_face(network: Any, config: Any, shape: tuple[int, ...]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = network(config)
    video = len(shape) == 4
    whole = SelectOutput(FramesSecond(made) if video else made, "logits")
    _awake(whole, torch.rand(2, *shape))
    return whole


def _awake(network: nn.Module, images: Tensor) -> None:
    """Gives weights a variance that keeps values alive, and batch norms the statistics of these.

    Hugging Face's initialisation, of standard deviation 0.02, lets them vanish in some networks.
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
