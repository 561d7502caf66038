"""Files that cannot be used: the first is an error, unless they are collected."""

from pathlib import Path

import pytest

from datasets.formats.faults import collected_faults, leave_out


def test_the_first_file_is_an_error():
    with pytest.raises(ValueError, match="cut off"):
        leave_out(Path("a.xml"), ValueError("cut off"))


def test_faults_are_collected_inside_the_context_only():
    with collected_faults() as faults:
        leave_out(Path("a.xml"), ValueError("cut off"))
        leave_out(Path("b.xml"), OSError("no permission"))
    found = [(fault.path.name, str(fault.error)) for fault in faults]
    assert found == [("a.xml", "cut off"), ("b.xml", "no permission")]
    with pytest.raises(OSError):
        leave_out(Path("c.xml"), OSError("no permission"))
