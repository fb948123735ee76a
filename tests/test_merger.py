"""FeatureMerger: what it must leave alone, what it must not depend on, and where it puts things."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from geometry_fusion.fit import fit_crop, fit_to_square
from geometry_fusion.geometry.source import NoGeometry
from geometry_fusion.merger import GRIDS, VARIANTS, FeatureMerger
from geometry_fusion.merger_parts import PE3D, to_appearance, to_own_grid
from geometry_fusion.types import GeometryFrame
from tests.conftest import ROOT

SIZE = (100, 60)  # MUSt3R's rule at 48 px cuts it to 48x16, rows 6 to 21 of 29


def make_merger(trained=True, **changes):
    torch.manual_seed(0)
    options = {
        "channels": 8,
        "level_dims": (12, 10),
        "dim": 16,
        "num_heads": 2,
        "grid": "appearance",
        **changes,
    }
    merger = FeatureMerger(**options).eval()
    if trained:  # any weights but zeros at the end
        torch.nn.init.normal_(merger.block[-1].weight, std=0.1)
    return merger


def make_frame(seed=1, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    fit = fit_crop(size, 48)
    width, height = fit.size
    points = (
        torch.randn(3, height, width, generator=generator)
        + torch.tensor([0.0, 0, 3])[:, None, None]
    )
    return GeometryFrame(
        tuple(torch.randn(d, height // 16, width // 16, generator=generator) for d in (12, 10)),
        points,
        points / points.norm(dim=0),
        torch.rand(height, width, generator=generator),
        points.norm(dim=0).median(),
        None,
        fit,
    )


APPEARANCE = torch.randn(1, 8, 6, 10, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "must3r_only"])
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_untrained_merger_is_identity_bit_for_bit(variant, grid):
    merger = make_merger(trained=False, variant=variant, grid=grid)
    assert torch.equal(merger(APPEARANCE, make_frame()), APPEARANCE)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_every_variant_uses_levels_points_and_rays(variant, grid):
    merger, frame = make_merger(variant=variant, grid=grid), make_frame()
    merged = merger(APPEARANCE, frame)
    assert merged.shape == APPEARANCE.shape and merged.isfinite().all()
    other = make_frame(seed=7)
    for change in ("levels", "points", "rays"):
        assert not torch.allclose(
            merger(APPEARANCE, replace(frame, **{change: getattr(other, change)})), merged
        )


@torch.no_grad()
def test_nothing_known_is_sam2_alone():
    frame = NoGeometry().push(0, np.zeros((60, 100, 3), np.uint8))
    assert torch.equal(make_merger()(APPEARANCE, frame), APPEARANCE)


@torch.no_grad()
def test_metres_and_millimetres_merge_alike():
    merger, frame = make_merger(), make_frame()
    millimetres = replace(frame, points=frame.points * 1000, scale=frame.scale * 1000)
    torch.testing.assert_close(
        merger(APPEARANCE, millimetres), merger(APPEARANCE, frame), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_what_is_not_finite_contributes_nothing(value, grid):
    merger, frame = make_merger(subsamples=2, grid=grid), make_frame()
    hole = (slice(None), slice(0, 9), slice(3, 20))
    unsure = frame.confidence.clone()
    unsure[hole[1:]] = 0
    wanted = merger(APPEARANCE, replace(frame, confidence=unsure))
    for name in ("points", "rays", "confidence"):
        broken = getattr(frame, name).clone()
        broken[hole if broken.ndim == 3 else hole[1:]] = value
        assert torch.equal(merger(APPEARANCE, replace(frame, **{name: broken})), wanted)
    level = frame.levels[0].clone()
    level[0, 0, 0] = value
    assert merger(APPEARANCE, replace(frame, levels=(level, frame.levels[1]))).isfinite().all()


@torch.no_grad()
def test_unknown_places_do_not_leak_what_stands_there():
    merger, frame = make_merger(), make_frame()
    unsure = replace(frame, confidence=frame.confidence * 0)
    moved = replace(unsure, points=frame.points + 5)
    assert torch.equal(merger(APPEARANCE, unsure), merger(APPEARANCE, moved))


def test_geometry_lands_on_the_pixels_it_came_from():
    """A mark in the fitted image comes out where the same pixel lies in SAM2's squashed image."""
    frame = make_frame()
    fit = frame.fit
    for original in ((10, 22), (50, 30), (97, 41)):
        x, y = fit.points_to([original])[0].round().astype(int)
        marked = torch.zeros(1, 1, fit.size[1], fit.size[0])
        marked[0, 0, y, x] = 1
        found = to_appearance(marked, frame, (600, 1000), mode="nearest")[0, 0]
        rows, columns = (found > 0).nonzero().float().mean(0).tolist()
        # Ten cells a pixel: centre of original pixel x is cell 10 x + 4.5. A fitted pixel is two
        # original ones wide.
        assert abs((columns - 4.5) / 10 - original[0]) <= 1.1
        assert abs((rows - 4.5) / 10 - original[1]) <= 1.1
    everywhere = to_appearance(torch.ones(1, 1, 4, 4), frame, (60, 100))[0, 0]
    seen = [fit.points_to([[0, y]])[0][1] for y in range(60)]
    assert everywhere[:, 50].bool().tolist() == [-0.5 <= y <= fit.size[1] - 0.5 for y in seen]
    assert not everywhere[0].any() and everywhere[30].all()


def test_cells_of_sam2_come_back_to_the_grid_of_must3r():
    """A map that grows along x and y is the same map on the other grid, up to the edges that have
    no neighbours.
    """
    frame = make_frame()
    rows, columns = torch.meshgrid(
        (torch.arange(60) + 0.5) / 60, (torch.arange(100) + 0.5) / 100, indexing="ij"
    )
    own = to_own_grid(torch.stack((columns, rows))[None], frame, (4, 12))[0]
    fit = frame.fit
    for row, column in ((0, 0), (1, 5), (3, 11)):
        # Cells of 4x4 fitted pixels; their centres lie between pixels.
        centre = fit.points_back((column * 4 + 1.5, row * 4 + 1.5))
        np.testing.assert_allclose(own[:, row, column], (centre + 0.5) / fit.original, atol=1e-5)


@torch.no_grad()
def test_mixed_grid_keeps_places_finer_than_the_tokens():
    """Within one token of MUSt3R, a place that moves changes its own cell of SAM2 most."""
    merger, frame = make_merger(grid="mixed"), make_frame()
    merger.smooth.weight.zero_(), merger.smooth.bias.zero_()
    merger.smooth.weight[:, :, 1, 1] = torch.eye(16)  # no blur but that of the grids
    seen = []
    merger.smooth.register_forward_hook(lambda module, args, output: seen.append(output))
    merger(APPEARANCE, frame)
    moved = frame.points.clone()
    x, y = (
        frame.fit.points_to([45, 25]).round().astype(int)
    )  # cell (2, 4) of 6x10 cells of 10x10 pixels
    moved[:, y - 2 : y + 3, x - 2 : x + 3] += 2
    merger(APPEARANCE, replace(frame, points=moved))
    change = (seen[1] - seen[0])[0].norm(dim=0)
    assert divmod(int(change.argmax()), 10) == (2, 4)
    assert change[2, 4] > 2 * change.flatten().sort().values[-2]


@torch.no_grad()
def test_the_code_of_places_is_heard_from_the_first_step_and_tells_places_apart():
    torch.manual_seed(0)
    code = PE3D(128)
    points = torch.rand(512, 3) * 2
    rays = torch.nn.functional.normalize(torch.randn(512, 3), dim=-1)
    assert 1 < code(points, rays).std() < 4  # levels have about 0.45
    likeness = lambda a, b: torch.cosine_similarity(code(a, rays), code(b, rays)).mean()  # noqa: E731
    assert likeness(points, points + 0.01) > 0.95
    assert likeness(points, points.roll(1, 0)) < 0.75


@torch.no_grad()
def test_a_batch_is_its_items():
    merger, frames = make_merger(), [make_frame(3), make_frame(4)]
    appearance = torch.randn(2, 8, 6, 10, generator=torch.Generator().manual_seed(5))
    both = merger(appearance, frames)
    for item, frame in enumerate(frames):
        torch.testing.assert_close(
            both[item], merger(appearance[item][None], frame)[0], rtol=1e-4, atol=1e-5
        )
    shared = merger(appearance, frames[0])  # two objects of one frame
    torch.testing.assert_close(
        shared[1], merger(appearance[1][None], frames[0])[0], rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_control_merger_sees_the_appearance_alone_and_is_as_large():
    options = {"level_dims": (12, 12)}
    control, fused = make_merger(levels_from="appearance", **options), make_merger(**options)
    assert sum(p.numel() for p in control.parameters()) == sum(
        p.numel() for p in fused.parameters()
    )
    empty = NoGeometry().push(0, np.zeros((60, 100, 3), np.uint8))
    merged = control(APPEARANCE, empty)
    assert not torch.equal(merged, APPEARANCE)
    # With points it is the oracle.
    assert not torch.allclose(control(APPEARANCE, make_frame()), merged)


def test_gradients_reach_every_parameter():
    for variant in VARIANTS:
        merger = make_merger(variant=variant)
        merger(APPEARANCE, make_frame()).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in merger.parameters()), (
            variant
        )


def test_misfits_are_named():
    with pytest.raises(ValueError, match="variant 'sum': unknown; expected one of paper"):
        make_merger(variant="sum")
    with pytest.raises(
        ValueError, match=r"levels of \(12, 10\) channels, the merger was made for \(12, 12\)"
    ):
        make_merger(level_dims=(12, 12))(APPEARANCE, make_frame())
    with pytest.raises(ValueError, match="3 geometry frames for 1 images"):
        make_merger()(APPEARANCE, [make_frame()] * 3)


@pytest.mark.parametrize(
    "name, parameters", [("tiny", 1_598_592), ("tiny_fine", 1_598_592), ("paper", 42_816_256)]
)
def test_configurations_have_the_stated_size(name, parameters):
    config = OmegaConf.load(ROOT / f"configs/merger/{name}.yaml")
    with torch.device("meta"):
        merger = instantiate(config.merger)
    assert sum(p.numel() for p in merger.parameters()) == parameters
    assert len(config.geometry.levels) == len(merger.level_dims)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1920, 1080), (1080, 1920), (333, 500)])
@pytest.mark.parametrize("side, square", [(512, False), (224, True)])
def test_a_pixel_is_followed_through_must3r_and_sam2_and_back(size, side, square):
    """Every fitted pixel carries its place in the original: what the grid of SAM2 reads are the
    places of its cells.
    """
    fit = fit_crop(size, side, square=square)
    width, height = fit.size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    places = torch.from_numpy(
        fit.points_back(np.stack([columns, rows], -1))
    ).float()  # [h, w, 2] original pixels
    frame = GeometryFrame((), None, None, None, None, None, fit)
    cells = 64  # of SAM2's top-level feature at 1024 px
    found = to_appearance(places.permute(2, 0, 1)[None], frame, (cells, cells))[0]
    sam2 = fit_to_square(size, 1024)
    reached = 0
    for row in range(4, cells - 4, 7):
        for column in range(4, cells - 4, 7):
            wanted = sam2.points_back([column * 16 + 7.5, row * 16 + 7.5])
            x, y = fit.points_to(wanted)
            if 1 <= x <= width - 2 and 1 <= y <= height - 2:  # else MUSt3R's crop cut it away
                reached += 1
                assert np.abs(found[:, row, column].numpy() - wanted).max() < 0.01
                # And a mask painted on that cell lies over that pixel of the original.
                mask = np.zeros((cells, cells), bool)
                mask[row, column] = True
                assert sam2.mask_to_original(mask)[int(wanted[1] + 0.5), int(wanted[0] + 0.5)]
    assert reached > 20
