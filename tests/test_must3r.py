"""Our MUSt3R against golden vectors of the official one (tests/data/golden_tiny.*,
docs/must3r_spec.md).
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geometry_fusion.must3r import Dust3rEncoder, MUSt3R, camera_to_world, focal_length, pointmaps
from geometry_fusion.nn import RoPE2D
from tests.must3r_video import process_video

DATA = Path(__file__).parent / "data"
GOLDEN = load_file(DATA / "golden_tiny.safetensors")
FACTS = json.loads((DATA / "golden_tiny.json").read_text())
LANDSCAPE, PORTRAIT, WIDE, BIG = (48, 64), (64, 48), (32, 64), (64, 96)


# The specification asks for 1e-5, which processors with AVX-512 keep. Those with AVX2 alone round
# in another order: 1 of 384 numbers was off by 1.3e-5. The mildest typical mistake gives 5e-5.
ROUNDING = 2e-5


def close(found, name):
    torch.testing.assert_close(
        found, GOLDEN[name], rtol=1e-5, atol=ROUNDING, msg=lambda text: f"{name}: {text}"
    )


def weights(prefix):
    return {k.removeprefix(prefix): v for k, v in GOLDEN.items() if k.startswith(prefix)}


def networks(**changes):
    common = {k: v for k, v in changes.items() if k in ("img_size", "pos_embed")}
    encoder = Dust3rEncoder(**{**FACTS["encoder_args"], **common})
    decoder = MUSt3R(**{**FACTS["decoder_args"], **changes})
    encoder.load_state_dict(weights("encoder."))
    decoder.load_state_dict(weights("decoder."))
    return encoder.eval(), decoder.eval()


@pytest.fixture
def tiny():
    with torch.no_grad():
        yield networks()


def encoded(encoder, images, hw):
    """Tokens, positions and true shapes of images [n, 3, H, W] as one batch item."""
    tokens, positions = encoder(images)
    return tokens[None], positions[None], torch.tensor([hw]).repeat(len(images), 1)[None]


def check_memory(memory, case, layers=3):
    for layer in range(layers):
        close(memory.layers[layer], f"{case}.mem.{layer}")
    assert torch.equal(memory.labels, GOLDEN[f"{case}.labels"])


def check_counters(memory, case):
    _, _, images, protected_images, protected_tokens = memory
    assert FACTS["values"][f"{case}.counters"] == {
        "mem_nimgs": images,
        "protected_imgs": protected_images,
        "protected_tokens": protected_tokens,
    }


def check_post(raw, case, names=("pts3d", "pts3d_local", "conf", "focal", "c2w")):
    """Points, focal length and pose of raw maps.

    The activation multiplies the network's rounding error, which differs between processors, by
    about a point's distance: points count as equal within 1e-5 of that. Number by number they are
    compared on the golden maps.
    """
    golden_raw = GOLDEN.get(f"{case}.pointmaps", raw)
    for given, strict in ((golden_raw, True), (raw, False)):
        maps = pointmaps(given)
        found = {
            "pts3d": maps.points,
            "pts3d_local": maps.local,
            "conf": maps.confidence,
            "focal": focal_length(maps.local),
            "c2w": camera_to_world(maps.local, maps.points, maps.confidence),
        }
        for name in names:
            if strict or not name.startswith("pts3d"):
                close(found[name], f"{case}.post.{name}")
            else:
                wanted = GOLDEN[f"{case}.post.{name}"]
                off = (found[name] - wanted).norm(dim=-1) / (1 + wanted.norm(dim=-1))
                assert off.max() <= 1e-5, (case, name, float(off.max()))


@torch.no_grad()
def test_rotary_code_turns_rows_and_columns():
    for name, pos_embed in (("f0_1", "RoPE100"), ("f0_64_96", "RoPE100_64:96")):
        rope = RoPE2D(pos_embed)
        close(rope(GOLDEN["rope.in"], rope.angles(GOLDEN["rope.pos"], 16)), f"rope.out.{name}")


def test_encoder_gives_the_official_tokens(tiny):
    for name in ("landscape", "portrait"):
        tokens, positions = tiny[0](GOLDEN[f"in.{name}"])
        close(tokens, f"enc.{name}.tokens")
        assert torch.equal(positions, GOLDEN[f"enc.{name}.pos"])


def test_portraits_stored_in_landscape_give_the_tokens_of_the_true_portrait(tiny):
    encoder = Dust3rEncoder(**{**FACTS["encoder_args"], "patch_embed": "ManyAR_PatchEmbed"}).eval()
    encoder.load_state_dict(weights("encoder."))
    portrait = GOLDEN["in.portrait"]
    mixed = torch.cat((portrait.transpose(2, 3), GOLDEN["in.landscape"][:1]))
    tokens, positions = encoder(mixed, torch.tensor([PORTRAIT, LANDSCAPE]))
    wanted, wanted_positions = tiny[0](portrait)
    torch.testing.assert_close(tokens[:1], wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(positions[:1], wanted_positions)
    torch.testing.assert_close(tokens[1:], GOLDEN["enc.landscape.tokens"][:1], rtol=1e-5, atol=1e-5)


def test_one_image_alone(tiny):
    encoder, decoder = tiny
    memory, raw, features = decoder(
        *encoded(encoder, GOLDEN["in.landscape"][:1], LANDSCAPE), return_feats=True
    )
    close(raw, "a.pointmaps")
    for level, feature in enumerate(features):
        close(feature, f"a.feats.{level}")
    check_memory(memory, "a")
    check_counters(memory, "a")
    check_post(raw, "a")


@pytest.mark.parametrize("mode", ["norm_y", "kv", "raw"])
@torch.no_grad()
def test_init_add_render_in_every_memory_mode(mode):
    encoder, decoder = networks(memory_mode=mode)
    tokens, positions, shape = encoded(encoder, GOLDEN["in.landscape"], LANDSCAPE)
    first, third = (slice(None), slice(0, 2)), (slice(None), slice(2, 3))

    memory, raw, features = decoder(
        tokens[first], positions[first], shape[first], return_feats=True
    )
    close(raw, "b.init.pointmaps")
    check_post(raw, "b.init", ("focal", "c2w"))
    check_counters(memory, "b.init")
    two = [layer.clone() for layer in memory.layers]

    added, raw, added_features = decoder(
        tokens[third], positions[third], shape[third], memory, return_feats=True
    )
    close(raw, "b.add.pointmaps")
    check_post(raw, "b.add")
    check_counters(added, "b.add")
    check_memory(added, "b.add" if mode == "norm_y" else f"d.{mode}")

    rendered, raw, rendered_features = decoder(
        tokens[third], positions[third], shape[third], added, render=True, return_feats=True
    )
    close(raw, "b.render.pointmaps")
    check_post(raw, "b.render")
    assert rendered is added
    for case, levels in (
        ("init", features),
        ("add", added_features),
        ("render", rendered_features),
    ):
        for level, feature in enumerate(levels):
            close(feature, f"b.{case}.feats.{level}")
    # The memory of the first call is as it was.
    assert all(torch.equal(now, before) for now, before in zip(memory.layers, two))
    if mode == "norm_y":
        check_memory(memory, "b.init")


@pytest.mark.parametrize("mode", ["norm_y", "kv", "raw"])
@torch.no_grad()
def test_images_read_apart_are_those_that_come_next_alone(mode):
    encoder, decoder = networks()
    decoder.memory_mode = mode
    tokens, positions, shape = encoded(encoder, GOLDEN["in.landscape"], LANDSCAPE)
    first = [part[:, :1] for part in (tokens, positions, shape)]
    rest = [part[:, 1:] for part in (tokens, positions, shape)]
    memory, _ = decoder(*first)
    maps, features, remembered = decoder.read_apart(*rest, memory)
    for number in range(maps.shape[1]):
        one = [part[:, number : number + 1] for part in rest]
        after, raw, alone = decoder(*one, memory, return_feats=True)
        torch.testing.assert_close(maps[:, number], raw[:, 0], rtol=1e-5, atol=1e-5)
        for found, wanted in zip(features, alone):
            torch.testing.assert_close(found[:, number], wanted[:, 0], rtol=1e-5, atol=1e-5)
        added = remembered(number, memory)
        assert torch.equal(added.labels, after.labels) and added.num_images == after.num_images == 2
        for found, wanted in zip(added.layers, after.layers):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert memory.num_images == 1


def test_portrait_and_its_storage_in_landscape(tiny):
    encoder, decoder = tiny
    memory, raw = decoder(*encoded(encoder, GOLDEN["in.portrait"], PORTRAIT))
    close(raw, "c.pointmaps")
    check_post(raw, "c")
    check_memory(memory, "c")
    _, training = networks(landscape_only=True)
    _, stored = training(*encoded(encoder, GOLDEN["in.portrait"], PORTRAIT))
    assert torch.equal(stored, raw.transpose(2, 3))


@torch.no_grad()
def test_compressed_positions_for_another_image_size():
    encoder, decoder = networks(img_size=(96, 96), pos_embed="RoPE100_64:96")
    tokens, positions, shape = encoded(encoder, GOLDEN["in.big"], BIG)
    close(tokens[0], "e.tokens")
    _, raw = decoder(tokens, positions, shape)
    close(raw, "e.pointmaps")
    check_post(raw, "e", ("focal", "c2w"))


def test_lists_of_sizes(tiny):
    encoder, decoder = tiny
    groups = [
        encoded(encoder, GOLDEN["in.landscape"][:2], LANDSCAPE),
        encoded(encoder, GOLDEN["in.wide"], WIDE),
    ]
    memory, raw, features = decoder(*map(list, zip(*groups)), return_feats=True)
    close(raw[0], "f.init.pointmaps.0")
    close(raw[1], "f.init.pointmaps.1")
    assert [f.shape[1] for levels in features for f in levels] == [2] * 4 + [1] * 4
    assert torch.equal(memory.labels, GOLDEN["f.init.labels"])
    check_counters(memory, "f.init")
    memory, raw = decoder(
        *([part] for part in encoded(encoder, GOLDEN["in.portrait"], PORTRAIT)), memory
    )
    close(raw[0], "f.add.pointmaps.0")
    assert torch.equal(memory.labels, GOLDEN["f.add.labels"])
    check_counters(memory, "f.add")


@pytest.mark.parametrize(("refinements", "case"), [(0, "v"), (1, "v.refined")])
def test_a_video_with_a_window_repeats_the_official_run(tiny, refinements, case):
    encoder, decoder = tiny
    frames = GOLDEN["s.frames_uint8"].permute(0, 3, 1, 2).float() / 255 * 2 - 1
    images = [encoded(encoder, frame[None], frame.shape[-2:]) for frame in frames]
    facts = FACTS["values"]["v"]
    asked = []

    def every_third(number, raw_map):
        asked.append(number)
        return number % 3 == 0

    window = facts["local_context_size"]
    memory, maps = process_video(
        decoder, images, every_third, window=window, refinements=refinements
    )
    assert (
        torch.equal(memory.labels, GOLDEN[f"{case}.labels"])
        and memory.num_images == facts["final_image_counter"]
    )
    close(memory.layers[0], f"{case}.mem.0")
    close(maps[-1][::4, ::4], f"{case}.last_raw")
    assert asked == [2, 3, 4, 5, 6] and all(m.shape == maps[0].shape for m in maps)


def test_a_video_without_a_window_keeps_keyframes_alone_as_a_stream_does(tiny):
    encoder, decoder = tiny
    images = [encoded(encoder, GOLDEN["in.landscape"][i : i + 1], LANDSCAPE) for i in (0, 1, 2, 0)]
    memory, maps = process_video(decoder, images, lambda number, raw_map: False, window=0)
    pair, raw = decoder(*(torch.cat(parts, 1) for parts in zip(*images[:2])))
    assert torch.equal(memory.labels, pair.labels) and torch.equal(
        memory.layers[-1], pair.layers[-1]
    )
    assert torch.equal(maps[1], raw[0, 1])
    assert torch.equal(maps[3], decoder(*images[3], pair)[1][0, 0])


def test_postprocessing_survives_zeros_and_mirrored_maps():
    check_post(GOLDEN["g.raw"], "g")


def test_items_of_a_batch_do_not_mix(tiny):
    encoder, decoder = tiny
    one = encoded(encoder, GOLDEN["in.landscape"][:2], LANDSCAPE)
    other = encoded(encoder, GOLDEN["in.landscape"][1:], LANDSCAPE)
    both = [torch.cat(parts) for parts in zip(one, other)]
    memory, raw = decoder(*both)
    single, wanted = decoder(*other)
    torch.testing.assert_close(raw[1:], wanted, rtol=1e-5, atol=1e-6)
    added = [part[:, :1] for part in both]
    _, raw = decoder(*added, memory)
    _, wanted = decoder(*(part[1:] for part in added), single)
    torch.testing.assert_close(raw[1:], wanted, rtol=1e-5, atol=1e-6)


def test_keeping_a_frame_copies_nothing_and_discarding_one_leaves_no_trace(tiny):
    encoder, decoder = tiny
    tokens, positions, shape = encoded(encoder, GOLDEN["in.landscape"], LANDSCAPE)
    memory, _ = decoder(tokens[:, :2], positions[:, :2], shape[:, :2])
    third = (tokens[:, 2:], positions[:, 2:], shape[:, 2:])
    memory, _ = decoder(*third, memory)
    memory.layers  # noqa: B018  writes the third image: the buffer doubles, with room for more
    address = memory.layers[0].data_ptr()
    decoder(*third, memory)  # never read: no keyframe
    kept, _ = decoder(*third, memory)
    assert kept.layers[0].data_ptr() == address
    before = kept.layers[0].clone()
    branch, _ = decoder(tokens[:, :1], positions[:, :1], shape[:, :1], memory)
    assert branch.layers[0].data_ptr() != address
    assert torch.equal(kept.layers[0], before)
    assert memory.num_tokens == 36 and kept.num_tokens == branch.num_tokens == 48


def test_evicted_images_are_gone_and_others_stay(tiny):
    encoder, decoder = tiny
    memory, _ = decoder(*encoded(encoder, GOLDEN["in.landscape"], LANDSCAPE))
    left = memory.without([1])
    assert left.labels[0].unique().tolist() == [0, 2]
    assert left.num_images == 3
    for layer, full in zip(left.layers, memory.layers):
        assert torch.equal(layer, torch.cat((full[:, :12], full[:, 24:]), 1))


def test_an_evicted_image_leaves_room_for_the_next(tiny):
    encoder, decoder = tiny
    tokens, positions, shape = encoded(encoder, GOLDEN["in.landscape"], LANDSCAPE)
    memory, _ = decoder(tokens, positions, shape)
    memory, _ = decoder(tokens[:, :1], positions[:, :1], shape[:, :1], memory)
    memory.layers  # noqa: B018  writes
    left = memory.without([1])
    address = left.layers[0].data_ptr()
    after, _ = decoder(tokens[:, 1:2], positions[:, 1:2], shape[:, 1:2], left)
    assert after.layers[0].data_ptr() == address and after.labels[0].unique().tolist() == [
        0,
        2,
        3,
        4,
    ]


def test_maps_that_say_nothing_give_finite_poses_and_focals():
    raw = torch.zeros(8, 8, 7)
    raw[..., 6] = -40  # no confidence at all
    maps = pointmaps(raw)
    assert focal_length(maps.local) == 0
    assert camera_to_world(maps.local, maps.points, maps.confidence).isfinite().all()


def test_gradients_reach_the_first_image_through_memory():
    encoder, decoder = networks()
    tokens, positions, shape = encoded(encoder, GOLDEN["in.landscape"], LANDSCAPE)
    tokens = tokens.detach().requires_grad_()
    memory = None
    for i in range(3):
        memory, raw = decoder(
            tokens[:, i : i + 1], positions[:, i : i + 1], shape[:, i : i + 1], memory
        )
    raw.sum().backward()
    assert (tokens.grad.abs().sum((0, 2, 3)) > 0).all()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.feedback_layer.parameters()
    )


@pytest.mark.parametrize(
    "feedback, tensors, parameters", [(None, 295, 115_607_296), ("single_linear", 299, 116_199_424)]
)
def test_full_size_without_the_feedback_mlp(feedback, tensors, parameters):
    with torch.device("meta"):
        state = MUSt3R(feedback_type=feedback).state_dict()
    assert (len(state), sum(t.numel() for t in state.values())) == (tensors, parameters)


def test_full_size_has_the_published_parameters():
    with torch.device("meta"):
        encoder, decoder = (
            Dust3rEncoder().state_dict(),
            MUSt3R(feedback_type="single_mlp").state_dict(),
        )
    assert (len(encoder), sum(t.numel() for t in encoder.values())) == (292, 303_098_880)
    assert (len(decoder), sum(t.numel() for t in decoder.values())) == (301, 120_331_264)
    assert encoder["blocks_enc.23.attn.qkv.weight"].shape == (3072, 1024)
    assert decoder["feedback_layer.fc1.weight"].shape == (3072, 768)
    assert decoder["head_dec.proj.weight"].shape == (1792, 768)


def test_single_linear_feedback_is_one_matrix(tiny):
    encoder, _ = tiny
    decoder = MUSt3R(**{**FACTS["decoder_args"], "feedback_type": "single_linear"}).eval()
    memory, _ = decoder(*encoded(encoder, GOLDEN["in.landscape"][:1], LANDSCAPE))
    exposed = []
    for block in decoder.blocks_dec:
        block.norm1.register_forward_pre_hook(lambda module, inputs: exposed.append(inputs[0]))
    decoder(*encoded(encoder, GOLDEN["in.landscape"][:1], LANDSCAPE))
    offset = decoder.feedback_layer(decoder.feedback_norm(exposed[2]))
    for layer, added in enumerate((offset, offset, 0)):
        wanted = decoder.blocks_dec[layer].norm_y(exposed[layer] + added)
        torch.testing.assert_close(memory.layers[layer], wanted, rtol=1e-5, atol=1e-6)


def test_bf16_autocast_stays_close_and_the_encoder_stays_exact(tiny):
    encoder, decoder = tiny
    with torch.autocast("cpu", torch.bfloat16):
        inputs = encoded(encoder, GOLDEN["in.landscape"][:2], LANDSCAPE)
        memory, raw = decoder(*inputs)
        memory, _ = decoder(*(part[:, :1] for part in inputs), memory)
    torch.testing.assert_close(
        inputs[0][0], GOLDEN["enc.landscape.tokens"][:2], rtol=1e-5, atol=1e-5
    )
    assert raw.dtype == torch.float32
    torch.testing.assert_close(raw, GOLDEN["b.init.pointmaps"], rtol=0.1, atol=0.1)
    assert memory.num_images == 3


@pytest.mark.slow
def test_compiled_networks_give_the_same_maps(tiny):
    encoder, decoder = tiny
    compiled_encoder = torch.compile(encoder, backend="aot_eager", fullgraph=True)
    compiled_decoder = torch.compile(decoder, backend="aot_eager")
    tokens, positions = compiled_encoder(GOLDEN["in.landscape"])
    shape = torch.tensor([[LANDSCAPE] * 3])
    memory, raw = compiled_decoder(tokens[None, :2], positions[None, :2], shape[:, :2])
    close(raw, "b.init.pointmaps")
    _, raw = compiled_decoder(tokens[None, 2:], positions[None, 2:], shape[:, 2:], memory)
    close(raw, "b.add.pointmaps")


def test_wrong_arguments_are_named():
    with pytest.raises(
        ValueError, match="memory_mode 'fast': unknown; expected one of norm_y, kv, raw"
    ):
        MUSt3R(memory_mode="fast")
    with pytest.raises(ValueError, match="RoPE<base>"):
        Dust3rEncoder(pos_embed="cosine")
    encoder, decoder = networks()
    with pytest.raises(ValueError, match="50x48: both sides must be multiples of 16"):
        encoder(torch.zeros(1, 3, 48, 50))
    inputs = encoded(encoder, GOLDEN["in.landscape"][:1], LANDSCAPE)
    with pytest.raises(ValueError, match="render=True needs a memory"):
        decoder(*inputs, render=True)
    with pytest.raises(ValueError, match="do not make an image of 64x64"):
        decoder(*inputs[:2], torch.tensor([[[64, 64]]]))
