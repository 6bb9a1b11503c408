# SPDX-License-Identifier: GPL-2.0
"""What make bench-dax is to show: the goals of each case, whether they were met, and the table that says so."""

import dataclasses
import fnmatch

import table

# Requests that have a column of their own.
REQUESTS = ("SETUPMAPPING", "REMOVEMAPPING", "READ", "WRITE")


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a case is to show: how many times as fast this driver is as others, and which request it never makes."""

    speed: dict = dataclasses.field(default_factory=dict)
    never: str = ""


# The first pattern that fits a case's name counts.
GOALS = {
    # Beyond the window: far above the C driver, and never below what no window at all gives.
    "[48]x-rand-*": Goal({"C": 10, "no DAX": 1}),
    "100-rand-*": Goal({"C": 10, "no DAX": 1}),
    "[48]x-map-*": Goal({"C": 4}),
    # All 400 files have a range, where the C driver has 16 for them.
    "400-files": Goal(never="SETUPMAPPING"),
    # What fits, and what is read or written from the start to the end.
    "in-*": Goal({"C": 1}),
    "4x-seq-*": Goal({"C": 1}),
    "4x-write-*": Goal({"C": 1}),
}


def goal_of(case):
    """The goal of a case, or None."""
    return next((goal for pattern, goal in GOALS.items() if fnmatch.fnmatchcase(case, pattern)), None)


def judge(speeds, best, factor):
    """Whether a speed was met, in the median of the rounds; with a question mark where that may be chance.

    `best` is that of the quickest rounds of each.
    """
    if not speeds:
        return "not measured"
    middle, least, greatest = table.spread(speeds)
    few = len(speeds) < table.LEAST
    if middle >= factor:
        return "met?" if few or least < factor else "met"
    near = max(middle, best) >= factor * (1 - table.MARGIN)
    return "missed?" if few or near or greatest >= factor else "missed"


@dataclasses.dataclass(frozen=True)
class Line:
    """One goal of one case, and what became of it."""

    case: str
    other: str
    text: str
    verdict: str
    shown: str


def lines_of(case, times, counts):
    """What became of each goal of a case whose drivers were measured."""
    goal, (first, *others) = goal_of(case), times.drivers
    lines = []
    for other, factor in goal.speed.items():
        if other in others:
            speeds = times.ratio(case, other, first)
            verdict = judge(speeds, times.best_ratio(case, other, first), factor)
            lines.append(Line(case, other, f">= {factor}", verdict, table.ratio_text(speeds)))
    made = counts.each(case, first, goal.never) if goal.never else None
    if made is not None:
        lines.append(Line(case, first, f"no {goal.never}", "missed" if made else "met", table.small(made)))
    return lines


def all_lines(times, counts):
    """What became of all goals."""
    return [line for case in times.values for line in lines_of(case, times, counts)]


def grid(times, counts):
    """The table: a row for each case and driver, times, requests, and goals beside each other."""
    first = times.drivers[0]
    head = ["case", "driver", "us", "cpu", "maps us", *REQUESTS, "others", f"speed of {first} [least..most]", "best", "goal", ""]
    rows = []
    for case in times.values:
        lines = {line.other: line for line in lines_of(case, times, counts)}
        for driver in times.drivers:
            if driver not in times.values[case]:
                continue
            row = ["" if driver != first else case, driver]
            row += [table.median_text(times.of(case, driver, what)) for what in ("time", "cpu")]
            maps = [counts.each(case, driver, what) for what in ("map_us", "unmap_us")]
            row.append("-" if None in maps else table.number(sum(maps)))
            known = [counts.each(case, driver, what) for what in REQUESTS]
            row += ["-" if value is None else table.small(value) for value in known]
            rest = None if None in known else counts.each(case, driver, "requests") - sum(known)
            row.append("-" if rest is None else table.small(rest))
            line = lines.get(driver)
            if driver == first:
                row += ["", ""]
            else:
                row += [table.ratio_text(times.ratio(case, driver, first)), table.number(times.best_ratio(case, driver, first))]
            rows.append([*row, line.text if line else "", line.verdict if line else ""])
    return table.grid(head, rows)


def summary(times, counts):
    """How many goals were met, and which were not."""
    lines = all_lines(times, counts)
    wrong = [line for line in lines if not line.verdict.startswith("met")]
    texts = [f"{len(lines) - len(wrong)} of {len(lines)} goals met"]
    for line in wrong:
        against = "" if line.other == times.drivers[0] else f" against {line.other}"
        texts.append(f"{line.verdict}: {line.case}{against}, {line.shown}, goal {line.text}")
    return texts
