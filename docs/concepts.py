"""Draws the figures that explain an idea on the pages of PPO, TRPO, Dueling DQN, and TD3.

Run: python docs/concepts.py

It needs matplotlib only, and writes docs/concepts/*.png. The curves are invented: they show shapes, not data.
"""

from pathlib import Path

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
import matplotlib.pyplot as plt
import numpy as np

FOLDER = Path(__file__).parent / "concepts"
BLACK, GRAY, LIGHT = "#222222", "#777777", "#ececec"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"  # of Okabe & Ito, distinct for color-blind readers


def ppo_clip(epsilon: float = 0.2) -> plt.Figure:
    """Draw the clipped objective against the probability ratio, for both signs of the advantage."""
    figure, panels = plt.subplots(1, 2, figsize=(6.8, 3.1), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    ratio = np.linspace(0.4, 1.6, 241)
    for axes, advantage in zip(panels, (1.0, -1.0)):
        positive = advantage > 0
        clipped_ratio = np.clip(ratio, 1 - epsilon, 1 + epsilon)
        clipped_side = (1 + epsilon, 1.6) if positive else (0.4, 1 - epsilon)
        axes.axvspan(*clipped_side, color=LIGHT)
        axes.text(np.mean(clipped_side), 0.25 * advantage, "gradient 0", ha="center", va="center")
        axes.plot(ratio, ratio * advantage, "--", color=GRAY, label="ρ A")
        objective = np.minimum(ratio * advantage, clipped_ratio * advantage)
        axes.plot(ratio, objective, color=BLUE, lw=3, label="clipped")
        axes.plot(1, advantage, "o", color=ORANGE, ms=9, label=r"$\theta = \theta_\mathrm{old}$")
        axes.set_xticks([1 - epsilon, 1, 1 + epsilon], ["1 − ε", "1", "1 + ε"])
        axes.set_yticks([0, advantage], ["0", "A"])
        axes.set(xlim=(0.4, 1.6), ylim=(0, 1.7) if positive else (-1.7, 0), xlabel="probability ratio ρ")
        axes.set_title("A > 0" if positive else "A < 0")
    panels[0].set_ylabel("objective of one step")
    panels[0].legend(loc="upper left", frameon=False)
    return figure


def trpo_trust_region(delta: float = 0.5) -> plt.Figure:
    """Draw the objective, the trust region, and the gradient and natural gradient steps to its border."""
    fisher = np.array([[0.34, -0.381], [-0.381, 0.78]])  # eigenvalues 0.12 and 1, long axis at 30 degrees
    gradient = np.array([0.0, 1.0])

    def model_kl(x, y):
        return 0.5 * (fisher[0, 0] * x**2 + 2 * fisher[0, 1] * x * y + fisher[1, 1] * y**2)

    def step_to_border(direction):
        return direction * np.sqrt(delta / model_kl(*direction))

    plain, natural = step_to_border(gradient), step_to_border(np.linalg.solve(fisher, gradient))
    growth = 0.4 * natural / (natural @ natural)  # the exact divergence grows faster along the natural step
    x, y = np.meshgrid(np.linspace(-4.2, 4.2, 150), np.linspace(-2.6, 2.6, 150))

    figure, axes = plt.subplots(figsize=(6.3, 4.5), layout="constrained")
    axes.contour(x, y, y - 0.02 * (x**2 + y**2), levels=6, colors="#cccccc", linestyles="solid")
    axes.contour(x, y, model_kl(x, y), levels=[delta], colors=BLUE, linewidths=2.5)
    exact_kl = model_kl(x, y) * np.exp(growth[0] * x + growth[1] * y)
    axes.contour(x, y, exact_kl, levels=[delta], colors=GREEN, linewidths=2.5, linestyles="dashed")
    draw_arrow(axes, (0, 0), plain, GRAY)
    draw_arrow(axes, (0, 0), natural, ORANGE)
    axes.plot(0, 0, "o", color=BLACK, ms=9)
    axes.plot(*natural, "o", ms=11, mfc="white", mec=ORANGE, mew=2.5)
    axes.plot(*(natural / 2), "o", ms=11, color=ORANGE)
    axes.text(-0.15, -0.1, r"$\theta_\mathrm{old}$", ha="right", va="top")
    axes.text(-0.15, 1.35, "gradient step", ha="right")
    axes.text(natural[0], 2.15, "natural gradient step", ha="center")
    axes.text(natural[0] + 0.25, natural[1] + 0.1, "k = 0: rejected")
    leader = {"arrowstyle": "-", "color": GRAY, "shrinkB": 6}
    axes.annotate("k = 1: accepted", natural / 2, (1.6, -0.7), arrowprops=leader)
    handles = [
        plt.Line2D([], [], color=color, lw=2, ls=style)
        for color, style in (("#bbbbbb", "-"), (BLUE, "-"), (GREEN, "--"))
    ]
    names = ["L, larger above", "KL = δ, quadratic", "KL = δ, exact"]
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, handlelength=1.5)
    axes.set(xlabel="one parameter", ylabel="another parameter", xticks=[], yticks=[], aspect="equal")
    return figure


def dueling_streams() -> plt.Figure:
    """Draw the two streams of the dueling network."""
    figure, axes = plt.subplots(figsize=(6.8, 1.9), layout="constrained")

    def draw_box(left, y, width, text, color):
        style = "round,pad=0,rounding_size=0.12"
        box = FancyBboxPatch((left, y - 0.5), width, 1.0, boxstyle=style, fc=color, ec=BLACK, lw=1.5)
        axes.add_patch(box)
        axes.text(left + width / 2, y, text, ha="center", va="center")

    draw_box(0.0, 0.0, 1.1, "state s", "white")
    draw_box(1.6, 0.0, 1.3, "shared\nlayers", LIGHT)
    draw_box(3.5, 0.75, 2.8, "value stream\nV(s): 1 unit", "#cfe6f5")
    draw_box(3.5, -0.75, 2.8, "advantage stream\nA(s, a): n units", "#f9dcc8")
    draw_box(
        6.9, 0.0, 3.6, r"$Q(s, a) = V(s) + A(s, a)$" "\n" r"$-\ \mathrm{mean}_{a'}\ A(s, a')$", "#cdebe1"
    )
    axes.text(8.7, -0.85, "equation (5)", ha="center", va="center")
    draw_arrow(axes, (1.1, 0.0), (1.6, 0.0))
    for sign in (1, -1):
        draw_arrow(axes, (2.9, 0.2 * sign), (3.5, 0.75 * sign))
        draw_arrow(axes, (6.3, 0.75 * sign), (6.9, 0.2 * sign))
    axes.set(xlim=(-0.05, 10.55), ylim=(-1.3, 1.3), aspect="equal")
    axes.axis("off")
    return figure


def draw_arrow(axes: plt.Axes, start, end, color: str = BLACK) -> None:
    """Draw an arrow between two points."""
    style = {"arrowstyle": "-|>", "mutation_scale": 18, "lw": 2, "color": color}
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0 if color == BLACK else 5, **style))


def td3_ideas() -> plt.Figure:
    """Draw one panel for each idea of TD3."""
    figure, (minimum, delay, smoothing) = plt.subplots(1, 3, figsize=(8.2, 3.3), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    action = np.linspace(-1, 1, 201)

    true_q = 1.0 - 0.8 * action**2
    first = true_q + 0.3 * np.sin(5.0 * action + 0.6)
    second = true_q + 0.3 * np.sin(4.0 * action - 2.2)
    minimum.plot(action, np.minimum(first, second), color="#c8c8c8", lw=9, label="minimum")
    minimum.plot(action, first, color=BLUE, lw=2.5, label="Q₁")
    minimum.plot(action, second, color=ORANGE, lw=2.5, label="Q₂")
    minimum.plot(action, true_q, ":", color=BLACK, lw=2, label="true Q")
    minimum.set(title="1. Two critics", xlabel="action", xticks=[], ylim=(-0.75, 1.4))
    minimum.legend(loc="lower center", ncols=2, frameon=False, columnspacing=0.8, handlelength=1.3)

    rows = ("critics", 1, BLUE), ("actor", 2, ORANGE), ("target networks", 2, GREEN)
    for row, (name, every, color) in enumerate(rows):
        updates = np.arange(every, 9, every)
        delay.plot([0.6, 8.4], [-row, -row], color=LIGHT, lw=2, zorder=0)
        delay.plot(updates, np.full(len(updates), -row), "s", ms=9, color=color)
        delay.text(0.6, -row + 0.26, name)
    delay.set(title="2. Delayed updates (d = 2)", xlabel="update", xlim=(0.2, 8.6), ylim=(-2.4, 0.7))
    delay.set_xticks(range(1, 9))

    def peaked(actions):
        return 0.6 - 0.4 * (actions - 0.3) ** 2 + 0.7 * np.exp(-(((actions + 0.45) / 0.04) ** 2))

    noise = np.linspace(-0.5, 0.5, 101)
    density = np.exp(-0.5 * (noise / 0.2) ** 2)
    smoothed = peaked(action[:, None] + noise) @ (density / density.sum())
    smoothing.plot(action, peaked(action), color=ORANGE, lw=2.5, label="target critic")
    smoothing.plot(action, smoothed, color=BLUE, lw=2.5, label="mean over noise")
    smoothing.text(-0.36, 0.98, "narrow peak")
    smoothing.set(title="3. Target smoothing", xlabel="action", xticks=[], ylim=(-0.75, 1.25))
    smoothing.legend(loc="lower center", frameon=False, handlelength=1.3)
    for axes in (minimum, delay, smoothing):
        axes.set_yticks([])
    return figure


def save(figure: plt.Figure, path: Path) -> None:
    """Save a figure as PNG, with 16 levels of each color, for half the file size."""
    figure.set_dpi(110)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] // 16 * 17
    plt.imsave(path, pixels, metadata={"Software": None}, pil_kwargs={"optimize": True})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw all figures."""
    plt.switch_backend("agg")
    spines = {"axes.spines.top": False, "axes.spines.right": False}
    plt.rcParams.update({"font.size": 12, "axes.titlesize": 12, "text.color": BLACK, **spines})
    FOLDER.mkdir(exist_ok=True)
    for draw in (ppo_clip, trpo_trust_region, dueling_streams, td3_ideas):
        save(draw(), FOLDER / f"{draw.__name__}.png")


if __name__ == "__main__":
    main()
