from ecgtf.progress import Progress


def test_the_first_update_may_tell_the_total(capsys):
    with Progress("preparing", None, "records", interval=0) as progress:
        progress.update(0, total=4)
        progress.update(4)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "preparing: 0/4 records"
    assert last.startswith("preparing: 4/4 records, ")


def test_quiet_shows_nothing(capsys):
    with Progress("preparing", None, "records", quiet=True, interval=0) as progress:
        progress.update(1, total=4)
    assert not capsys.readouterr().err


def test_a_bar_takes_the_total_from_an_update(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("preparing", None, "records") as progress:
        assert not capsys.readouterr().err  # what is refused before is one line
        progress.update(3, total=7)
    assert "3/7" in capsys.readouterr().err
