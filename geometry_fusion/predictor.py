"""The video predictor: SAM2's own, reading frames when they are needed.

`LazyVideoPredictor` keeps SAM2's public API (`init_state`, `add_new_points_or_box`, `add_new_mask`,
`propagate_in_video`, `reset_state`, `remove_object`). Its masks are SAM2's, bit for bit.
"""

from collections import OrderedDict

import numpy as np
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

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


class LazyVideoPredictor(SAM2VideoPredictor):
    """As SAM2VideoPredictor (sam2 1.1.0), plus: `init_state` also takes frames that are decoded on demand.

    And one crash less: SAM2 keeps memory in bf16, which object pointers beside it promote to fp32. An object that is
    prompted later than another has none on earlier frames, and fp32 attention then refused its memory.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.memory_attention.register_forward_pre_hook(_memory_in_the_features_precision, with_kwargs=True)

    @torch.inference_mode()
    def init_state(self, video_path, **options) -> dict:
        """As SAM2VideoPredictor.init_state; `video_path` may also be RGB frames with `len`, `[i]`, `.size`."""
        if isinstance(video_path, (str, bytes)) or not hasattr(video_path, "size"):
            return super().init_state(video_path, **options)
        width, height = video_path.size
        state = {
            "images": LazyFrames(video_path, self.image_size),
            "num_frames": len(video_path),
            "offload_video_to_cpu": True,
            "offload_state_to_cpu": False,
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": self.device,
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
        self._get_image_feature(state, frame_idx=0, batch_size=1)
        return state
