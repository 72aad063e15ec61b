from __future__ import annotations

import pytest

from api.limits import RateLimit, origin_of


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limit(clock):
    """Two a second, five at once."""
    return RateLimit(per_s=2, burst=5, clock=clock)


def passed(limit, key, count):
    return [limit.take(key) == 0 for _ in range(count)].count(True)


def test_so_many_pass_at_once_and_no_more(limit):
    assert passed(limit, "a", 20) == 5


def test_the_wait_is_as_long_as_the_next_one_needs(limit, clock):
    passed(limit, "a", 5)

    assert limit.take("a") == pytest.approx(0.5)
    clock.now_s += 0.49
    assert limit.take("a") == pytest.approx(0.01)
    clock.now_s += 0.01
    assert limit.take("a") == 0


def test_time_refills_up_to_the_burst(limit, clock):
    passed(limit, "a", 5)

    clock.now_s += 1
    assert passed(limit, "a", 20) == 2
    clock.now_s += 3600
    assert passed(limit, "a", 20) == 5


def test_one_key_costs_another_nothing(limit):
    passed(limit, "a", 20)

    assert passed(limit, "b", 20) == 5


def test_to_look_costs_nothing(limit):
    for _ in range(20):
        assert limit.wait_s("a") == 0

    assert passed(limit, "a", 20) == 5


def test_no_limit_lets_everything_pass(clock):
    assert passed(RateLimit(per_s=0, burst=0, clock=clock), "a", 1000) == 1000


def test_ever_new_keys_do_not_take_ever_more_memory(limit):
    for number in range(60_000):
        limit.take(str(number))

    assert len(limit._buckets) == 50_000
    assert passed(limit, "59999", 20) == 4


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        pytest.param("192.168.1.7", "192.168.1.7", id="IPv4"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="the network of a customer"),
        pytest.param("::ffff:192.168.1.7", "192.168.1.7", id="IPv4 in IPv6"),
        pytest.param("testclient", "testclient", id="no address"),
    ],
)
def test_requests_are_counted_under_where_they_come_from(address, origin):
    assert origin_of(address) == origin
