"""The studio's masks in the formats of other tools, read back."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from starlette.testclient import TestClient

from geometry_fusion.commands.ui_exports import EXPORTS, export
from geometry_fusion.commands.ui_formats import FORMAT_EXPORTS, kind_of
from geometry_fusion.io.exports import FORMATS
from geometry_fusion.player.masks import mask_png
from geometry_fusion.ui.server import make_app
from geometry_fusion.ui.session_files import mask_file, write_aside
from geometry_fusion.ui.view import STATIC
from tests.ui.conftest import HOST, OWN
from tests.ui.test_studio_server import open_video


def painted(index: int) -> np.ndarray:
    """The mask of a frame: two rectangles, the second only in later frames."""
    ids = np.zeros((48, 64), np.uint8)
    ids[10:20, 5 + index : 25 + index] = 1
    if index >= 3:
        ids[30:40, 30:50] = 2
    return ids


@pytest.fixture
def session(studio, video):
    """A session with two objects, tracked by the geometry arm, and the HTTP client of it."""

    def exported(studio, session, kind):
        return export(studio, session, kind, None)

    app = make_app(studio, export=exported)
    client = TestClient(app, base_url=f"http://{HOST}", headers=OWN)
    key = client.post("/api/sessions").json()["key"]
    assert open_video(client, key, video).status_code == 200
    session = studio.session(key)
    for object_id, name in ((1, "red vase"), (2, "cup")):
        session.act({"do": "add_object"})
        session.act({"do": "change_object", "object": object_id, "name": name})
        click = {"frame": 0, "object": object_id, "kind": "point", "values": [9, 12]}
        session.act({"do": "mark", **click})
    client.post(f"/api/s/{key}/run", json={"arms": ["geom"]})
    for index in range(8):
        write_aside(mask_file(session.masks, "geom", index), mask_png(painted(index)))
    return client, key


def fetched(session, kind: str):
    client, key = session
    return client.get(f"/api/s/{key}/export/{kind}")


def test_coco_from_the_page_holds_the_masks_and_names(session):
    answer = fetched(session, kind_of("coco", "geom"))
    assert answer.status_code == 200, answer.text
    document = json.loads(answer.content)
    assert sorted(c["name"] for c in document["categories"]) == ["cup", "red vase"]
    names = {c["id"]: c["name"] for c in document["categories"]}
    images = {image["id"]: n for n, image in enumerate(document["images"])}
    assert len(images) == 8 and len(document["annotations"]) == 8 + 5
    for annotation in document["annotations"]:
        object_id = {"red vase": 1, "cup": 2}[names[annotation["category_id"]]]
        run_lengths = annotation["segmentation"]
        if isinstance(run_lengths["counts"], list):
            run_lengths = coco.frPyObjects(run_lengths, *run_lengths["size"])
        wanted = painted(images[annotation["image_id"]]) == object_id
        assert np.array_equal(coco.decode(run_lengths).astype(bool), wanted)


@pytest.mark.parametrize("to", sorted(set(FORMATS) - {"coco"}))
def test_every_format_is_a_file_and_folders_are_zips(session, to):
    answer = fetched(session, kind_of(to, "geom"))
    assert answer.status_code == 200, answer.text
    if FORMATS[to].suffix:
        assert len(answer.content) > 100
        return
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None and len(archive.namelist()) >= 8


def test_davis_from_the_page_has_the_ids_of_every_frame(session):
    with zipfile.ZipFile(io.BytesIO(fetched(session, kind_of("davis", "geom")).content)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        masks = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    assert len(masks) == 8
    for index, mask in enumerate(masks):
        assert np.array_equal(mask, painted(index)), names[index]


def test_an_arm_without_masks_is_refused_in_a_line(session):
    answer = fetched(session, kind_of("davis", "baseline"))
    assert answer.status_code == 400 and "press Run" in answer.json()["error"]


def test_the_page_offers_every_format():
    script = (STATIC / "panels.js").read_text(encoding="utf-8")
    listed = script[script.index("export const FORMATS") :]
    listed = re.findall(r'\["(\w+)", "', listed[: listed.index("];")])
    assert {name.replace("_", "-") for name in listed} == set(FORMATS)
    assert set(FORMAT_EXPORTS) <= set(EXPORTS)
