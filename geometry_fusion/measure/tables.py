"""Text tables of scores, and differences between two arms."""

from collections.abc import Mapping, Sequence

from geometry_fusion.measure.scores import MEASURES, Scores, interval, mean_of, values_of


def score_table(arms: Mapping[str, Mapping[int, Scores]]) -> str:
    """A text table with a row for each measure and a column for each arm.

    arms: name -> scores by object id. With more than one object, each number has its bootstrap 95%
    interval over objects. Two arms have a third column with their difference (second minus first),
    paired: the mean over the objects for which both arms have the measure.
    """
    columns = {
        name: {m: _cell(values_of(objects.values(), m)) for m in MEASURES}
        for name, objects in arms.items()
    }
    if len(arms) == 2:
        differences = score_differences(*arms.values())
        columns[" - ".join(reversed(arms))] = {
            m: _cell(differences[m], signed=True) for m in MEASURES
        }
    widths = [max(len(text) for text in (name, *cells.values())) for name, cells in columns.items()]
    rows = [["", *columns]]
    for measure in MEASURES:
        rows.append([measure, *(cells[measure] for cells in columns.values())])
    lines = []
    for label, *texts in rows:
        padded = [f"{text:>{width}}" for text, width in zip(texts, widths, strict=True)]
        lines.append(f"{label:<14}" + "  ".join(padded))
    return "\n".join(lines)


def score_differences(a: Mapping[int, Scores], b: Mapping[int, Scores]) -> dict[str, list[float]]:
    """Per measure, B - A of each object for which both arms have the measure.

    a, b: scores by object id, of the same objects.
    """
    differences = {}
    for measure in MEASURES:
        pairs = [(getattr(a[i], measure), getattr(b[i], measure)) for i in a]
        differences[measure] = [
            of_b - of_a for of_a, of_b in pairs if of_a is not None and of_b is not None
        ]
    return differences


def _cell(values: Sequence[float], signed: bool = False) -> str:
    """The mean, with its interval in brackets if there is one."""
    if not values:
        return "none"
    sign = "+" if signed else ""
    text = f"{mean_of(values):{sign}.4f}"
    if limits := interval(values):
        text += f" [{limits[0]:{sign}.4f}, {limits[1]:{sign}.4f}]"
    return text
