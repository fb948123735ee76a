"""Photo collections with the shipped weights, and the steps between networks with stand-ins."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from geometry_fusion import Prompt, load
from geometry_fusion.errors import InputError
from geometry_fusion.io.open_frames import opened_frames
from geometry_fusion.photos.collection import propagate, segment_photos
from geometry_fusion.photos.pictures import by_content, photo_files, read_photo
from geometry_fusion.photos.records import CONTRADICTION, Collection, PhotoSettings
from geometry_fusion.photos.session import Look
from geometry_fusion.tracking import memory_tokens
from tests.conftest import ROOT
from tests.photos.views import shown

SAMPLE = ROOT / "videos/samples/return"
CLICK = ((158.0, 97.0),)
CHOSEN = (0, 7, 14, 28, 49, 56)


@pytest.fixture(scope="module")
def tracker():
    return load("tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Frames of a sample as photos."""
    folder = tmp_path_factory.mktemp("photos")
    with opened_frames(SAMPLE / "video.mp4") as frames:
        for index in CHOSEN:
            Image.fromarray(frames[index]).save(folder / f"{index:02d}.png")
    return folder


def segmented(tracker, folder, prompted="00.png", **options):
    """Content digest -> ids of every photo, and the collection."""
    files = photo_files([folder])
    at = [file.name for file in files].index(prompted)
    photos = [read_photo(file) for file in files]
    prompt = Prompt(at, points=CLICK)
    collection = segment_photos(tracker, photos, [prompt], PhotoSettings(**options))
    masks = {photo.digest: collection.ids(i) for i, photo in enumerate(collection.photos)}
    return masks, collection


@pytest.fixture(scope="module")
def segmented_once(tracker, folder):
    return segmented(tracker, folder)


def test_the_object_is_found_in_the_photos_that_show_it(segmented_once, folder):
    masks, collection = segmented_once
    ious, absent = [], []
    for photo in collection.photos:
        truth = np.array(Image.open(SAMPLE / "gt" / f"{int(photo.path.stem):04d}.png")) > 0
        mask = masks[photo.digest] == 1
        if truth.any():
            ious.append((mask & truth).sum() / (mask | truth).sum())
        else:
            absent.append(mask.sum())
    assert len(ious) == 5 and np.mean(ious) > 0.6 and min(ious) > 0.4
    assert absent == [0]
    assert collection.photos[collection.reference].name == "00.png"
    assert len(collection.steps) == len(CHOSEN)
    assert collection.photos[collection.steps[0].photo].name == "00.png"


def test_names_change_nothing(tracker, folder, segmented_once, tmp_path):
    masks, collection = segmented_once
    names = ["q", "b", "z", "a", "m", "c"]
    for number, name in zip(CHOSEN, names):
        shutil.copy(folder / f"{number:02d}.png", tmp_path / f"{name}.png")
    renamed, again = segmented(tracker, tmp_path, prompted="q.png")
    assert renamed.keys() == masks.keys()
    for digest, ids in masks.items():
        assert np.array_equal(ids, renamed[digest])
    assert again.steps == collection.steps


def test_a_turned_file_and_its_upright_copy_give_the_same_masks(
    tracker, folder, segmented_once, tmp_path
):
    masks, _ = segmented_once
    shutil.copytree(folder, tmp_path / "photos")
    upright = Image.open(folder / "07.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "photos/07.webp", lossless=True, exif=exif)
    (tmp_path / "photos/07.png").unlink()
    others, collection = segmented(tracker, tmp_path / "photos")
    assert [p.orientation for p in collection.photos if p.path.suffix == ".webp"] == [6]
    assert all(np.array_equal(ids, others[digest]) for digest, ids in masks.items())


def test_a_padded_photo_keeps_its_object(tracker, folder, tmp_path):
    """A photo of another shape: the upper part of one is cut off, so it is padded back."""
    shutil.copytree(folder, tmp_path / "photos")
    whole = np.array(Image.open(folder / "56.png"))
    truth = np.array(Image.open(SAMPLE / "gt/0056.png")) > 0
    top = int(np.flatnonzero(truth.any(1))[0]) // 2
    Image.fromarray(whole[top:]).save(tmp_path / "photos/56.png")
    _, collection = segmented(tracker, tmp_path / "photos", second_look=None)
    number = [photo.name for photo in collection.photos].index("56.png")
    assert collection.frames.area(number) != (0, 0, 1, 1)
    mask, seen = collection.ids(number) == 1, truth[top:]
    assert mask.shape == seen.shape
    assert (mask & seen).sum() / (mask | seen).sum() > 0.5


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_photos_work(tracker, folder, tmp_path, count):
    for number in CHOSEN[:count]:
        shutil.copy(folder / f"{number:02d}.png", tmp_path)
    masks, collection = segmented(tracker, tmp_path)
    truth = np.array(Image.open(SAMPLE / "gt/0000.png")) > 0
    first = next(p for p in collection.photos if p.name == "00.png")
    mask = masks[first.digest] == 1
    assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    assert len(masks) == count and all((ids == 1).any() for ids in masks.values())


def test_a_given_mask_is_the_answer_pixel_by_pixel(tracker, folder, tmp_path):
    shutil.copy(folder / "00.png", tmp_path)
    mask = np.zeros(np.array(Image.open(tmp_path / "00.png")).shape[:2], bool)
    mask[60:101:2, 50:90] = True
    photos = [read_photo(tmp_path / "00.png")]
    collection = segment_photos(tracker, photos, [Prompt(0, 3, mask=mask)])
    assert np.array_equal(collection.ids(0), mask * 3)


def test_sam2_alone_and_places_work_without_a_merger(folder, tmp_path):
    for number in CHOSEN[:2]:
        shutil.copy(folder / f"{number:02d}.png", tmp_path)
    for options in ({"geometry": "none"}, {"mode": "places"}):
        masks, collection = segmented(load("tiny", **options), tmp_path)
        assert len(masks) == 2 and any((ids == 1).any() for ids in masks.values())
        assert (collection.reference is None) == ("geometry" in options)


def test_ages_of_pointers_are_scaled_as_in_videos_of_16_frames(
    tracker, folder, tmp_path, monkeypatch
):
    """SAM2 divides ages by one less than the number of frames, at most 15."""
    for number in CHOSEN[:2]:
        shutil.copy(folder / f"{number:02d}.png", tmp_path)
    ages, code = [], memory_tokens.get_1d_sine_pe

    def recorded(positions, dim):
        ages.extend(positions.tolist())
        return code(positions, dim)

    monkeypatch.setattr(memory_tokens, "get_1d_sine_pe", recorded)
    segmented(tracker, tmp_path, second_look=None)
    assert ages == pytest.approx([1 / 15])


def test_prompts_that_do_not_fit_are_refused(tracker, folder):
    photos = [read_photo(folder / "00.png")]
    with pytest.raises(InputError, match="outside the image"):
        segment_photos(tracker, photos, [Prompt(0, points=((9999.0, 5.0),))])
    with pytest.raises(InputError, match="does not exist"):
        segment_photos(tracker, photos, [Prompt(1, points=CLICK)])


class StandIn:
    """A session that finds the object in every photo."""

    object_ids = (1,)

    def __init__(self):
        self.kept, self.asked_alone = {}, []

    def look(self, prompted: bool) -> Look:
        mask = np.ones((64, 64), bool)
        return Look(0.9, 5.0, mask, torch.ones(1, 1, 64, 64), {}, prompted)

    def prompted(self, object_id: int) -> set[int]:
        return {0}

    def prompt_of(self, photo: int, object_id: int) -> Look:
        return self.look(True)

    def ask(self, photo: int, object_ids, prompts_only: bool = False) -> dict[int, Look]:
        self.asked_alone += [photo] * prompts_only
        return {1: self.look(False)}

    def packed(self, looks: dict[int, Look]) -> dict:
        return looks

    def unpacked(self, piece: dict) -> dict[int, Look]:
        return piece

    def keep(self, photo: int, object_id: int, look: Look, barred: bool = False) -> None:
        self.kept[photo] = barred


def test_a_mask_where_the_object_cannot_be_is_flagged_and_kept_out_of_memory():
    views = [shown(), shown(x=0.5), shown(turned=True), shown(turned=True)]
    weights = np.eye(4)
    for i, j, weight in [(0, 1, 0.8), (0, 2, 0.3)]:
        weights[i, j] = weights[j, i] = weight
    session = StandIn()
    frames = SimpleNamespace(photos=[None] * 4)
    collection = Collection(frames, session, [], np.eye(4), weights, views, 0, [0])
    propagate(collection, PhotoSettings(), None, progress=False)
    flags = {photo: answers[1].flags for photo, answers in collection.answers.items()}
    assert flags == {0: (), 1: (), 2: (CONTRADICTION,), 3: (CONTRADICTION,)}
    assert session.kept == {1: False, 2: True, 3: True}
    assert session.asked_alone == [3]  # no prompt can reach it
    assert collection.answers[2][1].look.present  # the mask itself is kept


def test_numbers_of_photos_follow_contents_alone(folder):
    photos = [read_photo(file) for file in photo_files([folder])]
    assert by_content(photos) == by_content(photos[::-1])


def test_objects_of_different_photos_do_not_change_each_other(tracker, folder):
    """Each has MUSt3R's first photo where it was prompted; without geometry they share one run."""
    files = photo_files([folder])
    photos = [read_photo(file) for file in files]
    prompts = [Prompt(0, points=CLICK), Prompt(3, object_id=2, points=((200.0, 150.0),))]
    together = segment_photos(tracker, photos, prompts)
    assert together.object_ids == [1, 2] and len(together.others) == 1
    references = [part.photos[part.reference].name for part in (together, *together.others)]
    assert references == [files[0].name, files[3].name]
    alone = [segment_photos(tracker, photos, [prompt]) for prompt in prompts]
    for photo in range(len(photos)):
        logits = together.logits(photo)
        assert logits.shape[0] == 2 and set(together.answers[photo]) == {1, 2}
        for place, one in enumerate(alone):
            assert torch.equal(logits[place : place + 1], one.logits(photo))
    plain = segment_photos(load("tiny", mode="off"), photos, prompts)
    assert plain.object_ids == [1, 2] and not plain.others
