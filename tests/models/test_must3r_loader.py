"""MUSt3R weight files: official layout, ours, other image sizes, and files that must be refused."""

import importlib.util
import json
import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import must3r_loader
from geometry_fusion.errors import InputError
from geometry_fusion.models.must3r import load_must3r, resized
from geometry_fusion.models.must3r_official import parse_constructor
from tests.conftest import ROOT

DATA = ROOT / "tests/data"
GOLDEN = load_file(DATA / "golden_tiny.safetensors")
FACTS = json.loads((DATA / "golden_tiny.json").read_text())
ENCODER = "Dust3rEncoder(img_size=(64, 64), embed_dim=48, depth=2, num_heads=3)"
DECODER = (
    "CausalMUSt3R(img_size=(64, 64), enc_embed_dim=48, embed_dim=32, output_dim=1792, depth=3, "
    "num_heads=2, "
    "feedback_type='single_mlp', memory_mode=\"kv\", mem_dropout=0.1, protected_imgs=1, "
    "use_mem_mask=True)"
)


def weights(part):
    return {k.removeprefix(part): v for k, v in GOLDEN.items() if k.startswith(part)}


def official(folder, **changes):
    content = {
        "encoder": weights("encoder."),
        "decoder": weights("decoder."),
        "args": Namespace(encoder=ENCODER, decoder=DECODER, lr=1e-4, epochs=3),
        "epoch": 3,
        **changes,
    }
    file = folder / "MUSt3R.pth"
    torch.save({k: v for k, v in content.items() if v is not None}, file)
    return file


def maps(networks, images=GOLDEN["in.landscape"][:2]):
    encoder, decoder = networks
    tokens, positions = encoder(images)
    shape = torch.tensor([images.shape[-2:]]).expand(1, len(images), 2)
    return decoder(tokens[None], positions[None], shape)


def test_official_layout_gives_the_golden_maps(tmp_path):
    networks = load_must3r(official(tmp_path))
    memory, raw = maps(networks)
    torch.testing.assert_close(raw, GOLDEN["b.init.pointmaps"], rtol=1e-5, atol=1e-5)
    assert memory.layers[0].shape[-1] == 64  # memory_mode="kv" of the string was heard
    for network in networks:
        assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_our_layout_gives_the_golden_maps(tmp_path):
    file = tmp_path / "tiny.safetensors"
    tensors = {k: v for k, v in GOLDEN.items() if k.startswith(("encoder.", "decoder."))}
    tensors["matcher.weight"] = torch.zeros(4, 48)  # only training needs it
    metadata = {part: json.dumps(FACTS[f"{part}_args"]) for part in ("encoder", "decoder")}
    save_file(tensors, file, metadata)
    _, raw = maps(load_must3r(file))
    torch.testing.assert_close(raw, GOLDEN["b.init.pointmaps"], rtol=1e-5, atol=1e-5)
    save_file({**tensors, "merger.weight": torch.zeros(1)}, file, metadata)
    with pytest.raises(InputError, match=r"unexpected tensor merger\.weight"):
        load_must3r(file)
    save_file(tensors, file)
    with pytest.raises(InputError, match="carries no encoder and decoder arguments"):
        load_must3r(file)


def test_another_image_size_compresses_positions(tmp_path):
    encoder, decoder = load_must3r(official(tmp_path), image_size=96)
    tokens, positions = encoder(GOLDEN["in.big"])
    torch.testing.assert_close(tokens, GOLDEN["e.tokens"], rtol=1e-5, atol=1e-5)
    _, raw = decoder(tokens[None], positions[None], torch.tensor([[[64, 96]]]))
    torch.testing.assert_close(raw, GOLDEN["e.pointmaps"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, size, pos_embed",
    [
        ({"img_size": (512, 512)}, 768, "RoPE100_512:768"),
        ({"img_size": (512, 512), "pos_embed": "RoPE100_224:512"}, 768, "RoPE100_224:768"),
        ({"img_size": (512, 512), "pos_embed": "RoPE50"}, 224, "RoPE50_512:224"),
        ({"img_size": (512, 512), "pos_embed": "RoPE100_224:512"}, 512, "RoPE100_224:512"),
        ({"img_size": (512, 512)}, 512, None),
    ],
)
def test_size_rewriting_follows_the_specification(arguments, size, pos_embed):
    found = resized(arguments, size, Path("x.pth"))
    assert found.get("pos_embed") == pos_embed and found["img_size"] == (size, size)


@pytest.mark.parametrize("size", [None, (512, 384), 512])
def test_size_rewriting_needs_a_square_training_size(size):
    arguments = {} if size is None else {"img_size": size}
    with pytest.raises(InputError, match=r"must be \(h, h\) to compute at another size"):
        resized(arguments, 768, Path("x.pth"))


@pytest.mark.parametrize(
    "text, said",
    [
        ("__import__('os').system('true')", "no constructor with keyword arguments"),
        ("MUSt3R(64)", "no constructor with keyword arguments"),
        ("MUSt3R(depth=3", "no constructor with keyword arguments"),
        ("MUSt3R(depth=open('x'))", "no literal; refused"),
        ("MUSt3R(**{'depth': 3, 'width': len('x')})", "no literal; refused"),
        ("MUSt3R(embed_dim={[]: 1})", "no literal; refused"),
        ("LinearModel(depth=3)", "unknown class 'LinearModel'; known are: MUSt3R"),
    ],
)
def test_constructor_strings_are_never_evaluated(text, said):
    with pytest.raises(InputError, match=said):
        parse_constructor(text, ("MUSt3R",), Path("x.pth"))


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile_code_ran",)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"args": Hostile()}, "refused: it is damaged or holds more than"),
        ({"args": None}, "lacks args; is it a MUSt3R checkpoint"),
        ({"decoder": None}, "lacks decoder"),
        ({"encoder": {"patch_embed.proj.weight": 3}}, "encoder is no state dict"),
        ({"args": Namespace(encoder=ENCODER)}, "args.decoder is no constructor string"),
        ({"args": Namespace(encoder="ViT(depth=1)", decoder=DECODER)}, "unknown class 'ViT'"),
        (
            {"args": Namespace(encoder=ENCODER, decoder="MUSt3R(depht=3)")},
            "decoder arguments do not fit: .*depht",
        ),
        (
            {"args": Namespace(encoder=ENCODER, decoder=DECODER.replace("depth=3", "depth=4"))},
            "missing .first: blocks_dec.3",
        ),
        (
            {"args": Namespace(encoder=ENCODER.replace("48", "-48"), decoder=DECODER)},
            "encoder arguments do not fit",
        ),
        (
            {"args": Namespace(encoder=ENCODER.replace("heads=3", "heads=5"), decoder=DECODER)},
            "num_heads 5: width 48",
        ),
        ({"args": Namespace(encoder=ENCODER.replace("48", "60"), decoder=DECODER)}, "other shape"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        load_must3r(official(tmp_path, **changes))
    assert "MUSt3R.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "hostile_code_ran").exists()


def test_missing_tensors_truncated_and_absent_files(tmp_path):
    partial = dict(list(weights("encoder.").items())[1:])
    file = official(tmp_path, encoder=partial)
    with pytest.raises(InputError, match="1 missing"):
        load_must3r(file)
    whole = official(tmp_path).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated or damaged|refused"):
        load_must3r(file)
    with pytest.raises(InputError, match="no such file"):
        load_must3r(tmp_path / "none.pth")
    with pytest.raises(InputError, match="backend 'jax': unknown; choose one of ours, naver"):
        load_must3r(file, backend="jax")


def test_models_are_named_with_their_cure(monkeypatch, tmp_path):
    with pytest.raises(
        InputError, match="must3r huge: unknown model; choose one of tiny, 224, 512"
    ):
        must3r_loader.model_file("huge")
    monkeypatch.setitem(must3r_loader.MODELS, "512", tmp_path / "MUSt3R_512.pth")
    with pytest.raises(InputError, match=r"fetch them with: python main\.py weights --must3r 512"):
        must3r_loader.model_file("512")


def test_the_official_package_computes_the_same_maps(tmp_path):
    """Where `must3r` is installed its maps must equal ours; elsewhere asking for it must name the
    cure.
    """
    file = official(tmp_path)
    if importlib.util.find_spec("must3r"):
        raw = maps(load_must3r(file, backend="naver"))[1]
        torch.testing.assert_close(raw, maps(load_must3r(file))[1], rtol=1e-5, atol=1e-5)
    else:
        with pytest.raises(InputError, match=r"pip install -r requirements-must3r\.txt"):
            load_must3r(file, backend="naver")
