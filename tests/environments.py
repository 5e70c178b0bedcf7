"""Tiny environments whose true values are known; ids are `tests.environments:<name>`."""

import random
import signal
from typing import ClassVar

import gymnasium as gym
import numpy as np


class OneState(gym.Env):
    """One state, reward 1 a step, an episode of `length` steps that ends by termination or by truncation.

    With truncation the value is 1 / (1 − γ); with termination after one step it is 1.
    """

    def __init__(self, ends="truncated", length=5, action_space=None):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = action_space or gym.spaces.Discrete(2)
        self.ends, self.length = ends, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        over = self.steps == self.length
        return (
            np.ones(1, np.float32),
            1.0,
            over and self.ends == "terminated",
            over and self.ends == "truncated",
            {},
        )


class StartThenStay(OneState):
    """A first state that gives nothing, then one that gives 1 a step until a time limit.

    Its values are 1 / (1 − γ) in the second state and γ / (1 − γ) in the first; whoever takes the first
    state of the next episode for the one that a time limit was reached in learns less.
    """

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.steps > 1), terminated, truncated, info


class ThreeStates(gym.Env):
    """Every step leads to state 1; what it gives, and how the episode ends, depends on where it began.

    State 1 gives 1 a step, and a time limit ends the episode there: its value is 1 / (1 − γ). Every other
    episode begins in state 0, which gives nothing: γ / (1 − γ). The others begin in state 2, whose one step
    gives 1 and ends the episode by itself: 1.
    """

    def __init__(self, action_space=None):
        self.observation_space = gym.spaces.Discrete(3)
        self.action_space = action_space or gym.spaces.Discrete(2)
        self.first = 2

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.first = self.state = 2 - self.first
        self.steps = 0
        return self.state, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        reward, terminated, self.state = float(self.state > 0), self.state == 2, 1
        return self.state, reward, terminated, self.steps == 5, {}


class TwoSteps(gym.Env):
    """A step from 0 to 1 that gives nothing, then one that ends the episode: `good` gives 1, the rest 0."""

    good = 0

    def __init__(self):
        self.observation_space = gym.spaces.Discrete(2)
        self.action_space = gym.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        over = self.steps == 2
        return 1, float(over and action == self.good), over, False, {}


class Repeated(OneState):
    """Every step is an episode of its own, cut by a time limit, and gives the sum of the action.

    There is nothing to remember: a run that goes on from a checkpoint can equal one that never stopped.
    """

    def __init__(self, action_space=None):
        super().__init__("truncated", 1, action_space)

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(np.sum(action)), terminated, truncated, info


class Clipping(OneState):
    """Clips actions to [−1, 1] by itself, whatever its space says; the reward is what is left of them."""

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(np.clip(action, -1.0, 1.0).sum()), terminated, truncated, info


class Recorded(gym.Env):
    """Observes random numbers for 5 steps; all copies write down what they are given.

    `seeds` are those of the resets that had one, `observations` and `actions` those of every step. The
    reward is the action times the first number: the best action depends on the observation.
    """

    seeds: ClassVar[list] = []
    observations: ClassVar[list] = []
    actions: ClassVar[list] = []

    def __init__(self, action_space=None):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = action_space or gym.spaces.Discrete(4)

    @classmethod
    def forget(cls):
        """Begin a new record."""
        for record in (cls.seeds, cls.observations, cls.actions):
            record.clear()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.seeds.append(seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.observations.append(self.observation)
        self.actions.append(np.copy(action))
        self.steps += 1
        reward = float(np.sum(action) * self.observation[0])
        return self._observe(), reward, self.steps == 5, False, {}

    def _observe(self):
        self.observation = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        return self.observation


class Counter(gym.Env):
    """Observes how many steps its episode has had; ends after `length`; the reward is that number too."""

    def __init__(self, length=3, action_space=None, observation_space=None, bad=None, info=None):
        self.observation_space = observation_space or gym.spaces.Box(-1.0, 100.0, (1,), np.float32)
        self.action_space = action_space or gym.spaces.Discrete(2)
        self.length, self.bad, self.info = length, bad, info or {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        reward = float("nan") if self.bad == "reward" and self.steps == 2 else float(self.steps)
        return self._observation(), reward, self.steps == self.length, False, dict(self.info)

    def _observation(self):
        space = self.observation_space
        if isinstance(space, gym.spaces.Discrete):
            return space.start + self.steps
        if isinstance(space, gym.spaces.Dict):
            return {"number": np.full(2, self.steps, np.float32), "choice": self.steps % 3}
        if isinstance(space, gym.spaces.Tuple):
            return self.steps, np.full(2, self.steps, np.float64)
        if isinstance(space, gym.spaces.Text):
            return "a" * self.steps
        value = np.inf if self.bad == "observation" and self.steps == 2 else self.steps
        value = 2e38 if self.bad == "large" else value
        return np.full(space.shape, value, space.dtype)


class Quadratic(gym.Env):
    """One step with the reward −|a − best|², and bounds of the action that differ in centre and width."""

    best = np.array([2.5, 3.0], np.float32)

    def __init__(self):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = _ACTIONS_BOX

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.ones(1, np.float32), -float(np.square(action - self.best).sum()), True, False, {}


class Bandit(OneState):
    """One step an episode: action 1 pays 1, every other action 0."""

    def __init__(self):
        super().__init__("terminated", 1)

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(action == 1), terminated, truncated, info


_ACTIONS_FROM_5 = gym.spaces.Discrete(3, start=5)
_DISCRETE = gym.spaces.Discrete(5, start=7)
_DICT = gym.spaces.Dict(number=gym.spaces.Box(0.0, 9.0, (2,), np.float32), choice=gym.spaces.Discrete(3))
_TEXT = gym.spaces.Text(9)
_IMAGE = gym.spaces.Box(0, 255, (4, 3), np.uint8)
_PICTURE = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8)
_TINY_PICTURE = gym.spaces.Box(0, 255, (2, 5, 3), np.uint8)
_UNBOUNDED = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
_ACTIONS_BOX = gym.spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([3.0, 10.0], np.float32))
_ACTIONS_TABLE = gym.spaces.Box(-0.1, 0.3, (2, 3), np.float64)
_ACTIONS_ONE = gym.spaces.Discrete(1)
_ACTIONS_SCALAR = gym.spaces.Box(-1.0, 1.0, (), np.float32)
_ACTIONS_MANY = gym.spaces.MultiDiscrete([2, 3])
_ACTIONS_DICT = gym.spaces.Dict(a=gym.spaces.Discrete(2))
_SCALAR = gym.spaces.Box(-1.0, 100.0, (), np.float32)
_BITS = gym.spaces.MultiBinary(3)
_TUPLE = gym.spaces.Tuple((gym.spaces.Discrete(99), gym.spaces.Box(-1.0, 99.0, (2,), np.float64)))
_ACTIONS_UNIT = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
_ACTIONS_INFINITE = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
_ACTIONS_HUGE = gym.spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (2,), np.float32)
_ACTIONS_HUGE_64 = gym.spaces.Box(-1e300, 1e300, (2,), np.float64)
_ACTIONS_INTEGER = gym.spaces.Box(np.array([-1, 0]), np.array([1, 2]), dtype=np.int64)
_ACTIONS_HALF_INFINITE = gym.spaces.Box(
    np.array([1.0, -np.inf, -2.0], np.float32), np.array([np.inf, 0.5, 2.0], np.float32)
)


class Global(gym.Env):
    """Draws observations and rewards from the global generators, as some environments do; notes its seeds."""

    seeds: ClassVar[list[int]] = []

    def __init__(self, action_space=None, scaled=False):
        self.scale = np.random.uniform(0.5, 1.0) if scaled else 1.0
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = action_space or gym.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.seeds.append(seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self):
        return np.random.uniform(-self.scale, self.scale, 3).astype(np.float32)

    def step(self, action):
        self.steps += 1
        return self.observe(), random.random() + float(np.sum(action)), False, self.steps == 5, {}


class OneArray(gym.Env):
    """Counts its steps in one array, which every observation is, and doubles each action in place."""

    def __init__(self):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = _ACTIONS_UNIT
        self.count = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count[:] = 0.0
        return self.count, {}

    def step(self, action):
        action *= 2.0
        self.count += 1.0
        return self.count, 0.0, False, self.count[0] == 3, {}


class NanStart(OneArray):
    """Begins with NaN."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(1, np.nan, np.float32), {}


class Broken(gym.Env):
    """Cannot be created: NumPy raises an error."""

    def __init__(self):
        np.stack([])


class Signals(OneState):
    """Shows whether its process ignores Ctrl-C."""

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        return np.full(1, signal.getsignal(signal.SIGINT) == signal.SIG_IGN, np.float32), info


class NeedsSize(gym.Env):
    """Cannot be created without an argument."""

    def __init__(self, size):
        pass


for name, entry_point, options in [
    ("OneArray-v0", OneArray, {}),
    ("NanStart-v0", NanStart, {}),
    ("Broken-v0", Broken, {}),
    ("Signals-v0", Signals, {}),
    ("NeedsSize-v0", NeedsSize, {}),
    ("Global-v0", Global, {}),
    ("GlobalScale-v0", Global, {"scaled": True}),
    ("GlobalBox-v0", Global, {"action_space": _ACTIONS_BOX}),
    ("Truncating-v0", OneState, {"ends": "truncated"}),
    ("Terminating-v0", OneState, {"ends": "terminated", "length": 1}),
    ("StartThenStay-v0", StartThenStay, {}),
    ("ThreeStates-v0", ThreeStates, {}),
    ("ThreeStatesBox-v0", ThreeStates, {"action_space": _ACTIONS_BOX}),
    ("TwoSteps-v0", TwoSteps, {}),
    ("Repeated-v0", Repeated, {}),
    ("RepeatedBox-v0", Repeated, {"action_space": _ACTIONS_BOX}),
    ("ClippingBounded-v0", Clipping, {"action_space": _ACTIONS_UNIT}),
    ("ClippingUnbounded-v0", Clipping, {"action_space": _ACTIONS_INFINITE}),
    ("OneAction-v0", OneState, {"ends": "terminated", "length": 1, "action_space": _ACTIONS_ONE}),
    ("Recorded-v0", Recorded, {}),
    ("RecordedBox-v0", Recorded, {"action_space": _ACTIONS_BOX}),
    ("Counter-v0", Counter, {}),
    ("Bandit-v0", Bandit, {}),
    ("ActionsFrom5-v0", Counter, {"action_space": _ACTIONS_FROM_5}),
    ("DiscreteObservation-v0", Counter, {"observation_space": _DISCRETE}),
    ("Image-v0", Counter, {"observation_space": _IMAGE}),
    ("Unbounded-v0", Counter, {"observation_space": _UNBOUNDED}),
    ("BoxActions-v0", Counter, {"action_space": _ACTIONS_BOX}),
    ("TruncatingBox-v0", OneState, {"ends": "truncated", "action_space": _ACTIONS_BOX}),
    ("Shapes-v0", Counter, {"action_space": _ACTIONS_TABLE, "observation_space": _IMAGE}),
    ("Quadratic-v0", Quadratic, {}),
    ("InfiniteActions-v0", Counter, {"action_space": _ACTIONS_INFINITE}),
    ("HalfInfiniteActions-v0", Counter, {"action_space": _ACTIONS_HALF_INFINITE}),
    ("HugeActions-v0", Counter, {"action_space": _ACTIONS_HUGE}),
    ("HugeActions64-v0", Counter, {"action_space": _ACTIONS_HUGE_64}),
    ("IntegerActions-v0", Counter, {"action_space": _ACTIONS_INTEGER}),
    ("NanReward-v0", Counter, {"bad": "reward"}),
    ("InfObservation-v0", Counter, {"bad": "observation"}),
    ("InfFinalObservation-v0", Counter, {"bad": "observation", "length": 2}),
    ("Large-v0", Counter, {"observation_space": _UNBOUNDED, "bad": "large"}),
    ("DictObservation-v0", Counter, {"observation_space": _DICT}),
    ("TextObservation-v0", Counter, {"observation_space": _TEXT}),
    ("TextInDict-v0", Counter, {"observation_space": gym.spaces.Dict(a=_TEXT)}),
    ("Picture-v0", Counter, {"observation_space": _PICTURE}),
    ("TinyPicture-v0", Counter, {"observation_space": _TINY_PICTURE}),
    ("ScalarObservation-v0", Counter, {"observation_space": _SCALAR}),
    ("BitsObservation-v0", Counter, {"observation_space": _BITS}),
    ("TupleObservation-v0", Counter, {"observation_space": _TUPLE}),
    ("ScalarActions-v0", Counter, {"action_space": _ACTIONS_SCALAR}),
    ("ManyActions-v0", Counter, {"action_space": _ACTIONS_MANY}),
    ("DictActions-v0", Counter, {"action_space": _ACTIONS_DICT}),
]:
    gym.register(name, entry_point=entry_point, kwargs=options)
