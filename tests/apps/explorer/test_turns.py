from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from captum_groupcam.apps.explorer._turns import Turns
from captum_groupcam.apps.explorer._visitors import Refused


class Line:
    """Requests that wait behind one that is computed until the test ends it."""

    def __init__(self, turns: Turns, pool: ThreadPoolExecutor) -> None:
        self.turns = turns
        self.pool = pool
        self.served: list[str] = []
        self.end = threading.Event()
        self.begin("first", "first")

    def begin(self, address: str, session: str) -> Future[None]:
        """Makes a request, and waits until it stands in the line or is served."""
        stands = threading.Event()

        def serve() -> None:
            with self.turns.take(address, session, stands.set):
                stands.set()
                self.served.append(session)
                self.end.wait()

        request = self.pool.submit(serve)
        assert stands.wait(10)
        return request


@pytest.fixture
def line():
    with ThreadPoolExecutor(16) as pool:
        line = Line(Turns(most=6, most_of_address=4, most_of_session=2), pool)
        yield line
        line.end.set()


def test_one_at_a_time() -> None:
    turns, inside, most = Turns(), [0], []

    def serve(number: int) -> None:
        with turns.take(f"address {number % 3}", f"session {number}"):
            inside[0] += 1
            most.append(inside[0])
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(serve, range(200)))
    assert most == [1] * 200


def test_nobody_waits_for_all_of_somebody_else(line: Line) -> None:
    requests = [line.begin("greedy", "a"), line.begin("greedy", "a"), line.begin("greedy", "b")]
    requests.append(line.begin("modest", "c"))
    line.end.set()
    for request in requests:
        request.result(10)
    assert line.served == ["first", "a", "c", "b", "a"]


def test_a_page_that_calls_itself_by_anothers_address(line: Line) -> None:
    requests = [line.begin("greedy", "modest"), line.begin("greedy", "modest")]
    requests.append(line.begin("modest", "c"))
    line.end.set()
    for request in requests:
        request.result(10)
    assert line.served == ["first", "modest", "c", "modest"]


def test_too_many_in_the_line_are_refused(line: Line) -> None:
    def give_up() -> None:
        raise EOFError

    def is_refused(address: str, session: str) -> bool:
        with (
            pytest.raises((Refused, EOFError)) as end,
            line.turns.take(address, session, give_up),
        ):
            pass
        return end.type is Refused

    line.begin("greedy", "a")
    line.begin("greedy", "a")
    assert is_refused("greedy", "a")
    assert not is_refused("greedy", "b")
    line.begin("greedy", "b")
    line.begin("greedy", "b")
    assert is_refused("greedy", "c")
    line.begin("modest", "d")
    assert not is_refused("late", "f")
    line.begin("modest", "d")
    assert is_refused("late", "f")


def test_who_gives_up_leaves_the_line(line: Line) -> None:
    given_up = threading.Event()
    stands = threading.Event()

    def check() -> None:
        stands.set()
        if given_up.is_set():
            raise EOFError

    def serve() -> None:
        with suppress(EOFError), line.turns.take("impatient", "a", check):
            line.served.append("a")

    impatient = line.pool.submit(serve)
    assert stands.wait(10)
    patient = line.begin("patient", "b")
    given_up.set()
    line.turns.look_again()
    impatient.result(10)
    line.end.set()
    patient.result(10)
    assert line.served == ["first", "b"]


def test_an_error_ends_the_turn() -> None:
    turns = Turns()
    with pytest.raises(EOFError), turns.take("a", "a"):
        raise EOFError
    with turns.take("b", "b"):
        pass
