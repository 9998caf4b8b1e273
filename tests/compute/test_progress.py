from recovar.compute.progress import NoProgress, Progress, Reporter, SilentReporter


def count_to(total: int, progress: Progress) -> None:
    with progress.task("Counting", total, unit="numbers") as advance:
        for _ in range(total):
            advance(1)


def test_nobody_needs_to_listen(capsys):
    count_to(3, NoProgress())
    assert capsys.readouterr() == ("", "")


def test_a_silent_reporter_stands_for_the_command_line(tmp_path):
    reporter: Reporter = SilentReporter()
    reporter.log_to(tmp_path / "run.log")
    count_to(3, reporter)
    assert list(reporter.command) == []
    assert not any(tmp_path.iterdir())
