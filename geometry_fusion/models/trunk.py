"""A convolutional trunk for SAM2's image encoder: timm's ResNet with narrow stages.

Plain convolutions suit CPUs, and Hiera's default windows pad heavily at 256 px. The two were not
compared in training. SAM2's neck needs only features at strides 4, 8, 16, 32 and their channels.
"""

import timm
import torch


class ResNetTrunk(torch.nn.Module):
    """ResNet-18 blocks with `channels` per stage, from the finest to the coarsest."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.body = timm.create_model(
            "resnet18",
            pretrained=False,
            features_only=True,
            out_indices=(1, 2, 3, 4),
            channels=tuple(channels),
        )
        self.channel_list = list(channels)[::-1]  # SAM2's neck counts from the coarsest level

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images [B, 3, H, W] -> features [B, C_i, H / s, W / s] for s = 4, 8, 16, 32."""
        return self.body(images)
