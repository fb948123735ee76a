"""Settings: paths are taken as they are, foreign YAML files stay harmless, and what cannot work is
refused at once.
"""

import os
import time

import pytest
from omegaconf import OmegaConf

import evaluate
import train
from geometry_fusion.assets import CONFIGS
from geometry_fusion.commands import train as training
from geometry_fusion.commands.config import compose_config
from geometry_fusion.errors import InputError
from geometry_fusion.io.yaml_file import read_yaml
from geometry_fusion.limits import LIMITS
from tests.conftest import ROOT

ODD_PATHS = [
    "vidéo/画 像",
    "a=b",
    "(1), [2], {3: 4}",
    "it's",
    'quo"ted',
    "${oc.env:HOME}/$x/\\${y}",
    " leading and trailing ",
    "a,b",
    "~/x",
    "%s {} \\n\\",
    "null?",
    "\udcff",
    "5",
    "true",
    "#x: y",
]
TRAIN_PATHS = (
    "data.frames",
    "data.masks",
    "trainer.run_dir",
    "trainer.init_from",
    "fusion_from",
    "geometry_cache",
)


@pytest.mark.parametrize("path", ODD_PATHS)
def test_paths_are_taken_as_they_are(path):
    config = compose_config(
        CONFIGS, "train", ["experiment=my_video", *(f"{key}={path}" for key in TRAIN_PATHS)]
    )
    assert {OmegaConf.select(config, key) for key in TRAIN_PATHS} == {path}
    assert OmegaConf.to_container(config, resolve=True)["data"]["frames"] == path
    keys = (
        "data.scenes",
        "data.root",
        "checkpoints.fusion",
        "checkpoints.oracle",
        "sam2_checkpoint",
        "out",
        "must3r",
    )
    config = compose_config(CONFIGS, "evaluate", [f"{key}={path}" for key in keys])
    assert {OmegaConf.select(config, key) for key in keys} == {path}
    mixture = [
        "experiment=paper",
        f"data.datasets.ase.scenes={path}",
        f"++data.datasets.ase.scenes={path}",
    ]
    assert compose_config(CONFIGS, "train", mixture).data.datasets.ase.scenes == path


def test_a_path_that_another_refers_to_is_not_read_again():
    config = compose_config(CONFIGS, "train", ["experiment=my_video", "trainer.run_dir=/a/${b}"])
    assert config.geometry_cache == "/a/${b}/geometry"


def test_null_is_no_path_and_other_keys_stay_hydras():
    config = compose_config(
        CONFIGS, "evaluate", ["data.scenes=null", "arms=[sam2]", "max_objects=null"]
    )
    assert config.data.scenes is None and config.arms == ["sam2"] and config.max_objects is None


def test_auto_is_a_merger_as_well():
    assert compose_config(CONFIGS, "train", ["experiment=my_video", "merger=auto"]).merger == "auto"


def test_scripts_find_folders_with_odd_names(refuse, tmp_path):
    """The words of the shell reach the file system: the message is about the folder, not about
    grammar.
    """
    for name in ("vidéo 画", "a=b(c),d", "it's"):
        line = refuse(
            train, "experiment=my_video", f"data.frames={tmp_path / name}", f"data.masks={tmp_path}"
        )
        assert f"{name}: no such folder" in line
        line = refuse(
            evaluate, f"data.scenes={tmp_path / name}", "arms=[sam2]", f"out={tmp_path / 'o'}"
        )
        assert f"{name}: holds no scene folders" in line


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.seed=é=(", "trainer.seed=é=(: not key=value"),
        ("nonsense", "nonsense: not key=value"),
        ("=5", "=5: not key=value"),
        ("trainer.seed=1,2", "trainer.seed=1,2: names several values"),
        ("trainer.seed=range(3)", "names several values"),
        ("~trainer.seed", "~trainer.seed: deletes a key"),
        ("trainer.trainable=" + "[" * 2000, "not key=value"),
        ("data.frames=", "data.frames=: must be a path"),
        ("batches.stages=5", "batches.stages=5: must be a list"),
    ],
)
def test_words_that_are_no_override_are_named(refuse, word, said):
    assert said in refuse(train, "experiment=my_video", "data.masks=x", word)


# --- YAML files


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + f"\ntrainer: {{trainable: *a{levels - 1}}}\n"


HOSTILE_YAML = {
    "an alias bomb": (bomb(9), "holds too many values"),
    "a bomb of merges": (
        "a0: &a0 {k: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
        "too many values",
    ),
    "a list that holds itself": ("trainer: &t {trainable: [*t]}\n", "holds itself"),
    "a value that holds itself": ("data: &d [*d]\n", "holds itself"),
    "deep": ("trainer: " + "[" * 100 + "]" * 100, "is nested too deep"),
    "very deep": ("trainer: " + "[" * 5000 + "]" * 5000, "is nested too deep"),
    "deep by aliases": (
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60)),
        "is nested too deep",
    ),
    "large": ("trainer: {seed: 1}\n" + "# padding\n" * 40_000, "read are at most 256 KiB"),
    "many values": ("out: [" + "1, " * 11_000 + "1]\n", "holds too many values"),
    "doubles": ("out: a\nout: b\n", "the key 'out' is there twice"),
    "an environment variable": ("out: ${oc.env:HOME}\n", "calls a resolver"),
    "a resolver inside": ("out: x/${oc.env:HOME,none}/y\n", "calls a resolver"),
    "a nested resolver": ("out: ${a.${oc.env:HOME}}\n", "calls a resolver"),
    "a resolver in a list": (
        "arms: [sam2, '${oc.decode:3am}']\n",
        "arms: '${oc.decode:3am}' calls a resolver",
    ),
    "a resolver as a key": ("data: {'${oc.env:HOME}': 1}\n", "calls a resolver"),
    "not text": (b"out: \xff\xfe\xfa\n", "not valid YAML"),
    "a tag": ("out: !!python/object/apply:os.system [true]\n", "not valid YAML"),
    "a list": ("[1, 2]", "expected keys and values, found list"),
    "empty": ("", "expected keys and values"),
    "a huge number": ("trainer: {seed: " + "9" * 5000 + "}\n", "not valid YAML"),
    "no date": ("out: 2020-99-99\n", "not valid YAML"),
    "a key that is a list": ("? [a, b]\n: 1\n", "not valid YAML"),
    "two documents": ("out: a\n---\nout: b\n", "not valid YAML"),
    "control characters": ("out: \x07\n", "not valid YAML"),
    "unclosed": ("out: [1\n", "not valid YAML"),
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_foreign_yaml_files_are_refused_quickly_with_the_limits(refuse, tmp_path, name):
    content, said = HOSTILE_YAML[name]
    file = tmp_path / "foreign.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.perf_counter()
    line = refuse(evaluate, "--config", file)
    assert time.perf_counter() - began < 20
    assert str(file) in line and said in line, line
    if "too" in said:
        assert "values with aliases followed" in line


def test_aliases_and_references_of_ordinary_files_work(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "experiment: my_video\nbatches:\n  kinds:\n    short: &s {clips: 1, frames: 2, objects: "
        "1}\n    long: *s\n"
        "trainer:\n  run_dir: out/${experiment_name}\n"
    )
    config = compose_config(CONFIGS, "train", [], tmp_path / "mine.yaml")
    assert config.batches.kinds.long.frames == 2 and config.trainer.run_dir == "out/my_video"
    assert read_yaml(tmp_path / "mine.yaml")["trainer"] == {"run_dir": "out/${experiment_name}"}


def test_configs_that_ship_keep_within_the_limits():
    for file in ROOT.glob("configs/**/*.yaml"):
        if "${now:" not in file.read_text():
            read_yaml(file)


# --- numbers


def numbers_of(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from numbers_of(value, f"{prefix}{key}.")
        elif type(value) in (int, float):
            yield f"{prefix}{key}"


def pattern_of(key: str) -> bool:
    parts = key.split(".")
    if parts[:2] == ["trainer", "trainable"]:  # the rest is one key, the name of a module
        parts = [*parts[:2], ".".join(parts[2:])]
    return any(
        len(parts) == len(other := pattern.split("."))
        and all(o in ("*", p) for o, p in zip(other, parts))
        for pattern in LIMITS
    )


@pytest.mark.parametrize(
    "experiment", sorted(f.stem for f in ROOT.glob("configs/experiment/*.yaml"))
)
def test_every_number_of_every_experiment_has_a_limit(experiment):
    config = OmegaConf.to_container(
        compose_config(CONFIGS, "train", [f"experiment={experiment}"]), resolve=True
    )
    assert [key for key in numbers_of(config) if not pattern_of(key)] == []
    config = compose_config(CONFIGS, "evaluate", ["data=scannetpp"])
    assert [
        key
        for key in numbers_of(OmegaConf.to_container(config, resolve=True))
        if not pattern_of(key)
    ] == []


@pytest.mark.parametrize(
    "value", ["-1", "nan", "inf", "1e30", "abc", "null", "[1]", "0.5", "1000000"]
)
@pytest.mark.parametrize("key", ["threads", "workers", "join_every", "data.min_area"])
def test_evaluate_takes_no_number_that_cannot_work(refuse, tmp_path, key, value):
    if (key, value) in (("threads", "null"), ("data.min_area", "1000000")):
        return
    line = refuse(evaluate, "arms=[sam2]", f"out={tmp_path / 'o'}", f"{key}={value}")
    assert key in line and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        "trainer.threads=1000000",
        "trainer.threads=-1",
        "trainer.grad_clip=nan",
        "trainer.grad_clip=0",
        "trainer.weight_decay=-0.1",
        "trainer.final_lr_scale=inf",
        "trainer.trainable={merger: abc}",
        "trainer.trainable={merger: nan}",
        "trainer.trainable={merger: -1}",
        "trainer.trainable={merger: {a: 1}}",
        "trainer.trainable={5: 1}",
        "trainer.trainable={}",
        "trainer.accumulate=0",
        "trainer.seed=-1",
        "sampling.steps=[a,b]",
        "sampling.steps=[1,null]",
        "sampling.steps=[2,1]",
        "sampling.steps=[1]",
        "sampling.steps=[1,2,3]",
        "sampling.steps=[0.5,1]",
        "sampling.steps=3",
        "sampling.tau=nan",
        "geometry_cache=null",
        "geometry_cache=",
        "data.min_area=-5",
        "data.workers=100000",
        "loss_weights.loss_mask=nan",
        "loss_weights.loss_mask=-1",
        "attention_weight=inf",
        "correction_share=2",
        "val_step=0",
        "prompts.point=1.5",
        "batches.kinds.short.frames=abc",
        "++batches.kinds.short.colour=red",
        "++batches.kinds.mine=5",
        "batches.kinds.short.clips=1000000",
        "batches.stages=[]",
        "batches.stages=[5]",
        "batches.stages=[{until: a, weights: {short: 1}}]",
        "batches.stages=[{until: 1.0, weights: {short: 0}}]",
        "batches.stages=[{until: 1.0, weights: {tall: 1}}]",
        "batches.stages=[{until: 1.0, weights: 5}]",
        "batches.stages=[{until: 1.0}]",
        "task=sam2",
        "task=must3r",
        "data=rooms_test",
    ],
)
def test_train_refuses_what_cannot_work_before_anything_is_built(
    refuse, tmp_path, monkeypatch, wrong
):
    monkeypatch.setattr(
        training, "TASKS", dict.fromkeys(training.TASKS, lambda config: pytest.fail("was built"))
    )
    line = refuse(train, "experiment=tiny_fusion", f"trainer.run_dir={tmp_path / 'run'}", wrong)
    assert wrong.lstrip("+").split("=")[0].rsplit(".", 1)[0] in line, line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        "batches.kinds.near.heights=[100]",
        "batches.kinds.near.heights=[256]",
        "batches.kinds.near.heights=64",
        "batches.kinds.near.frames=1",
        "batches.kinds.near.overlap=[a,1]",
        "batches.kinds.near.overlap=null",
        "losses.pixels=1000000",
        "validation.val_frames=1",
        "losses.match_temperature=0",
    ],
)
def test_must3r_batches_that_do_not_fit_are_refused(refuse, tmp_path, wrong):
    options = [
        "experiment=tiny_must3r",
        f"trainer.run_dir={tmp_path / 'run'}",
        f"data.root={tmp_path / 'rooms'}",
    ]
    assert wrong.split("=")[0].split(".")[-1] in refuse(train, *options, wrong)
    assert not (tmp_path / "rooms").exists()


def test_folders_that_cannot_be_made_are_refused_at_the_start(refuse, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        line = refuse(train, "experiment=tiny_fusion", f"trainer.run_dir={tmp_path / place}")
        assert "is not a folder" in line


def test_a_run_folder_that_is_not_utf8_is_refused_before_tensorboard_meets_it(refuse, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    assert "is not UTF-8" in refuse(train, "experiment=tiny_fusion", f"trainer.run_dir={folder}")


def test_published_numbers_are_checked_before_the_table(refuse, tmp_path):
    for wrong in ("{X: [1]}", "{X: abc}", "{X: [a, b, c]}", "{X: [0.1, 0.2, nan]}"):
        line = refuse(
            evaluate,
            "data=scannetpp",
            f"data.scenes={tmp_path}",
            f"++data.paper={wrong}",
            "arms=[sam2]",
        )
        assert "data.paper" in line


def test_limits_read_well():
    from geometry_fusion.limits import COUNT, POSITIVE, THREADS, check_number

    with pytest.raises(InputError, match=r"^x=0: must be a whole number of at least 1$"):
        check_number("x", 0, COUNT)
    with pytest.raises(
        InputError,
        match=r"^x=9999: must be a whole number of at least 1 and at most 4096, or null$",
    ):
        check_number("x", 9999, THREADS)
    with pytest.raises(InputError, match=r"^x=nan: must be a number above 0$"):
        check_number("x", float("nan"), POSITIVE)
