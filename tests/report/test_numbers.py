"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mggc_edge.report.numbers import count, decibel, interval, milliseconds, percent, plain, seconds, size
from tests.report.run_folder import typed


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (plain, 0, "0"),
        (plain, 0.01234, "0.0123"),
        (plain, 9.996, "10.0"),
        (plain, 12345, "12,300"),
        (plain, -1.5, "-1.50"),
        (plain, 1.234e-9, "1.23 x 10⁻⁹"),
        (plain, 999_999.7, "1,000,000"),
        (plain, 5e-324, "4.94 x 10⁻³²⁴"),
        (count, 49_551_507_456, "49.6 G"),
        (count, 999_600, "1.00 M"),
        (count, 64, "64"),
        (count, 0, "0"),
        (count, 5e15, "5.00 x 10¹⁵"),
        (milliseconds, 0.1234, "0.123 ms"),
        (milliseconds, 68.43, "68.4 ms"),
        (milliseconds, 12_340, "12.3 s"),
        (seconds, 0.123, "0.12 s"),
        (seconds, 42.4, "42 s"),
        (seconds, 200, "3 min 20 s"),
        (seconds, 59.7, "1 min 0 s"),
        (seconds, 7500, "2 h 5 min"),
        (size, 12, "12 bytes"),
        (size, 232_800, "233 kB"),
        (size, 45_560_211, "45.6 MB"),
        (size, 3e12, "3,000 GB"),
        (percent, 0.0491, "4.9 %"),
        (percent, 0.604, "60 %"),
        (percent, 1, "100 %"),
        (percent, 0, "0 %"),
        (decibel, 27.406, "27.41 dB"),
        (decibel, -3.0, "-3.00 dB"),
        (interval, (11.94, 12.66), "11.9 to 12.7"),
    ],
)
def test_a_number_has_few_digits_and_its_unit(form: Callable[[object], str], value: object, text: str) -> None:
    assert typed(form(value)) == text


def test_a_unit_stays_with_its_number_and_a_minus_is_as_wide_as_a_plus() -> None:
    assert decibel(-3.0) == "\u22123.00\u00a0dB"
    assert plain(1e-7) == "1.00\u00a0\u00d7\u00a010\u207b\u2077"
