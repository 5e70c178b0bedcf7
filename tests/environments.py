"""Tiny environments whose true values are known; ids are `tests.environments:<name>`."""

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


class Counter(gym.Env):
    """Observes how many steps its episode has had; ends after `length`; the reward is that number too."""

    def __init__(self, length=3, action_space=None, observation_space=None, bad=None):
        self.observation_space = observation_space or gym.spaces.Box(-1.0, 100.0, (1,), np.float32)
        self.action_space = action_space or gym.spaces.Discrete(2)
        self.length, self.bad = length, bad

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        reward = float("nan") if self.bad == "reward" and self.steps == 2 else float(self.steps)
        return self._observation(), reward, self.steps == self.length, False, {}

    def _observation(self):
        space = self.observation_space
        if isinstance(space, gym.spaces.Discrete):
            return space.start + self.steps
        value = np.inf if self.bad == "observation" and self.steps == 2 else self.steps
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


class Odd(Counter):
    """A Counter with an observation space that no script serves."""

    def __init__(self):
        super().__init__()
        self.observation_space = gym.spaces.Dict(a=gym.spaces.Discrete(2))


_ACTIONS_FROM_5 = gym.spaces.Discrete(3, start=5)
_DISCRETE = gym.spaces.Discrete(5, start=7)
_IMAGE = gym.spaces.Box(0, 255, (4, 3), np.uint8)
_UNBOUNDED = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
_ACTIONS_BOX = gym.spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([3.0, 10.0], np.float32))
_ACTIONS_TABLE = gym.spaces.Box(-0.1, 0.3, (2, 3), np.float64)
_ACTIONS_INFINITE = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
_ACTIONS_HALF_INFINITE = gym.spaces.Box(
    np.array([1.0, -np.inf, -2.0], np.float32), np.array([np.inf, 0.5, 2.0], np.float32)
)

for name, entry_point, options in [
    ("Truncating-v0", OneState, {"ends": "truncated"}),
    ("Terminating-v0", OneState, {"ends": "terminated", "length": 1}),
    ("StartThenStay-v0", StartThenStay, {}),
    ("Counter-v0", Counter, {}),
    ("Bandit-v0", Bandit, {}),
    ("ActionsFrom5-v0", Counter, {"action_space": _ACTIONS_FROM_5}),
    ("DiscreteObservation-v0", Counter, {"observation_space": _DISCRETE}),
    ("Image-v0", Counter, {"observation_space": _IMAGE}),
    ("Unbounded-v0", Counter, {"observation_space": _UNBOUNDED}),
    ("BoxActions-v0", Counter, {"action_space": _ACTIONS_BOX}),
    ("TruncatingBox-v0", OneState, {"ends": "truncated", "action_space": _ACTIONS_BOX}),
    ("TerminatingBox-v0", OneState, {"ends": "terminated", "length": 1, "action_space": _ACTIONS_BOX}),
    ("Shapes-v0", Counter, {"action_space": _ACTIONS_TABLE, "observation_space": _IMAGE}),
    ("Quadratic-v0", Quadratic, {}),
    ("InfiniteActions-v0", Counter, {"action_space": _ACTIONS_INFINITE}),
    ("HalfInfiniteActions-v0", Counter, {"action_space": _ACTIONS_HALF_INFINITE}),
    ("NanReward-v0", Counter, {"bad": "reward"}),
    ("InfObservation-v0", Counter, {"bad": "observation"}),
    ("InfFinalObservation-v0", Counter, {"bad": "observation", "length": 2}),
    ("DictObservation-v0", Odd, {}),
]:
    gym.register(name, entry_point=entry_point, kwargs=options)
