"""Where two settings differ: what a format that cannot say everything must tell before it writes a file."""

import math
from typing import Any


def difference(a: Any, b: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """(place, a's value, b's value) of the first difference of two tables, or None; fractions may differ by a millionth.

    >>> difference({"x": [1, {"y": 2.0}]}, {"x": [1, {"y": 3.0}]})
    ('x[1].y', 2.0, 3.0)
    """
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(f"{place}.{key}".lstrip("."), a.get(key), b.get(key)) for key in {**a, **b}]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(f"{place}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if a == b or _near(a, b) else (place, a, b)
    return next((found for where, x, y in pairs if (found := difference(x, y, where))), None)


def _near(a: Any, b: Any) -> bool:
    return isinstance(a, float | int) and isinstance(b, float | int) and math.isclose(a, b, rel_tol=1e-6)
