# SPDX-License-Identifier: GPL-2.0
"""The bench's arithmetic. Needs no guest: scripts/enter pytest tests/bench"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import table  # noqa: E402


def times(**rounds):
    """Times of one case."""
    result = table.Times(rounds)
    for driver, values in rounds.items():
        for value in values:
            line = {"error": "EACCES"} if value is None else {"ns": value * 10, "ops": 10}
            result.add("case", driver, line, 0.5)
    return result


def test_verdict_needs_agreement():
    """One round that says otherwise makes it noise; so does a small difference, and too few rounds."""
    assert table.verdict([1.2, 1.3, 1.1]) == "slower?"
    assert table.verdict([1.2, 1.3, 1.1, 1.4, 1.2]) == "slower"
    assert table.verdict([1.2, 1.3, 0.99]) == "="
    assert table.verdict([1.01, 1.02, 1.03]) == "="
    assert table.verdict([0.5, 0.9, 0.6]) == "faster?"
    assert table.verdict([0.5, 0.5]) == ""


def test_many_rounds_outvote_a_few():
    """What one round says weighs less the more there are; five have to agree."""
    assert [table.left_out(count) for count in (1, 5, 8, 9, 11, 12, 30)] == [0, 0, 0, 1, 1, 2, 9]
    assert table.spread([1.2, 0.5, 1.1, 1.3, 1.4]) == (1.2, 0.5, 1.4)
    assert table.spread([1.2] * 7 + [0.5, 9.0]) == (1.2, 1.2, 1.2)
    assert table.verdict([1.2] * 8 + [0.9]) == "slower"
    assert table.verdict([1.2] * 7 + [0.9] * 2) == "="


def test_ratios_pair_rounds():
    """The ratio is taken within a round, and a failed run has none."""
    result = times(ours=[100, 1000, None], C=[200, 2000, 10])
    assert result.ratio("case", "ours", "C") == [0.5, 0.5]
    assert table.failures(result, table.Counts([])) == ["ours fails case: EACCES"]


def test_times_table():
    """It shows medians in microseconds, and the verdict."""
    result = times(ours=[3000, 2000, 2500], C=[1000, 1000, 1000])
    assert "2.50" in result.table() and "2.50 [2.00..3.00]" in result.table()
    assert result.summary() == ["ours against C: 0 faster, 0 neither, 1 slower", "slower?: case, 2.50 [2.00..3.00], best 2.00"]


def test_cpu():
    """The processors' time has ratios of its own."""
    result = table.Times(["ours", "C"])
    for _ in range(3):
        result.add("case", "ours", {"ns": 100, "ops": 10}, 0.3)
        result.add("case", "C", {"ns": 100, "ops": 10}, 0.2)
    assert result.verdicts() == {"case": "="}
    assert result.summary()[1:] == ["more cpu?: case, 1.50 [1.50..1.50]"]


def test_a_case_that_always_fails():
    """It is shown as such, and has no verdict."""
    result = times(ours=[None, None, None], C=[1, 1, 1])
    assert "FAILS" in result.table()
    assert result.verdicts() == {"case": ""}


def test_counts():
    """Counts are per operation; more requests, kicks or bytes are named."""
    counts = table.Counts(["ours", "C"])
    for driver, lookups in (("ours", 20), ("C", 10)):
        counters = {"requests": {"LOOKUP": lookups, "OPEN": 10}, "queues": [{"kicks": 10, "interrupts": 5}] * 2, "complaints": 1}
        counters |= {"dax": {"map_us": 0, "unmap_us": 0}, "bytes": {"read": lookups * 1024, "written": 10240}}
        counts.add("case", driver, {"ops": 10}, counters)
    assert counts.each("case", "ours", "requests") == 3
    assert counts.each("case", "C", "kicks") == 2
    assert counts.opcodes("case") == "LOOKUP 2.00/1.00, OPEN 1.00"
    assert counts.more() == ["more requests: case, 3.00 against 2.00", "more KiB: case, 3.00 against 2.00"]
    assert "LOOKUP" in counts.table()
    assert counts.complaints == {"ours": 1, "C": 1}
