"""The one exception that is a user's mistake or circumstance: shown as a single line, exit code 2, no traceback."""

from collections.abc import Mapping


class UserError(Exception):
    """What is wrong, with the offending value, and what to do about it, in one sentence."""


def differing(expected: Mapping[str, object], there: Mapping[str, object], named: int = 5) -> str:
    """Which arrays are missing, unknown or of another shape, given the shapes by name; "" where all fit."""
    kinds = {
        "missing": expected.keys() - there.keys(),
        "unknown": there.keys() - expected.keys(),
        "of another shape": {name for name in expected.keys() & there.keys() if expected[name] != there[name]},
    }

    def listed(names: set[str]) -> str:
        more = f" and {len(names) - named} more" if len(names) > named else ""
        return ", ".join(sorted(names)[:named]) + more

    return "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items() if names)
