"""Commands called as a user types them."""

from typer.testing import CliRunner

from ecgtf.cli.main import app


def call(*words) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(*words) -> str:
    """The one line of an error for which the exit code is 2."""
    code, out, err = call(*words)
    lines = [line for line in err.splitlines() if not line.startswith(("preparing", "training"))]
    assert code == 2, (code, err)
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert out == ""  # nothing is announced that does not come
    return lines[0]
