"""The official MUSt3R behind `backend="naver"`, by a stand-in for its package, and our weights in
the published layout. Where the real package is installed it is compared with ours as well.
"""

import importlib.util
import json
import sys
from enum import Enum
from itertools import islice
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from geometry_fusion.errors import InputError
from geometry_fusion.geometry.must3r_stream import Must3rStream
from geometry_fusion.io.video_file import VideoFile
from geometry_fusion.models.must3r_file import read_ours
from geometry_fusion.models.must3r_official import (
    adapt,
    official_arguments,
    read_official,
    save_official,
)
from geometry_fusion.must3r import Dust3rEncoder, Memory, MUSt3R
from must3r_loader import load_must3r, model_file
from tests.conftest import ROOT, error_line, run_script

TINY = model_file("tiny")
VIDEO = ROOT / "videos/samples/twins/video.mp4"
ARGUMENTS = {
    "encoder": {"img_size": [64, 64], "embed_dim": 48, "depth": 1, "num_heads": 3},
    "decoder": {
        "img_size": [64, 64],
        "enc_embed_dim": 48,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "output_dim": None,
    },
}


class Activation(Enum):
    EXPONENTIAL = "norm_exp"
    LINEAR = "linear"


class OfficialEncoder(Dust3rEncoder):
    """Without `img_size`; sizes are tuples, as in constructor strings."""

    def __init__(self, img_size=(224, 224), **arguments):
        assert isinstance(img_size, tuple)
        super().__init__(img_size, **arguments)
        del self.img_size


class OfficialDecoder(MUSt3R):
    """The activation is a member of an enum; memory goes in and out as five plain items, whole
    copies of tensors; there is no `read_apart`.
    """

    def __init__(
        self, img_size=(224, 224), pointmaps_activation=Activation.EXPONENTIAL, **arguments
    ):
        assert isinstance(img_size, tuple) and arguments.get("output_dim", 1792) == 1792
        super().__init__(img_size, pointmaps_activation=pointmaps_activation.value, **arguments)
        self.pointmaps_activation = pointmaps_activation

    read_apart = None  # the official class has no such method

    def forward(
        self, tokens, positions, true_shape, current=None, render=False, return_feats=False
    ):
        known = None
        if current is not None:
            layers, labels, num_images, protected_images, protected_tokens = current
            assert (protected_images, protected_tokens) == (num_images, labels.shape[1])
            known = Memory([layer.clone() for layer in layers], labels.clone(), num_images)
        memory, *others = super().forward(
            tokens, positions, true_shape, known, render, return_feats
        )
        if render:
            return current, *others
        layers = [layer.clone() for layer in memory.layers]
        count, length = memory.num_images, memory.num_tokens
        return (layers, memory.labels.clone(), count, count, length), *others


@pytest.fixture
def stand_in(monkeypatch):
    """`import must3r.model` finds the two classes above."""
    package, model = ModuleType("must3r"), ModuleType("must3r.model")
    package.model = model
    model.Dust3rEncoder, model.MUSt3R = OfficialEncoder, OfficialDecoder
    monkeypatch.setitem(sys.modules, "must3r", package)
    monkeypatch.setitem(sys.modules, "must3r.model", model)


@pytest.fixture
def published(tmp_path):
    """The tiny weights in the published layout."""
    file = tmp_path / "tiny.pth"
    save_official(TINY, file)
    return file


def small_file(folder, **changes):
    """Random weights of a small MUSt3R in our layout. changes: to the decoder's arguments."""
    torch.manual_seed(0)
    arguments = {**ARGUMENTS, "decoder": {**ARGUMENTS["decoder"], **changes}}
    networks = {
        "encoder": Dust3rEncoder(**ARGUMENTS["encoder"]),
        "decoder": MUSt3R(**arguments["decoder"]),
    }
    tensors = {
        f"{part}.{name}": tensor
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    file = folder / "small.safetensors"
    save_file(tensors, file, {part: json.dumps(arguments[part]) for part in networks})
    return file


def stream(networks, **options):
    return Must3rStream(*networks, levels=(0, len(networks[1].blocks_dec)), **options)


def check_alike(networks, references, count, **options):
    """The same keyframes, and points within 1e-6, over the first `count` frames of `twins`."""
    found, wanted = (stream(pair, **options) for pair in (networks, references))
    for index, image in enumerate(islice(VideoFile(VIDEO), count)):
        answer, reference = found.push(index, image), wanted.push(index, image)
        torch.testing.assert_close(answer.points, reference.points, rtol=0, atol=1e-6)
        assert answer.camera.focal == pytest.approx(reference.camera.focal, rel=1e-5)
    assert found.keyframes == wanted.keyframes and len(wanted.keyframes) > 2
    assert torch.equal(found.memory.labels, wanted.memory.labels)


def test_our_weights_come_back_from_the_published_layout(published):
    for found, wanted in zip(load_must3r(published), load_must3r(TINY)):
        found, wanted = found.state_dict(), wanted.state_dict()
        assert list(found) == list(wanted)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_published_layout_holds_plain_constructor_strings(published):
    content = torch.load(published, weights_only=False)
    assert sorted(content) == ["args", "decoder", "encoder"]
    assert content["args"].encoder.startswith("Dust3rEncoder(img_size=(128, 128), patch_size=16, ")
    assert content["args"].decoder.startswith("CausalMUSt3R(img_size=(128, 128), ")
    # What the official loader looks for, which first removes all spaces.
    assert "landscape_only=False" in content["args"].decoder
    assert "output_dim=1792" in content["args"].decoder
    assert all(t.dtype == torch.float32 for t in content["encoder"].values())
    arguments, _ = read_official(published)
    assert arguments["encoder"]["img_size"] == (128, 128)


def test_no_more_is_written_than_the_networks_need(tmp_path):
    file = tmp_path / "small.pth"
    save_official(small_file(tmp_path), file)
    weights = sum(
        tensor.numel() * 4 for network in load_must3r(file) for tensor in network.parameters()
    )
    assert weights < file.stat().st_size < 1.2 * weights
    assert sorted(f.name for f in tmp_path.iterdir()) == ["small.pth", "small.safetensors"]


@pytest.mark.parametrize("options", [{}, {"join_every": 4}])
def test_the_official_traits_give_the_same_stream(published, stand_in, options):
    networks = load_must3r(published, backend="naver")
    assert isinstance(networks[0], OfficialEncoder) and isinstance(networks[1], OfficialDecoder)
    check_alike(networks, load_must3r(TINY), 12, **options)


def test_the_official_classes_take_files_of_ours_and_other_sizes(tmp_path, stand_in):
    encoder, decoder = load_must3r(
        small_file(tmp_path), image_size=96, backend="naver", memory_mode="kv"
    )
    assert encoder.img_size == (96, 96) and decoder.memory_mode == "kv"
    assert decoder.pointmaps_activation == "norm_exp"


def test_without_the_adaptation_the_stream_fails():
    """In the two places where it failed on the real package."""
    encoder, decoder = load_must3r(TINY)
    arguments, weights = read_ours(TINY)
    arguments = {part: official_arguments(arguments[part], part, TINY) for part in arguments}
    official = OfficialEncoder(**arguments["encoder"]), OfficialDecoder(**arguments["decoder"])
    for part, network in zip(("encoder", "decoder"), official):
        network.load_state_dict(weights[part])
    image = next(iter(VideoFile(VIDEO)))
    with pytest.raises(AttributeError, match="img_size"):
        stream((official[0], decoder))
    with pytest.raises(KeyError, match="norm_exp"):
        stream((encoder, official[1])).push(0, image)
    assert official[1].read_apart is None
    adapt(*official, arguments)
    stream(official).push(0, image)


def test_an_encoder_without_a_size_has_the_default():
    modules = torch.nn.Identity(), torch.nn.Identity()
    adapt(*modules, {"encoder": {}, "decoder": {}})
    assert modules[0].img_size == (224, 224) and modules[1].pointmaps_activation == "norm_exp"


def test_a_package_without_the_classes_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "must3r", ModuleType("must3r"))
    monkeypatch.setitem(sys.modules, "must3r.model", ModuleType("must3r.model"))
    with pytest.raises(InputError, match=r"pip install -r requirements-must3r\.txt"):
        load_must3r(TINY, backend="naver")


def test_what_cannot_be_written_is_refused(tmp_path):
    out = tmp_path / "out.pth"
    with pytest.raises(InputError, match="no such file"):
        save_official(tmp_path / "none.safetensors", out)
    with pytest.raises(InputError, match="carries no encoder and decoder arguments"):
        save_official(ROOT / "checkpoints/sam2_tiny.safetensors", out)
    with pytest.raises(InputError, match=r"out\.pth: must be a MUSt3R file of ours"):
        save_official(out, tmp_path / "again.pth")
    linear = small_file(tmp_path, pointmaps_activation="linear")
    with pytest.raises(InputError, match=r"small\.safetensors: pointmaps_activation=linear"):
        save_official(linear, out)
    cut = small_file(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated or not safetensors"):
        save_official(cut, out)
    assert not out.exists()


def test_incomplete_weights_are_refused(tmp_path):
    source = small_file(tmp_path)
    arguments, weights = read_ours(source)
    del weights["decoder"]["head_dec.proj.bias"]
    tensors = {f"{part}.{name}": t for part in weights for name, t in weights[part].items()}
    save_file(tensors, source, {part: json.dumps(value) for part, value in arguments.items()})
    with pytest.raises(InputError, match=r"1 missing \(first: head_dec\.proj\.bias\)"):
        save_official(source, tmp_path / "out.pth")


def test_the_input_is_never_replaced(tmp_path):
    source = small_file(tmp_path)
    before = source.read_bytes()
    (tmp_path / "link.pth").symlink_to(source)
    for out in (source, tmp_path / "link.pth"):
        with pytest.raises(InputError, match="would replace the input"):
            save_official(source, out)
    with pytest.raises(InputError, match=r"must end in \.pth"):
        save_official(source, tmp_path / "out.safetensors")
    assert source.read_bytes() == before


def test_the_command_writes_the_file_or_one_line(tmp_path):
    module, out = "geometry_fusion.models.must3r_official", tmp_path / "tiny.pth"
    done = run_script("-m", module, TINY, out)
    assert done.returncode == 0 and done.stdout.strip() == str(out), done.stderr
    load_must3r(out)
    line = error_line(run_script("-m", module, tmp_path / "none.safetensors", out))
    assert "none.safetensors: no such file" in line


@pytest.mark.skipif(
    importlib.util.find_spec("must3r") is None,
    reason="needs the official package: pip install -r requirements-must3r.txt",
)
def test_the_official_package_gives_the_same_stream(published):
    check_alike(load_must3r(published, backend="naver"), load_must3r(TINY), 50)
