"""The rules of the house: who may import whom, and how large things may be."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "geometry_fusion"
SCRIPTS = {file.stem for file in ROOT.glob("*.py")}
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 300, 60
# part of the package -> parts that it must not import
FORBIDDEN = {
    "io": "geometry tracking models measure evaluation report ui commands training data merger "
    "instances",
    "must3r": "geometry tracking models measure evaluation report ui commands training data merger",
    "merger": "must3r tracking models measure evaluation report ui commands training data",
    "geometry": "tracking models measure evaluation report ui commands training data motion "
    "instances",
    "motion": "must3r merger tracking models measure evaluation report ui commands training data",
    "tracking": "models evaluation report ui commands training data instances",
    "models": "evaluation report ui commands training data instances",
    "measure": "tracking models evaluation report ui commands training data must3r",
    "player": "tracking models measure motion report evaluation ui commands training data",
    "report": "evaluation ui commands training data instances",
    "instances": "models evaluation ui commands training data",
    "photos": "evaluation ui commands training data",
    "ui": "evaluation report commands training data",
    "data": "tracking models ui commands training instances",
    "evaluation": "ui commands training",
    "training": "ui",
    "integrations": "evaluation report ui commands training data measure",
}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(file): file for file in FILES}


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: merger_parts belongs to merger."""
    name = module.split(".")[1] if "." in module else ""
    return "merger" if name.startswith("merger") else name


def imports_of(file: Path, everywhere: bool) -> set[str]:
    """Modules of the package that a file imports, inside functions as well if `everywhere`."""
    tree = ast.parse(file.read_text())
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("part, others", FORBIDDEN.items())
def test_parts_of_the_package_import_only_what_lies_below_them(part, others):
    wrong = [
        (module, imported)
        for module, file in MODULES.items()
        if part_of(module) == part
        for imported in imports_of(file, everywhere=True)
        if imported.startswith("geometry_fusion.") and part_of(imported) in others.split()
    ]
    assert not wrong


def test_the_package_imports_no_script_of_the_clone():
    for module, file in MODULES.items():
        roots = {name.split(".")[0] for name in imports_of(file, everywhere=True)}
        assert not roots & SCRIPTS - {"geometry_fusion"}, module


def test_training_is_imported_by_nothing_but_its_own_commands():
    users = {
        module
        for module, file in MODULES.items()
        if part_of(module) != "training"
        and any(part_of(name) == "training" for name in imports_of(file, everywhere=True))
    }
    assert users == {"geometry_fusion.commands.train", "geometry_fusion.commands.cache_geometry"}


def test_photo_collections_are_imported_by_those_who_run_them_alone():
    users = {
        part_of(module)
        for module, file in MODULES.items()
        if any(part_of(name) == "photos" for name in imports_of(file, everywhere=True))
    }
    assert users == {"photos", "commands", "evaluation", "ui"}


def test_functions_for_other_programs_are_imported_by_nothing():
    """Their modules need the packages of those programs."""
    for module, file in MODULES.items():
        is_one = part_of(module) == "integrations"
        assert is_one or "import geometry_fusion.integrations" not in file.read_text(), module
        assert is_one or "from geometry_fusion.integrations" not in file.read_text(), module


def test_imports_make_no_circle():
    below = {
        # The face hands names on when they are first used.
        module: set() if module == "geometry_fusion" else imports_of(file, True) & MODULES.keys()
        for module, file in MODULES.items()
    }
    done, path = set(), []

    def visit(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for imported in below[module] - {module}:
            visit(imported)
        done.add(path.pop())

    for module in below:
        visit(module)


def test_the_command_line_loads_nothing_heavy():
    """What parsers import, all the way down, is light: no torch, no sam2, no numpy."""
    heavy = {"torch", "torchvision", "sam2", "numpy", "cv2", "scipy", "matplotlib", "hydra", "av"}
    waiting, seen = ["geometry_fusion.commands.parsers", "geometry_fusion.commands.console"], set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        imported = imports_of(MODULES[module], everywhere=False)
        assert not {name.split(".")[0] for name in imported} & heavy, module
        waiting += [name for name in imported if name in MODULES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(file):
    text = file.read_text()
    lines = text.splitlines()
    assert len(lines) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name}: {length} lines"


def test_no_statement_is_a_forgotten_string():
    """A long string that was split without brackets is two statements."""
    for file in [*FILES, *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            body = getattr(node, "body", [])
            for statement in body[1:] if isinstance(body, list) else []:
                is_string = isinstance(statement, ast.Expr) and isinstance(
                    statement.value, ast.JoinedStr
                )
                assert not is_string, f"{file.name}:{statement.lineno}"


def test_relative_links_of_the_documents_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_measured_files_hold_no_absolute_path():
    folders = [ROOT / "benchmarks/measured", ROOT / "checkpoints", ROOT / "must3r_weights"]
    files = [file for folder in folders for file in folder.rglob("*")]
    texts = [f for f in files if f.suffix in (".json", ".jsonl", ".txt", ".csv", ".yaml", ".log")]
    assert len(texts) > 20
    for file in texts:
        match = re.search(r"[\"' =]/(home|root|tmp|work|Users|mnt)/", file.read_text())
        assert match is None, file


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100
