"""What a collection writes: masks, order.json, and a page that opens anywhere."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from geometry_fusion.fit import Size
from geometry_fusion.io.mask_writer import (
    overlay,
    read_rgb,
    write_mask,
    write_palette_mask,
)
from geometry_fusion.io.source_record import Record, as_text
from geometry_fusion.photos.order import LEAST_EDGE
from geometry_fusion.photos.overlap import ALL_PAIRS, GUESS
from geometry_fusion.photos.records import Collection
from geometry_fusion.report.pictures import jpeg, scaled

TEMPLATE = Path(__file__).with_name("photos.html.jinja")
RESULTS = ("masks", "order.json", "index.html")
PICTURE, THUMBNAIL = 360, 72  # pixels of the long side
COLUMN, ROW = 150, 96  # of the graph
OTHER_EDGES = 0.25  # weight from which an edge is drawn that no photo was reached by


def write_results(collection: Collection, folder: Path, arm: str, record: Record | None) -> None:
    """Write masks/, order.json and index.html into an empty folder."""
    (folder / "masks").mkdir()
    several = len(collection.object_ids) > 1
    pictures = {}
    for step in collection.steps:
        photo = collection.photos[step.photo]
        ids = collection.ids(step.photo)
        pictures[step.photo] = tile_of(small_overlay(read_rgb(photo.path), ids))
        write = write_palette_mask if several else write_mask
        target = folder / "masks" / f"{photo.path.stem}.png"
        write(target, photo.stored(ids), as_text(record), photo.orientation)
    facts = facts_of(collection, arm)
    (folder / "order.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    page = page_of(collection, facts, pictures)
    (folder / "index.html").write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class Tile:
    """A photo with its masks, as the page holds it: encoded, because there may be many."""

    picture: str  # JPEG, for the attribute of an image
    thumbnail: str  # the same, smaller
    size: Size  # of the thumbnail, (width, height)


def tile_of(picture: np.ndarray) -> Tile:
    """The tile of a picture, RGB uint8 [H, W, 3]."""
    small = scaled(picture, THUMBNAIL / max(picture.shape[:2]))
    return Tile(jpeg(picture), jpeg(small), small.shape[1::-1])


def small_overlay(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A photo with its masks at the size of the page, RGB uint8 [h, w, 3]."""
    small = scaled(image, min(1.0, PICTURE / max(image.shape[:2])))
    resized = Image.fromarray(ids).resize(small.shape[1::-1], Image.Resampling.NEAREST)
    return overlay(small, np.asarray(resized))


def number(value: float) -> float | None:
    """Four digits for JSON; None for NaN."""
    return None if math.isnan(value) else round(float(value), 4)


def facts_of(collection: Collection, arm: str) -> dict:
    """Everything but masks as JSON values. Photos are named, in the order of processing."""
    names = [photo.name for photo in collection.photos]
    weights = collection.weights
    # Above ALL_PAIRS photos, weights up to GUESS / 2 may be those of pairs that were not compared.
    least = LEAST_EDGE if len(names) <= ALL_PAIRS else GUESS / 2
    pairs = np.argwhere(np.triu(weights >= least, 1)).tolist()
    photos = []
    for step in collection.steps:
        objects = {
            str(i): {
                "present": answer.look.present,
                "prompted": answer.look.prompted,
                "object_score": number(answer.look.score),
                "predicted_iou": number(answer.look.iou),
                "visible": number(answer.visible),
                "inside_image": number(answer.framed),
                "flags": list(answer.flags),
            }
            for i, answer in collection.answers[step.photo].items()
        }
        photos.append(
            {
                "photo": names[step.photo],
                "reached_from": None if step.parent is None else names[step.parent],
                "edge": number(step.edge),
                "flag": step.flag,
                "geometry_confidence": number(collection.shown[step.photo].confidence),
                "objects": objects,
            }
        )
    confidence = [shown.confidence for shown in collection.shown]
    return {
        "arm": arm,
        "reference": None if collection.reference is None else names[collection.reference],
        "prompted": sorted(names[photo] for photo in collection.prompted),
        "remembered": [names[i] for i in collection.remembered],
        "median_confidence": number(float(np.median(confidence))),
        "order": photos,
        "edges": [[names[i], names[j], number(weights[i, j])] for i, j in pairs],
    }


def page_of(collection: Collection, facts: dict, pictures: dict[int, Tile]) -> str:
    """The page: the graph, then every photo in order."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    tiles = [
        {**entry, "picture": pictures[step.photo].picture}
        for step, entry in zip(collection.steps, facts["order"])
    ]
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(facts=facts, tiles=tiles, graph=graph_of(collection, pictures))


def graph_of(collection: Collection, pictures: dict[int, Tile]) -> dict:
    """The tree by which photos were reached, from left to right, with the other strong edges.

    Keys: width, height (pixels), nodes, edges.
    """
    depth, rows, place = {}, {}, {}
    for step in collection.steps:
        depth[step.photo] = 0 if step.parent is None else depth[step.parent] + 1
        row = rows[depth[step.photo]] = rows.get(depth[step.photo], -1) + 1
        place[step.photo] = (depth[step.photo] * COLUMN + 60, row * ROW + 44)
    nodes, edges = [], []
    tree = {(s.parent, s.photo): s.edge for s in collection.steps if s.parent is not None}
    strong = np.argwhere(np.triu(collection.weights >= OTHER_EDGES, 1)).tolist()
    others = [(i, j) for i, j in strong if (i, j) not in tree and (j, i) not in tree]
    for pair in [*others, *tree]:
        (x0, y0), (x1, y1) = place[pair[0]], place[pair[1]]
        weight = float(collection.weights[pair])
        edges.append(
            {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "tree": pair in tree, "weight": weight}
        )
    for step in collection.steps:
        tile = pictures[step.photo]
        x, y = place[step.photo]
        nodes.append(
            {
                "x": x,
                "y": y,
                "width": tile.size[0],
                "height": tile.size[1],
                "picture": tile.thumbnail,
                "name": collection.photos[step.photo].name,
                "flag": step.flag,
            }
        )
    width, height = (max(p[axis] for p in place.values()) + 60 for axis in (0, 1))
    return {"width": width, "height": height, "nodes": nodes, "edges": edges}
