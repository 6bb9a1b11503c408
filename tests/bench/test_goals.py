# SPDX-License-Identifier: GPL-2.0
"""The goals of make bench-dax. Needs no guest: scripts/enter pytest tests/bench"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "scripts")]

import goals  # noqa: E402
import pytest  # noqa: E402
import table  # noqa: E402


def measured(case, requests=None, **rounds):
    """Times of one case by driver (spaces as underscores), and counts of a hundred operations for the first of them."""
    names = [driver.replace("_", " ") for driver in rounds]
    times, counts = table.Times(names), table.Counts(names)
    for driver, values in zip(names, rounds.values()):
        for value in values:
            times.add(case, driver, {"error": "EIO"} if value is None else {"ns": value * 10, "ops": 10}, 0.5)
    counters = {"requests": requests or {}, "queues": [{"kicks": 1, "interrupts": 1}], "complaints": 0}
    counters |= {"dax": {"map_us": 200, "unmap_us": 100}, "bytes": {"read": 0, "written": 0}}
    counts.add(case, names[0], {"ops": 100}, counters)
    return times, counts


def verdicts(times, counts):
    """The verdict on each other driver."""
    return {line.other: line.verdict for line in goals.all_lines(times, counts)}


@pytest.mark.parametrize(
    "speeds, best, factor, verdict",
    [
        ([1.2, 1.3, 1.1], 0.5, 1, "met"),
        ([1.2, 1.3, 0.9], 0.5, 1, "met?"),
        ([1.2, 1.3], 0.5, 1, "met?"),
        ([0.8, 0.9, 0.7], 0.5, 1, "missed"),
        ([0.8, 0.9, 0.7], 1.1, 1, "missed?"),
        ([0.8, 0.9, 1.1], 0.5, 1, "missed?"),
        ([0.98, 0.97, 0.96], 0.5, 1, "missed?"),
        ([9.0, 9.4, 9.2], 0.5, 10, "missed"),
        ([0.5], 0.5, 1, "missed?"),
        ([], None, 1, "not measured"),
    ],
)
def test_judge(speeds, best, factor, verdict):
    """The median decides; where rounds disagree, are few, or it is a matter of a few percent, it is doubted."""
    assert goals.judge(speeds, best, factor) == verdict


def test_beyond_the_window():
    """Ten times the C driver and never below no DAX, each with a verdict of its own."""
    assert verdicts(*measured("8x-rand-4k", ours=[100] * 3, C=[1100] * 3, no_DAX=[80] * 3)) == {"C": "met", "no DAX": "missed"}
    assert verdicts(*measured("8x-map-4k", ours=[100] * 3, C=[350] * 3)) == {"C": "missed"}
    assert verdicts(*measured("8x-map-4k", ours=[80] * 3, C=[350] * 3)) == {"C": "met"}
    # What is left out has no verdict.
    assert verdicts(*measured("8x-rand-4k", ours=[100] * 3)) == {}


def test_a_round_that_fails():
    """It has no speed, and where all do, nothing is met."""
    times, counts = measured("in-rand-4k", ours=[100, None, 100], C=[200, 200, 200])
    assert verdicts(times, counts) == {"C": "met?"}
    times, counts = measured("in-rand-4k", ours=[None] * 3, C=[200] * 3)
    assert goals.summary(times, counts) == ["0 of 1 goals met", "not measured: in-rand-4k against C, -, goal >= 1"]
    assert "FAILS" in goals.grid(times, counts)


def test_a_request_that_is_never_made():
    """One is too many."""
    times, counts = measured("400-files", {"READ": 5}, ours=[1] * 3, C=[2] * 3)
    assert verdicts(times, counts) == {"ours": "met"}
    times, counts = measured("400-files", {"SETUPMAPPING": 1}, ours=[1] * 3, C=[2] * 3)
    assert verdicts(times, counts) == {"ours": "missed"}
    assert goals.summary(times, counts)[1:] == ["missed: 400-files, 0.0100, goal no SETUPMAPPING"]


def test_grid():
    """Times, requests per operation and goals stand beside each other; what was not counted is not zero."""
    times, counts = measured("in-seq-4k", {"READ": 50, "OPEN": 25}, ours=[2000] * 3, C=[3000] * 3)
    head, _, ours, other = (line.split() for line in goals.grid(times, counts).splitlines())
    assert head[:6] == ["case", "driver", "us", "cpu", "maps", "us"]
    assert ours[:3] == ["in-seq-4k", "ours", "2.00"] and ours[4:] == ["3.00", "0", "0", "0.50", "0", "0.25"]
    assert other[:2] == ["C", "3.00"] and other[3:] == ["-"] * 6 + ["1.50", "[1.50..1.50]", "1.50", ">=", "1", "met"]


def test_runs_add_up():
    """What the daemon counted in several rounds is one count."""
    counts = table.Counts(["ours"])
    for reads in (10, 30):
        counters = {"requests": {"READ": reads}, "queues": [{"kicks": reads, "interrupts": 1}], "complaints": 0}
        counters |= {"dax": {"map_us": 0, "unmap_us": reads}, "bytes": {"read": reads, "written": 0}}
        counts.add("case", "ours", {"ops": 20}, counters)
    assert counts.each("case", "ours", "READ") == 1
    assert counts.each("case", "ours", "kicks") == 1
    assert counts.each("case", "ours", "unmap_us") == 1
    assert counts.each("case", "ours", "interrupts") == 0.05


def test_every_case_has_a_goal():
    """The table of cases and that of goals fit each other, and every group of cases has a window."""
    import bench_dax
    import measure

    listed = measure.listed("bench-dax")
    assert {group for _, group, _, _ in listed} == {group for groups in bench_dax.WINDOWS.values() for group in groups}
    found = [goals.goal_of(name) for name, *_ in listed]
    assert None not in found
    for goal in goals.GOALS.values():
        assert goal in found
        assert set(goal.speed) <= set(bench_dax.DRIVERS)


def test_exit_code():
    """A goal that was missed is wrong if one is strict; a case that fails always is, and a doubtful goal never."""
    import bench_dax

    def wrong(**rounds):
        report = bench_dax.Report(*measured("in-rand-4k", **rounds))
        return report.wrong(strict=False), report.wrong(strict=True)

    assert wrong(ours=[100] * 3, C=[110] * 3) == (False, False)
    assert wrong(ours=[100] * 3, C=[50] * 3) == (False, True)
    assert wrong(ours=[100] * 3, C=[50, 50, 110]) == (False, False)
    assert wrong(ours=[100, None, 100], C=[110] * 3) == (True, True)
    # What the other driver cannot do is not this one's fault.
    assert wrong(ours=[100] * 3, C=[110, None, 110]) == (False, False)


def test_numbers_that_cannot_be_saved(monkeypatch, capsys, tmp_path):
    """It is said before anything is measured."""
    import bench_dax

    monkeypatch.setattr(sys, "argv", ["bench_dax.py", "--json", str(tmp_path / "missing" / "numbers.json")])
    with pytest.raises(SystemExit):
        bench_dax.arguments()
    assert "--json" in capsys.readouterr().err.splitlines()[-1]


def test_drivers_of_groups():
    """Only where the goal names them there are runs without DAX; who was not chosen has none."""
    import bench_dax
    from types import SimpleNamespace

    bench = SimpleNamespace(groups={"inside": ["in-rand-4k"], "beyond": ["8x-rand-4k", "4x-rand-4k"], "faults": ["8x-map-4k"]})
    assert bench_dax.groups_of(bench, "64M", ["ours", "C", "no DAX"]) == [
        ("inside", ["in-rand-4k"], ("ours", "C")),
        ("beyond", ["8x-rand-4k", "4x-rand-4k"], ("ours", "C", "no DAX")),
        ("faults", ["8x-map-4k"], ("ours", "C")),
    ]
    assert bench_dax.groups_of(bench, "64M", ["no DAX"]) == [("beyond", ["8x-rand-4k", "4x-rand-4k"], ("no DAX",))]
    assert bench_dax.groups_of(bench, "32M", ["ours"]) == []
