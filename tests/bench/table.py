# SPDX-License-Identifier: GPL-2.0
"""What the bench makes of its measurements: medians, ratios, verdicts, and the tables that show them."""

import math
import statistics

# A difference counts when the rounds that are not left out agree on its direction and the median is at least this far from one.
MARGIN = 0.05
# With fewer rounds there is no verdict.
LEAST = 3
# That so many rounds agree by chance is unlikely; where fewer do, a question mark says so.
ENOUGH = 5

# What a daemon counts beside requests.
MEASURES = ("kicks", "interrupts", "map_us", "unmap_us", "KiB")


def left_out(count):
    """How many of so many rounds may be left out at each end, so that the median of all rounds that could be had lies between the
    others as surely as it lies between `ENOUGH` rounds (sign test): none of up to eight, one of nine.
    """
    unsure = 2 / 2**ENOUGH
    out = 0
    while 2 * sum(math.comb(count, less) for less in range(out + 2)) / 2**count <= unsure:
        out += 1
    return out


def spread(values):
    """(median, least, greatest), without rounds of which there are enough others, see `left_out`."""
    out = left_out(len(values))
    ordered = sorted(values)
    return statistics.median(values), ordered[out], ordered[-1 - out]


def ratios(ours, theirs):
    """The ratio of each round: both were measured within seconds, so what slowed down the one slowed down the other."""
    return [mine / other for mine, other in zip(ours, theirs) if mine and other]


def verdict(ratio):
    """What the ratios of a case say: "slower", "faster", or "=", nothing that can be told from noise."""
    if len(ratio) < LEAST:
        return ""
    middle, least, greatest = spread(ratio)
    doubt = "" if len(ratio) >= ENOUGH else "?"
    if middle > 1 + MARGIN and least > 1:
        return f"slower{doubt}"
    if middle < 1 / (1 + MARGIN) and greatest < 1:
        return f"faster{doubt}"
    return "="


def number(value):
    """Three digits or so."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def small(value):
    """Two digits of something that may be far below one."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}" if value else "0"


def median_text(values):
    """The median of nanoseconds, but for failed runs, as microseconds."""
    good = [value for value in values if value is not None]
    return number(statistics.median(good) / 1000) if good else "FAILS"


def ratio_text(ratio):
    """A median ratio with its range."""
    if not ratio:
        return "-"
    return "{} [{}..{}]".format(*(f"{value:.2f}" for value in spread(ratio)))


def failures(*tables):
    """A line for each case and driver that failed in one of the tables."""
    errors = {key: error for one in reversed(tables) for key, error in one.errors.items()}
    return [f"{driver} fails {case}: {error}" for (case, driver), error in errors.items()]


def grid(head, rows):
    """Rows of texts in columns: the first aligned left, the others right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


class Times:
    """What each operation of a case took, by driver and round: nanoseconds of time, and of the host's processors."""

    def __init__(self, drivers):
        self.drivers = list(drivers)
        self.values = {}
        self.errors = {}

    def add(self, case, driver, line, cpu):
        """Adds what one run printed, and the seconds of the host's processors that it took."""
        value = None
        if "error" in line:
            self.errors.setdefault((case, driver), line["error"])
        else:
            value = {"time": line["ns"] / line["ops"], "cpu": cpu * 1e9 / line["ops"]}
        self.values.setdefault(case, {}).setdefault(driver, []).append(value)

    def of(self, case, driver, what="time"):
        """All rounds of a case, `None` where it failed."""
        return [value and value[what] for value in self.values.get(case, {}).get(driver, [])]

    def ratio(self, case, driver, other, what="time"):
        """Round by round, how much more `driver` took than `other`."""
        return ratios(self.of(case, driver, what), self.of(case, other, what))

    def best_ratio(self, case, driver, other):
        """The ratio of the quickest rounds: what disturbs a machine only ever adds time."""
        mine, theirs = ([value for value in self.of(case, who) if value] for who in (driver, other))
        return min(mine) / min(theirs) if mine and theirs else None

    def verdicts(self, what="time"):
        """The verdict of each case on the first driver against the second."""
        if len(self.drivers) < 2:
            return {}
        return {case: verdict(self.ratio(case, *self.drivers[:2], what)) for case in self.values}

    def table(self):
        """The table."""
        first, *others = self.drivers
        head = ["case, us per operation", *self.drivers]
        for other in others:
            head += [f"{first}/{other} [least..most]", "best", "cpu [least..most]"]
        head.append("")
        rows = []
        for case in self.values:
            row = [case]
            for driver in self.drivers:
                row.append(median_text(self.of(case, driver)))
            for other in others:
                row += [ratio_text(self.ratio(case, first, other)), number(self.best_ratio(case, first, other))]
                row.append(ratio_text(self.ratio(case, first, other, "cpu")))
            row.append(self.verdicts().get(case, ""))
            rows.append(row)
        return grid(head, rows)

    def summary(self):
        """How many cases are faster, slower, or neither; and which are slower, or cost more."""
        verdicts, costs = self.verdicts(), self.verdicts("cpu")
        if not verdicts:
            return []
        first, second = self.drivers[:2]
        found = [value.rstrip("?") for value in verdicts.values()]
        counts = {what: found.count(what) for what in ("faster", "=", "slower")}
        lines = [f"{first} against {second}: {counts['faster']} faster, {counts['=']} neither, {counts['slower']} slower"]
        for case in self.values:
            if verdicts[case].startswith("slower"):
                best = number(self.best_ratio(case, first, second))
                lines.append(f"{verdicts[case]}: {case}, {ratio_text(self.ratio(case, first, second))}, best {best}")
            if costs[case].startswith("slower"):
                what = costs[case].replace("slower", "more cpu")
                lines.append(f"{what}: {case}, {ratio_text(self.ratio(case, first, second, 'cpu'))}")
        return lines


class Counts:
    """What a daemon counted for each case and driver: requests by opcode, kicks, interrupts, KiB read and written, and its time for maps."""

    def __init__(self, drivers):
        self.drivers = list(drivers)
        self.values = {}
        self.errors = {}
        self.complaints = {}

    def add(self, case, driver, line, counters):
        """Adds what one run printed, and the daemon's counters of the time in which it ran; runs add up."""
        if "error" in line:
            self.errors[case, driver] = line["error"]
            return
        self.complaints[driver] = self.complaints.get(driver, 0) + counters["complaints"]
        entry = self.values.setdefault(case, {}).setdefault(driver, {"ops": 0, "requests": {}, **dict.fromkeys(MEASURES, 0)})
        entry["ops"] += line["ops"]
        for opcode, count in counters["requests"].items():
            entry["requests"][opcode] = entry["requests"].get(opcode, 0) + count
        for what in ("kicks", "interrupts"):
            entry[what] += sum(queue[what] for queue in counters["queues"])
        for what in ("map_us", "unmap_us"):
            entry[what] += counters["dax"][what]
        entry["KiB"] += sum(counters["bytes"].values()) / 1024

    def each(self, case, driver, what):
        """Requests (all, or of one opcode) or another measure per operation."""
        entry = self.values.get(case, {}).get(driver)
        if entry is None:
            return None
        if what == "requests":
            return sum(entry["requests"].values()) / entry["ops"]
        return entry.get(what, entry["requests"].get(what, 0)) / entry["ops"]

    def opcodes(self, case):
        """Each opcode with its count per operation, the drivers beside each other where they differ."""
        names = sorted({name for entry in self.values[case].values() for name in entry["requests"]})
        texts = []
        for name in names:
            each = [small(value) for value in self._known(case, name)]
            texts.append(f"{name} {each[0] if len(set(each)) == 1 else '/'.join(each)}")
        return ", ".join(texts)

    def _known(self, case, what):
        values = (self.each(case, driver, what) for driver in self.drivers)
        return [value for value in values if value is not None]

    def table(self):
        """The table."""
        measures = ("requests", "kicks", "interrupts", "KiB")
        slashed = "/".join(self.drivers)
        head = ["case, per operation", *(f"{what} {slashed}" for what in measures)]
        rows, texts = [], []
        for case in self.values:
            row = [case]
            for what in measures:
                values = (self.each(case, driver, what) for driver in self.drivers)
                row.append(" / ".join("-" if value is None else small(value) for value in values))
            rows.append(row)
            texts.append(self.opcodes(case))
        # The opcodes vary in length: they are no column of the grid.
        lines = grid(head, rows).splitlines()
        return "\n".join([lines[0] + "  of these", lines[1], *(f"{line}  {text}" for line, text in zip(lines[2:], texts))])

    def more(self):
        """A line for each case in which the first driver needs more requests or kicks than the second, or transfers more."""
        if len(self.drivers) < 2:
            return []
        first, second = self.drivers[:2]
        lines = []
        for case in self.values:
            requests = self.each(case, second, "requests")
            # How many kicks are one depends on how busy the daemon is: what counts is more than a kick for each request.
            for what, most in (("requests", requests), ("kicks", requests), ("KiB", self.each(case, second, "KiB"))):
                mine = self.each(case, first, what)
                # A case opens and closes something, which is little beside its operations.
                if mine is not None and most is not None and mine > most * (1 + MARGIN) + 0.01:
                    other = self.each(case, second, what)
                    lines.append(f"more {what}: {case}, {number(mine)} against {number(other)}")
        return lines
