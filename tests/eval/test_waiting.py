"""The comparison of ways of waiting: what it runs, and what it says."""

from eval.speed.waiting import OURS, Times, format_waiting, measure, spinning


def test_the_work_is_measured_in_a_process_of_its_own() -> None:
    assert min(measure(OURS, quick=True)) > 0


def test_busy_processes_end_with_what_they_stand_beside() -> None:
    with spinning(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert None not in [process.poll() for process in processes]


def test_ways_of_waiting_stand_beside_each_other() -> None:
    seconds = {"no setting": (2.0, 4.0), "passive waiting": (3.0, 5.0), "utils.threads": (1.0, 6.0)}
    times = {name: Times([steps] * 3, [motions] * 3) for name, (steps, motions) in seconds.items()}
    lines = format_waiting({"idle": times, "busy": times}).splitlines()
    assert "| utils.threads | 1.00 | 6.00 | 1.00 | 6.00 |" in lines
    assert "idle, utils.threads against no setting: 0.50 times the seconds" in lines[-2]
    assert lines[-1].endswith("steps, 1.20 times those of the motions")
