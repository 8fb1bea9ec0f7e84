"""What autotrain's loop adds to a step."""

from autotrain.bench.loop import added, advice


def test_rounds_are_compared_pair_by_pair():
    """A machine that slows down between rounds does not hide what the loop adds in each."""
    bare = [0.1 * (1 + 0.2 * n) for n in range(10)]
    found = added(bare, [seconds + 0.001 for seconds in bare])
    assert (found.low, found.middle, found.high) == tuple([found.middle] * 3) or (
        found.high - found.low < 1e-9
    )
    assert abs(found.middle - 0.001) < 1e-9
    assert found.rounds == 10
    said = advice(found)
    assert said.startswith("autotrain's loop adds 1 ms (1 ms to 1 ms) to a step of ")


def test_what_the_scatter_hides_costs_nothing_that_shows():
    bare, ours = [0.1, 0.11, 0.09, 0.1], [0.1, 0.1, 0.1, 0.101]
    assert "costs nothing that shows" in advice(added(bare, ours))


def test_a_faster_loop_saves():
    found = added([0.1] * 5, [0.09] * 5)
    assert found.share < 0
    assert advice(found).startswith("autotrain's loop saves 10 ms")
