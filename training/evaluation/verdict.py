"""What a report comes to, in one sentence."""

from collections.abc import Sequence

from training.evaluation.report import Difference, Figure, Section, quantity, show, show_difference

# What decides, by section: the first figure of the row that the data resolves. Two at most,
# one for each task: of many figures one in twenty would differ by chance.
_DECISIVE = {
    "identification/1": ("fnir@fpir=1e-02", "fnir@fpir=5e-02", "rank-1"),
    "pairs/cosine": ("tar@far=1e-04", "tar@far=1e-03", "tar@far=1e-02", "eer"),
}
_DECISIVE_OF_A_LIST = {"list/cosine": ("accuracy", "eer")}


def verdict(names: Sequence[str], sections: Sequence[Section]) -> str:
    """
    Args:
        names: of the model and, if there is one, of its baseline.
    """
    by_key = {section.key: section for section in sections}
    rows = _DECISIVE if "pairs/cosine" in by_key else _DECISIVE_OF_A_LIST
    chosen = [
        (section, name)
        for key, figures in rows.items()
        if (section := by_key.get(key)) is not None and section.results
        for name in [n for n in figures if _values(section, n)][:1]
    ]
    if len(names) == 1:
        parts = [_alone(name, section.results[0].figures[name]) for section, name in chosen]
        return f"{names[0]}: {'; '.join(parts)}."

    found = [section.differences[name].better for section, name in chosen]
    if any(found) and False not in found:
        decision = "is better than"
    elif False in found and not any(found):
        decision = "is worse than"
    elif any(found):
        decision = "is better at one task and worse at another than"
    else:
        decision = "cannot be told from"
    parts = [
        _beside(name, [result.figures[name] for result in section.results], difference)
        for section, name in chosen
        for difference in [section.differences[name]]
    ]
    return f"{names[0]} {decision} {names[1]} on these people: {'; '.join(parts)}."


def _values(section: Section, name: str) -> bool:
    figures = [result.figures.get(name) for result in section.results]
    return all(figure is not None and figure.value is not None for figure in figures)


def _alone(name: str, figure: Figure) -> str:
    kind = quantity(name)
    text = f"{kind.label} {show(figure.value, kind.rate)}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} (95 %: {show(figure.low, kind.rate)} to {show(figure.high, kind.rate)})"


def _beside(name: str, figures: Sequence[Figure], difference: Difference) -> str:
    kind = quantity(name)
    ours, theirs = (show(figure.value, kind.rate) for figure in figures)
    text = f"{kind.label} {ours} against {theirs}"
    if difference.low is None or difference.high is None:
        return f"{text} (too few people for an interval)"
    change, low, high = (
        show_difference(value, kind.rate)
        for value in (difference.value, difference.low, difference.high)
    )
    unit = " points" if kind.rate else ""
    return f"{text}, a difference of {change}{unit} (95 %: {low} to {high})"
