from __future__ import annotations

from concurrent.futures import CancelledError
from itertools import chain
from threading import Event
from time import sleep

import numpy as np
import pytest

from defectoscope.errors.engine import DeviceLost, EngineFailed, EngineOutOfMemory
from tests.models import write_dark_is_defect
from worker.device import EngineOptions
from worker.engine import OnnxEngine
from worker.lane import Lane

BLANK = np.zeros((256, 256, 3), dtype=np.uint8)


class Recorded:
    """An engine of the lane's interface that notes its batches and fails where it is told to."""

    def __init__(self, *, batch_size=4, fail=lambda _images: None, seconds=0.0):
        self.batch_size = batch_size
        self.batches = []
        self._fail = fail
        self._seconds = seconds
        self.gate = Event()
        self.gate.set()

    def fit(self, waiting):
        return min(waiting, self.batch_size)

    def run(self, images):
        self.gate.wait(10)
        self.batches.append([int(image[0, 0, 0]) for image in images])
        sleep(self._seconds)
        self._fail(images)
        return [image[:, :, 0] for image in images], 0.008 * len(images)


def _image(number):
    return np.full((2, 2, 3), number, dtype=np.uint8)


def _submit_together(lane, *engines):
    """Give each engine an image, 0, 1 and so on, and hold the first back until all of them wait."""
    engines[0].gate.clear()
    outputs = [lane.submit(engine, _image(number)) for number, engine in enumerate(engines)]
    engines[0].gate.set()
    return outputs


@pytest.fixture
def lost():
    return []


@pytest.fixture
def lane(lost):
    lane = Lane(linger_s=0.05, on_lost=lost.append)
    yield lane
    lane.end()


@pytest.fixture
def patient_lane(lost):
    """Waits until a batch is full, however slow the machine that fills it."""
    lane = Lane(linger_s=10, on_lost=lost.append)
    yield lane
    lane.end()


def test_every_image_gets_its_own_output(lane, tmp_path):
    engine = OnnxEngine(
        write_dark_is_defect(tmp_path / "model.onnx"), options=EngineOptions(device="cpu", intra_op_threads=1)
    )
    images = [np.full((256, 256, 3), level, dtype=np.uint8) for level in range(20)]

    outputs = [lane.submit(engine, image) for image in images]

    assert [int(output.result(10).probabilities[0, 0]) for output in outputs] == [255 - level for level in range(20)]
    assert all(output.result().latency_ms > 0 for output in outputs)


def test_images_that_wait_go_together_up_to_the_batch_size(patient_lane):
    engine = Recorded(batch_size=4)
    engine.gate.clear()

    outputs = [patient_lane.submit(engine, _image(number)) for number in range(10)]
    engine.gate.set()
    for output in outputs:
        output.result(10)

    assert sorted(chain(*engine.batches)) == list(range(10))
    assert [len(batch) for batch in engine.batches] == [4, 4, 2]


def test_an_idle_lane_waits_a_moment_for_company(patient_lane):
    engine = Recorded(batch_size=2)

    first = patient_lane.submit(engine, _image(2))
    sleep(0.05)
    second = patient_lane.submit(engine, _image(3))

    assert first.result(10).latency_ms == second.result(10).latency_ms == pytest.approx(8)
    assert engine.batches == [[2, 3]]


def test_an_idle_lane_waits_no_longer_than_a_moment(lane):
    engine = Recorded(batch_size=4)

    output = lane.submit(engine, _image(1)).result(10)

    assert output.latency_ms == pytest.approx(8)
    assert engine.batches == [[1]]


def test_images_of_different_models_never_share_a_batch(lane):
    old, new = Recorded(), Recorded()
    old.gate.clear()

    outputs = [lane.submit(engine, _image(number)) for number in range(3) for engine in (old, new)]
    old.gate.set()
    for output in outputs:
        output.result(10)

    assert sorted(chain(*old.batches)) == sorted(chain(*new.batches)) == [0, 1, 2]


def test_one_bad_image_fails_alone(patient_lane):
    def fail(images):
        if any(image[0, 0, 0] == 2 for image in images):
            raise EngineFailed("not this one")

    engine = Recorded(fail=fail)

    outputs = _submit_together(patient_lane, *[engine] * 4)

    assert [output.exception(10) is None for output in outputs] == [True, True, False, True]
    assert isinstance(outputs[2].exception(), EngineFailed)


def test_a_batch_that_does_not_fit_is_halved(patient_lane):
    def fail(images):
        if len(images) > 1:
            raise EngineOutOfMemory

    engine = Recorded(fail=fail)

    outputs = _submit_together(patient_lane, *[engine] * 4)

    assert [int(output.result(10).probabilities[0, 0]) for output in outputs] == [0, 1, 2, 3]
    assert [len(batch) for batch in engine.batches] == [4, 2, 1, 1, 2, 1, 1]


def test_a_lost_device_answers_everybody_and_is_told_once(lane, lost):
    def fail(images):
        raise DeviceLost("CUDA failure 700")

    engine, waiting = Recorded(fail=fail), Recorded()

    outputs = _submit_together(lane, engine, waiting)
    errors = [output.exception(10) for output in outputs]
    late = lane.submit(waiting, _image(2)).exception(10)

    assert [type(error) for error in (*errors, late)] == [DeviceLost] * 3
    assert waiting.batches == []
    assert [str(exc) for exc in lost] == ["CUDA failure 700"]


# The error ends the lane's thread as it would end any other, for everybody to see.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_that_nobody_foresaw_answers_its_batch_and_the_lane_goes_on(lane, lost):
    def fail(images):
        raise KeyError("nobody foresaw this")

    broken, sound = Recorded(fail=fail), Recorded()

    outputs = _submit_together(lane, broken, sound)

    assert isinstance(outputs[0].exception(10), KeyError)
    assert outputs[1].result(10).probabilities[0, 0] == 1
    assert lane.submit(sound, _image(2)).result(10).probabilities[0, 0] == 2
    assert lost == []


def test_the_lane_says_how_long_its_call_lasts(lane):
    engine = Recorded()
    engine.gate.clear()

    idle_s = lane.busy_s
    output = lane.submit(engine, _image(0))
    sleep(0.3)
    busy_s = lane.busy_s
    engine.gate.set()
    output.result(10)

    assert idle_s == 0
    assert busy_s > 0.1


def test_what_waits_is_run_before_the_lane_ends(lost):
    lane = Lane(linger_s=0, on_lost=lost.append)
    engine = Recorded(batch_size=1, seconds=0.01)

    outputs = [lane.submit(engine, _image(number)) for number in range(5)]
    lane.end()

    assert all(output.done() for output in outputs)


def test_images_that_are_no_longer_wanted_leave_before_the_next_batch(patient_lane):
    engine = Recorded(batch_size=2)
    engine.gate.clear()
    wanted = dict.fromkeys(range(6), True)
    outputs = [
        patient_lane.submit(engine, _image(number), is_wanted=lambda number=number: wanted[number])
        for number in range(6)
    ]
    # The first two are with the model, and nobody can have them back.
    while patient_lane.busy_s == 0:
        sleep(0.01)

    wanted.update(dict.fromkeys([0, 2, 3, 5], False))
    # Something new to fill up the batch with what is left.
    last = patient_lane.submit(engine, _image(6))
    engine.gate.set()

    assert last.result(10) is not None
    assert engine.batches == [[0, 1], [4, 6]]
    assert [output.cancelled() for output in outputs] == [False, False, True, True, False, True]


def test_a_lane_from_which_everything_was_taken_out_goes_on(lane):
    engine = Recorded(batch_size=1)
    engine.gate.clear()
    first = lane.submit(engine, _image(0))
    while lane.busy_s == 0:
        sleep(0.01)
    unwanted = lane.submit(engine, _image(1), is_wanted=lambda: False)

    engine.gate.set()
    first.result(10)
    with pytest.raises(CancelledError):
        unwanted.result(10)
    after = lane.submit(engine, _image(2)).result(10)

    assert after is not None
    assert engine.batches == [[0], [2]]
