"""The ring of frames: each frame is stored once and has a number."""

from common.array_file import ArrayFile
from common.frame_ring import FrameRing
import numpy as np


def stack(*numbers):
    """Return an observation of one environment whose frames hold these numbers."""
    return np.array(numbers, np.uint8)[None, :, None]


def test_successive_stacks_share_their_frames():
    ring = FrameRing(100, 3, (1,), np.uint8)
    numbers, next_numbers = ring.add(stack(1, 1, 1), stack(1, 1, 2))  # an episode starts with one frame
    np.testing.assert_array_equal(numbers, [[0, 0, 0]])
    np.testing.assert_array_equal(next_numbers, [[0, 0, 1]])
    numbers, next_numbers = ring.add(stack(1, 1, 2), stack(1, 2, 3))
    np.testing.assert_array_equal(numbers, [[0, 0, 1]])
    np.testing.assert_array_equal(next_numbers, [[0, 1, 2]])
    assert ring.written == 3
    numbers, next_numbers = ring.add(stack(7, 7, 7), stack(7, 7, 8))  # the next episode
    np.testing.assert_array_equal(numbers, [[3, 3, 3]])
    np.testing.assert_array_equal(next_numbers, [[3, 3, 4]])


def test_frames_without_a_stack():
    ring = FrameRing(100, 1, (2, 2), np.uint8)
    frames = [np.full((1, 2, 2), k, np.uint8) for k in range(3)]
    np.testing.assert_array_equal(ring.add(frames[0], frames[1]), [[[0]], [[1]]])
    np.testing.assert_array_equal(ring.add(frames[1], frames[2]), [[[1]], [[2]]])
    taken = ring.take(np.array([[2], [0]]))
    np.testing.assert_array_equal(taken, np.concatenate([frames[2], frames[0]]))


def test_a_step_stores_one_frame_even_if_nothing_changes():
    """And the first step one more."""
    ring = FrameRing(100, 2, (1,), np.uint8)
    for step in range(1, 6):
        ring.add(stack(4, 4), stack(4, 4))
        assert ring.written == 1 + step


def test_environments_do_not_mix():
    ring = FrameRing(100, 2, (1,), np.uint8)
    first = np.concatenate([stack(1, 1), stack(2, 2)])
    second = np.concatenate([stack(1, 3), stack(2, 4)])
    ring.add(first, second)
    numbers, next_numbers = ring.add(second, np.concatenate([stack(3, 5), stack(4, 6)]))
    np.testing.assert_array_equal(ring.take(numbers)[..., 0], [[1, 3], [2, 4]])
    np.testing.assert_array_equal(ring.take(next_numbers)[..., 0], [[3, 5], [4, 6]])
    assert ring.written == 6


def test_the_oldest_frames_are_overwritten():
    ring = FrameRing(4, 1, (1,), np.uint8)
    for k in range(6):
        ring.add(np.array([[k]], np.uint8), np.array([[k + 1]], np.uint8))
    assert ring.written == 7 and ring.oldest == 3
    np.testing.assert_array_equal(ring.take(np.arange(3, 7)[:, None])[:, 0], [3, 4, 5, 6])


def test_save_and_load_keep_numbers_and_frames(tmp_path):
    for steps in (2, 3, 4, 11):  # not full, full, and wrapped
        ring, other = FrameRing(5, 1, (1,), np.uint8), FrameRing(5, 1, (1,), np.uint8)
        for k in range(steps):
            ring.add(np.array([[k]], np.uint8), np.array([[k + 1]], np.uint8))
        with ArrayFile(str(tmp_path / "frames.npz"), "w") as file:
            ring.save(file)
        with ArrayFile(str(tmp_path / "frames.npz"), "r") as file:
            other.load(file)
        assert (other.written, other.oldest) == (ring.written, ring.oldest)
        kept = np.arange(ring.oldest, ring.written)[:, None]
        np.testing.assert_array_equal(other.take(kept), ring.take(kept))
        with np.load(tmp_path / "frames.npz") as file:
            np.testing.assert_array_equal(file["frames"], kept)  # the frame of number k holds k


def test_a_stack_that_goes_on_after_the_loss_of_a_life_shares_its_frames():
    ring = FrameRing(100, 3, (1,), np.uint8)
    ring.add(stack(1, 2, 3), stack(2, 3, 4))
    numbers, next_numbers = ring.add(stack(3, 4, 5), stack(4, 5, 6))
    np.testing.assert_array_equal(numbers, [[2, 3, 4]])
    np.testing.assert_array_equal(next_numbers, [[3, 4, 5]])
    assert ring.written == 6


def test_a_ring_that_grows_forgets_nothing_until_it_is_cleared():
    ring = FrameRing(2, 1, (1,), np.uint8, grows=True)
    for k in range(100):
        np.testing.assert_array_equal(ring.add_one(np.array([k], np.uint8)), [k])
    np.testing.assert_array_equal(ring.stored[:, 0], np.arange(100))
    assert ring.nbytes == 100
    ring.clear()
    assert ring.written == ring.nbytes == 0
    np.testing.assert_array_equal(ring.add_one(np.array([7], np.uint8)), [0])
    np.testing.assert_array_equal(ring.stored, [[7]])
