from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import sleep

from worker.memory import ByteBudget


def test_no_more_is_lent_than_there_is():
    budget, lock = ByteBudget(100), Lock()
    lent, most = [0], [0]

    def borrow(size_bytes):
        budget.take(size_bytes)
        with lock:
            lent[0] += size_bytes
            most[0] = max(most[0], lent[0])
        sleep(0.002)
        with lock:
            lent[0] -= size_bytes
        budget.give_back(size_bytes)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(borrow, [30, 60, 10, 45, 80, 25] * 10))

    assert lent[0] == 0
    assert 60 < most[0] <= 100


def test_one_larger_than_the_limit_goes_alone():
    budget = ByteBudget(100)

    budget.take(10_000)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(budget.take, 1)
        sleep(0.05)
        has_waited = not second.done()
        budget.give_back(10_000)
        second.result(10)

    assert has_waited
