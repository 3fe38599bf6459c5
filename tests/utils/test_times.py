from utils.times import format_time


def test_times_are_told_in_the_unit_that_fits() -> None:
    told = [format_time(seconds) for seconds in (42, 600, 36_000, 864_000)]
    assert told == ["42 s", "10 min", "10.0 h", "10 days"]
