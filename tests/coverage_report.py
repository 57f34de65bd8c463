"""Prints the branch coverage of each package and of each pure module; fails if a pure module is below a threshold.

python -m tests.coverage_report PERCENT < coverage.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.harness import ROOT
from tests.test_layers import FILES, PURE_MODULES, part_of

REACHED, ALL = ("covered_lines", "covered_branches"), ("num_statements", "num_branches")


def percent(summaries: Iterable[Mapping[str, int]]) -> float:
    """The statements and branches that tests reached, of all in these summaries of coverage's JSON report."""
    total = Counter[str]()
    for summary in summaries:
        total.update({key: summary[key] for key in (*REACHED, *ALL)})
    possible = sum(total[key] for key in ALL)
    return 100 * sum(total[key] for key in REACHED) / possible if possible else 100.0


def show(figures: Mapping[str, float]) -> None:
    """Print a line for each figure, the lowest first."""
    for name, figure in sorted(figures.items(), key=lambda item: item[1]):
        print(f"{figure:6.1f} %  {name}")


def main(least_percent: float) -> int:
    """Read coverage's JSON report from standard input; 1 if a pure module is below the threshold."""
    files: dict[str, Any] = json.load(sys.stdin)["files"]
    found = {module: files[str(path.relative_to(ROOT))]["summary"] for module, path in FILES.items()}
    parts = {part_of(module) for module in FILES}
    show({part: percent(one for module, one in found.items() if part_of(module) == part) for part in parts})
    pure = {module: percent([found[module]]) for module in PURE_MODULES}
    print("Pure modules:")
    show(pure)
    low = [module for module, figure in pure.items() if figure < least_percent]
    print(f"{percent(found[module] for module in pure):6.1f} %  all {len(pure)} pure modules")
    print(
        f"{len(low)} of them below {least_percent:g} %: {', '.join(low)}" if low else f"none below {least_percent:g} %"
    )
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
