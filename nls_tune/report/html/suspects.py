"""A page of the most suspicious labels with their images, which opens anywhere, offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nls_tune.datasets.mapped import InputArray
from nls_tune.noise.label_issues import LabelIssues
from nls_tune.report.html.page import environment

#: So many labels are shown.
MOST_SHOWN = 200


@dataclass(frozen=True)
class _Card:
    """A suspicious label as the page shows it."""

    rank: int
    origin: str
    label: str
    suggested: str
    score: str
    image: str


def suspects_page(
    title: str,
    issues: LabelIssues,
    images: InputArray,
    class_names: Sequence[str] | None = None,
    origins: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """Return the page; ``images`` are those of the dataset, (N, C, H, W) uint8, by which the issues are numbered.

    The ``origins`` are columns of words for the same rows, and name each image in place of its number.
    """

    def name(label: int) -> str:
        return f"class {label}" if class_names is None else class_names[label]

    def origin(index: int) -> str:
        if not origins:
            return f"sample {index}"
        return ", ".join(
            str(values[index]) if key == "file" else f"{key} {values[index]}" for key, values in origins.items()
        )

    cards = [
        _Card(
            rank=i + 1,
            origin=origin(int(issues.indices[i])),
            label=name(int(issues.labels[i])),
            suggested=name(int(issues.suggested[i])),
            score=f"{issues.scores[i]:.3f}",
            image=_data_uri(images[issues.indices[i]]),
        )
        for i in range(min(len(issues), MOST_SHOWN))
    ]
    page = environment().get_template("suspects.html.j2").render(title=title, cards=cards, total=len(issues))
    return page.encode("utf-8", errors="replace")


def _data_uri(image: np.ndarray) -> str:
    """Return an image (C, H, W) of one or three channels, uint8, as a PNG in a URI."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
