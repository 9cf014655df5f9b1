"""Values as texts: times."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core.codec import format_time


@given(st.floats(min_value=-6e10, max_value=2e11) | st.floats(min_value=-2.0, max_value=2.0))
def test_times_are_written_as_the_standard_library_writes_them(seconds: float) -> None:
    expected = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert format_time(seconds) == expected
