"""Reading YAML files of any origin within limits.

The limits are checked before values are built, with aliases followed: a few lines of aliases can
name more values than fit into memory, and a list can contain itself. Resolvers are refused:
`${oc.env:NAME}` in a foreign file would put values of the environment into saved configs.
References to other keys (`${trainer.run_dir}`) are kept.
"""

from pathlib import Path

import yaml

from geometry_fusion.errors import InputError, one_line

MAX_BYTES = 256 << 10
MAX_VALUES = 10_000
MAX_DEPTH = 32
LIMITS = (
    f"at most {MAX_BYTES >> 10} KiB, {MAX_VALUES:,} values with aliases followed, "
    f"{MAX_DEPTH} levels"
)


def read_yaml(file: Path) -> dict:
    """Keys and values of a YAML file. Raises InputError, naming the file, for anything else."""
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{file}: has {size >> 10} KiB; read are {LIMITS}")
    data = file.read_bytes()
    try:
        root = yaml.compose(data, yaml.SafeLoader)
        if root is not None:
            _measure(root, file, {}, set(), 0)
        content = yaml.safe_load(data)
    except RecursionError:
        raise InputError(f"{file}: is nested too deep; read are {LIMITS}") from None
    # Unusual numbers, dates and keys raise other errors than YAMLError.
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise InputError(f"{file}: not valid YAML: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected keys and values, found {type(content).__name__}")
    _refuse_resolvers(content, file)
    return content


def _measure(
    node: yaml.Node, file: Path, measured: dict[int, tuple[int, int]], above: set[int], depth: int
) -> tuple[int, int]:
    """(number of values, levels) of a node, aliases followed. Raises InputError beyond the limits.

    measured: the results by node, so that repeated aliases take no time. above: the nodes that
    contain this one.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 0
    if id(node) in above:
        raise _beyond(node, file, "holds itself")
    if id(node) not in measured:
        inside = node.value
        if isinstance(node, yaml.MappingNode):
            inside = [child for pair in node.value for child in pair]
        if depth > MAX_DEPTH or len(inside) > MAX_VALUES:
            fault = "is nested too deep" if depth > MAX_DEPTH else "holds too many values"
            raise _beyond(node, file, fault)
        children = [
            _measure(child, file, measured, above | {id(node)}, depth + 1) for child in inside
        ]
        measured[id(node)] = (
            1 + sum(size for size, _ in children),
            1 + max((levels for _, levels in children), default=0),
        )
        _refuse_doubles(node, file)
    size, levels = measured[id(node)]
    if size > MAX_VALUES or depth + levels > MAX_DEPTH:
        fault = "holds too many values" if size > MAX_VALUES else "is nested too deep"
        raise _beyond(node, file, fault)
    return size, levels


def _beyond(node: yaml.Node, file: Path, what: str) -> InputError:
    """The error for a node that exceeds the limits."""
    return InputError(f"{file}: line {node.start_mark.line + 1}: {what}; read are {LIMITS}")


def _refuse_doubles(node: yaml.Node, file: Path) -> None:
    """Raise InputError for a mapping that has a key twice; YAML would keep the last value."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    met: set[str] = set()
    for key, _ in pairs:
        if isinstance(key, yaml.ScalarNode) and key.value in met:
            raise InputError(
                f"{file}: line {key.start_mark.line + 1}: the key {key.value!r} is there twice; "
                "keep one"
            )
        met.add(key.value if isinstance(key, yaml.ScalarNode) else "")


def _refuse_resolvers(content: dict, file: Path) -> None:
    """Raise InputError for the first key or value that calls a resolver."""
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [
                (f"{where}.{key}".lstrip("."), text)
                for key, inner in value.items()
                for text in (key, inner)
            ]
        elif isinstance(value, (list, tuple, set)):
            waiting += [(where, inner) for inner in value]
        elif isinstance(value, str) and _calls_resolver(value):
            raise InputError(
                f"{file}: {where}: {value[:60]!r} calls a resolver, which is not done for files; "
                "write the value itself"
            )


def _calls_resolver(text: str) -> bool:
    """Whether a colon stands inside ${...}: references to keys have none."""
    depth = 0
    for index, character in enumerate(text):
        if text.startswith("${", index):
            depth += 1
        elif character == "}" and depth:
            depth -= 1
        elif character == ":" and depth:
            return True
    return False
