"""Prompts of two objects on one place, and prompt files from anywhere."""

import argparse
import json

import numpy as np
import pytest

from geometry_fusion.commands.arguments import add_prompt_arguments
from geometry_fusion.commands.prompts import prompts_from_arguments
from geometry_fusion.errors import InputError
from geometry_fusion.io.mask_writer import write_mask, write_palette_mask
from geometry_fusion.io.prompt_files import read_prompts
from geometry_fusion.tracking.prompt_checks import hidden_objects
from geometry_fusion.types import Prompt


def area(x0, y0, x1, y1):
    mask = np.zeros((60, 80), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def given(*arguments):
    parser = argparse.ArgumentParser()
    add_prompt_arguments(parser)
    return prompts_from_arguments(parser.parse_args([str(a) for a in arguments]))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"points": ((10, 10),)}, {"points": ((12, 11),)}, True),
        ({"points": ((10, 10),)}, {"points": ((20, 10),)}, False),
        ({"points": ((10, 10), (40, 40))}, {"points": ((41, 41),)}, True),
        ({"box": (10, 10, 30, 30)}, {"box": (11, 10, 31, 30)}, True),
        ({"box": (10, 10, 30, 30)}, {"box": (20, 10, 40, 30)}, False),
        (
            {"box": (10, 10, 30, 30)},
            {"points": ((20, 20),)},
            False,
        ),  # something in front of something
        ({"mask": area(10, 10, 30, 30)}, {"mask": area(10, 10, 30, 28)}, True),
        ({"mask": area(10, 10, 30, 30)}, {"mask": area(10, 10, 30, 20)}, False),
        ({"mask": area(10, 10, 30, 30)}, {"points": ((20, 20), (11, 29))}, True),
        ({"mask": area(10, 10, 30, 30)}, {"points": ((20, 20), (40, 29))}, False),
        ({"mask": area(10, 10, 30, 30)}, {"box": (10, 10, 30, 30)}, True),
        ({"mask": area(10, 10, 30, 30)}, {"points": ((500, 500),)}, False),
    ],
)
def test_two_objects_on_one_place_are_reported(first, second, same):
    for a, b in ((first, second), (second, first)):
        line = hidden_objects([Prompt(3, 1, **a), Prompt(3, 7, **b)])
        assert bool(line) == same
        if same:
            assert (
                "objects 1 and 7 are prompted in the same place of frame 3" in line
                and "docs/prompts.md" in line
            )
    assert hidden_objects([Prompt(3, 1, **first), Prompt(4, 7, **second)]) is None
    assert hidden_objects([Prompt(3, 1, **first), Prompt(3, 1, **second)]) is None


def test_the_command_line_says_it_once(capsys, tmp_path):
    given("--point", "1:5,5", "--point", "2:5,6", "--point", "3:6,5")
    said = capsys.readouterr().err.splitlines()
    assert (
        len(said) == 1
        and said[0].startswith("warning: objects 1 and 2")
        and "(and 2 more pairs)" in said[0]
    )
    given("--point", "1:5,5", "--point", "2:50,6")
    write_palette_mask(
        tmp_path / "two.png",
        np.where(area(0, 0, 20, 20), 1, 0) + np.where(area(20, 0, 40, 20), 2, 0),
    )
    given("--mask", tmp_path / "two.png")
    assert capsys.readouterr().err == ""


ENTRIES = [
    {"frame": 0, "object": 2, "points": [[5, 6.5]], "negatives": [[1, 1]], "box": [1, 2, 30, 40]},
    {"mask": "m.png"},
]
ODD = (
    None,
    "x",
    "12",
    [],
    {},
    [[]],
    float("nan"),
    float("inf"),
    -1,
    0.5,
    True,
    10**400,
    "\ud800",
    "a\0b",
)


def spoiled():
    """Every leaf of the prompts, and everything around one, replaced by something odd."""
    places = [
        (0,),
        (1,),
        *((0, key) for key in ENTRIES[0]),
        (0, "points", 0),
        (0, "points", 0, 1),
        (0, "box", 2),
    ]
    places += [(1, "mask")]
    for place in places:
        for value in ODD:
            content = json.loads(json.dumps(ENTRIES))
            node = content
            for step in place[:-1]:
                node = node[step]
            node[place[-1]] = value
            yield content


def test_odd_prompt_files_end_in_one_line_or_in_prompts(tmp_path):
    write_mask(tmp_path / "m.png", area(1, 1, 9, 9))
    file, refused = tmp_path / "prompts.json", 0
    for content in spoiled():
        file.write_text(json.dumps(content))
        try:
            for prompt in read_prompts(file):
                prompt.check((80, 60), 5)
        except InputError as error:
            refused += 1
            assert str(tmp_path) in str(error), content
    assert refused > 100
    for content in (
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'[{"frame": 0, "frame": 1}]',
        b"5",
        b"null",
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"prompts\.json"):
            read_prompts(file)
    with pytest.raises(InputError, match="is a folder"):
        read_prompts(tmp_path)
