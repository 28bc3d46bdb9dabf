from __future__ import annotations

import re
from pathlib import Path

from tests.faults.cases import CASES


def test_every_case_has_a_test() -> None:
    assert list(CASES) == list(range(1, 49))
    marks = [
        numbers
        for path in Path(__file__).parent.glob("test_*.py")
        for numbers in re.findall(r"^@pytest\.mark\.fault\(([\d, ]+)\)", path.read_text(), re.M)
    ]
    assert {int(number) for one in marks for number in one.split(",")} == set(CASES)
