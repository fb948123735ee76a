"""The video predictor: SAM2's own, reading frames when they are needed and fusing geometry into their features.

`GeometryVideoPredictor` keeps SAM2's public API (`init_state`, `add_new_points_or_box`, `add_new_mask`,
`propagate_in_video`, `reset_state`, `remove_object`). Without geometry, or with an untrained merger, its masks are
SAM2's bit for bit: both arms of a comparison run this one class.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor

from geometry_fusion.errors import InputError
from geometry_fusion.frame_folder import FrameFolder
from geometry_fusion.geometry import GeometrySource, NoGeometry
from geometry_fusion.types import GeometryFrame

# SAM2's normalisation of RGB in 0..1 (sam2.utils.misc.load_video_frames).
IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(rgb: np.ndarray) -> np.ndarray:
    """RGB uint8 or float 0..255 [..., 3] -> float32 as SAM2's image encoder expects it."""
    return (rgb.astype(np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD


class LazyFrames:
    """Frames as SAM2's inference state holds them, decoded on access: [i] -> [3, S, S] float32."""

    def __init__(self, frames, image_size: int):
        self._frames, self._size = frames, image_size

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        # PIL's default filter, because sam2.utils.misc.load_video_frames uses it: other filters change masks.
        square = Image.fromarray(self._frames[index]).resize((self._size, self._size))
        return torch.from_numpy(normalise(np.asarray(square))).permute(2, 0, 1)


def _memory_in_the_features_precision(module, args, kwargs):
    return args, {**kwargs, "memory": kwargs["memory"].to(kwargs["curr"][0].dtype)}


class KeepAppearance(torch.nn.Module):
    """The merger of the baseline arm."""

    def forward(self, appearance: Tensor, frame: GeometryFrame) -> Tensor:
        return appearance


class GeometryVideoPredictor(SAM2VideoPredictor):
    """As SAM2VideoPredictor (sam2 1.1.0), plus: geometry fused into the top-level feature of every frame.

    Each inference state has a geometry source of its own. The merged feature replaces what memory attention, memory
    encoder and mask decoder read at stride 16; the features at stride 4 and 8 stay SAM2's. `init_state` also takes
    frames that are decoded on demand.

    And one crash less: SAM2 keeps memory in bf16, which object pointers beside it promote to fp32. An object that is
    prompted later than another has none on earlier frames, and fp32 attention then refused its memory.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.memory_attention.register_forward_pre_hook(_memory_in_the_features_precision, with_kwargs=True)
        self._make_source: Callable[[], GeometrySource] = NoGeometry
        self.merger: torch.nn.Module = KeepAppearance()
        self.source: GeometrySource | None = None  # of the latest `init_state`

    def fuse(self, merger: torch.nn.Module, make_source: Callable[[], GeometrySource]) -> None:
        """From now on, new inference states fuse what a fresh `make_source()` knows through `merger`."""
        self.merger, self._make_source = merger.to(self.device).eval(), make_source

    @torch.inference_mode()
    def init_state(self, video_path, offload_video_to_cpu=False, offload_state_to_cpu=False, **options) -> dict:
        """As SAM2VideoPredictor.init_state; `video_path` may also be RGB frames with `len`, `[i]`, `.size`.

        Frames are decoded on demand and always stay off the device. Raises InputError for a video file where geometry
        is fused: it needs the frames as they were filmed, in any order.
        """
        self.source = source = self._make_source()
        if not hasattr(video_path, "size"):
            if isinstance(self.merger, KeepAppearance):
                return super().init_state(video_path, offload_video_to_cpu, offload_state_to_cpu, **options)
            if not Path(video_path).is_dir():
                raise InputError(f"{video_path}: no folder of frames; extract them: python main.py frames {video_path}")
            video_path = FrameFolder(Path(video_path))
        width, height = video_path.size
        return {
            "images": LazyFrames(video_path, self.image_size),
            "frames": video_path,
            "geometry": source,
            "num_frames": len(video_path),
            "offload_video_to_cpu": True,
            "offload_state_to_cpu": offload_state_to_cpu,
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": torch.device("cpu") if offload_state_to_cpu else self.device,
            "point_inputs_per_obj": {},
            "mask_inputs_per_obj": {},
            "cached_features": {},
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            "output_dict_per_obj": {},
            "temp_output_dict_per_obj": {},
            "frames_tracked_per_obj": {},
        }

    def _get_image_feature(self, inference_state, frame_idx, batch_size):
        """As SAM2VideoPredictor._get_image_feature, plus: fuse this frame's geometry once, before caching."""
        if "geometry" in inference_state and frame_idx not in inference_state["cached_features"]:
            image = inference_state["images"][frame_idx].to(self.device).float().unsqueeze(0)
            backbone_out = self.forward_image(image)
            frame = inference_state["geometry"].push(frame_idx, inference_state["frames"][frame_idx])
            put_merged(backbone_out, self.merger(backbone_out["backbone_fpn"][-1], frame.to(self.device)))
            inference_state["cached_features"] = {frame_idx: (image, backbone_out)}
        return super()._get_image_feature(inference_state, frame_idx, batch_size)

    @torch.inference_mode()
    def reset_state(self, inference_state) -> None:
        """As SAM2VideoPredictor.reset_state, plus: the next frame is the reference of a new geometry."""
        super().reset_state(inference_state)
        if "geometry" in inference_state:
            inference_state["geometry"].reset()
            inference_state["cached_features"].clear()


def put_merged(backbone_out: dict, merged: Tensor) -> None:
    """Let the merged feature stand where SAM2's top-level feature stood."""
    backbone_out["backbone_fpn"][-1] = backbone_out["vision_features"] = merged
