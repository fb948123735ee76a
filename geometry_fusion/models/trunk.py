"""Convolutional trunks for SAM2's image encoder, from timm.

Plain convolutions suit CPUs, and Hiera's default windows pad heavily at 256 px. The two were not
compared in training. SAM2's neck needs only features at strides 4, 8, 16, 32 and their channels.
"""

import timm
import torch

STAGES = (1, 2, 3, 4)  # timm's numbers of the features at strides 4, 8, 16, 32


class ResNetTrunk(torch.nn.Module):
    """ResNet-18 blocks with `channels` per stage, from the finest to the coarsest."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.body = timm.create_model(
            "resnet18",
            pretrained=False,
            features_only=True,
            out_indices=STAGES,
            channels=tuple(channels),
        )
        self.channel_list = list(channels)[::-1]  # SAM2's neck counts from the coarsest level

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images [B, 3, H, W] -> features [B, C_i, H / s, W / s] for s = 4, 8, 16, 32."""
        return self.body(images)


class EfficientNetTrunk(torch.nn.Module):
    """One of timm's EfficientNets without its classifier. name: as timm has it.

    Its first weights may come from photographs (geometry_fusion.training.trunk_weights). Batch
    statistics stay those of the first weights: the few, similar frames of a training batch have
    others.
    """

    def __init__(self, name: str = "tf_efficientnet_lite0"):
        super().__init__()
        self.body = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=STAGES
        )
        self.channel_list = self.body.feature_info.channels()[::-1]

    def train(self, mode: bool = True) -> "EfficientNetTrunk":
        """As torch's, but batch normalisation stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images [B, 3, H, W] -> features [B, C_i, H / s, W / s] for s = 4, 8, 16, 32."""
        return self.body(images)
