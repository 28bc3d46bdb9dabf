"""The table of cases and their tests, printed by `pytest tests/faults --co -q`."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.faults.cases import CASES

_TESTS: pytest.StashKey[dict[int, set[str]]] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` leaves some out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = config.stash.setdefault(_TESTS, defaultdict(set))
    for item in items:
        for mark in item.iter_markers("fault"):
            for number in mark.args:
                tests[number].add(item.name.partition("[")[0])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.option.collectonly:
        tests = config.stash[_TESTS]
        for number, text in CASES.items():
            terminalreporter.write_line(f"{number:2} {text}")
            terminalreporter.write_line(f"   {', '.join(sorted(tests[number])) or 'NO TEST'}")
