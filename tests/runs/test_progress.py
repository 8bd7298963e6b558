"""Plain lines of progress."""

from metaseg.runs.progress import RunLog


def test_a_line_shows_only_what_is_new(capsys):
    log = RunLog([], total_steps=100, batch_size=1)
    log.begin()
    log.progress(20, loss="0.9")
    log.progress(30, force=True, loss="0.8", **{"val iou": "0.1"})
    log.progress(35, loss="0.75")  # no line yet
    log.progress(40, loss="0.7")
    log.close()
    lines = capsys.readouterr().err.splitlines()
    values = [line.split("  ")[:-2] for line in lines]
    assert values == [
        ["step 20/100", "loss 0.9"],
        ["step 30/100", "loss 0.8", "val iou 0.1"],
        ["step 40/100", "loss 0.7"],
    ]
