"""`headrace sandbox`: what it refuses before it listens."""

from __future__ import annotations

import pytest

from agents.cli.main import group, run


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_can_not_be_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A port outside 0 to 65535 is a mistake in the command line, told with its option."""
    assert run(group(), ["sandbox", "--port", port]) == 2
    assert "--port" in capsys.readouterr().err
