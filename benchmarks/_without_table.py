"""Makes the table of what each optional algorithm of the engine gains."""

import json

from benchmarks._common import RESULTS
from benchmarks._inference_models import NETWORKS
from benchmarks._inference_without import FEATURES, LEAST_GAIN


def make(markdown):
    """Returns a table per processor, each with a paragraph below it.

    Args:
        markdown: Function `(header, rows) -> string`.
    """
    paths = sorted(RESULTS.glob("inference*/without.json"))
    if not paths:
        return "Not measured yet: `python -m benchmarks.inference --without all`."
    contents = [json.loads(path.read_text()) for path in paths]
    return "\n\n".join(_part(markdown, content) for content in contents)


def _part(markdown, content):
    results = content["results"]
    header = ["without", *map(_title, results)]
    rows = [
        [feature.title, *(_cell(by_threads, key) for by_threads in results.values())]
        for key, feature in FEATURES.items()
    ]
    unused = [title for title, *cells in rows if not any(cells)]
    rows = [row for row in rows if row[0] not in unused]
    paragraph = (
        f"Measured on {content['cpu']}, {content['cores']} cores of a shared machine, on "
        f"{content['date'][:10]}. A number is the time of the network without the algorithm over "
        "its time with it, on one thread / two threads; in bold where it is at least "
        f"{LEAST_GAIN:.2f}. Cells are empty, or have a dash, where no layer chose the algorithm."
    )
    if unused:
        paragraph += f" No network on this processor chose: {', '.join(unused)}."
    return f"{markdown(header, rows)}\n\n{paragraph}"


def _title(name):
    name, comma, rest = name.partition(",")
    return f"{NETWORKS[name].title}{comma}{rest}"


def _cell(by_threads, key):
    gains = [one[key] and one[key]["gain"] for one in by_threads.values()]
    return " / ".join(map(_number, gains)) if any(gains) else ""


def _number(gain):
    if gain is None:
        return "-"
    return f"**{gain:.2f}**" if gain >= LEAST_GAIN else f"{gain:.2f}"
