from gateway.fleet.intervals import Intervals


def test_the_first_pattern_that_fits_counts() -> None:
    intervals = Intervals(300, [("press-7", 5), ("press-*", 30), ("*-old", 3600), ("Oven", 60)])
    asked = {name: intervals.of(name) for name in ("press-7", "press-8", "press-8-old", "oven-old", "oven", "Oven")}
    assert asked == {"press-7": 5, "press-8": 30, "press-8-old": 30, "oven-old": 3600, "oven": 300, "Oven": 60}


def test_without_a_pattern_all_are_as_usual() -> None:
    assert Intervals(10).of("n1") == 10
