"""The options of the expression editor's training, and the two sets of values that they come from."""

from dataclasses import asdict, dataclass, replace

from synthfer.generators.expression_editor.networks import SPACES
from synthfer.limits import MAX_LAYERS, MAX_NETWORK_SIDE, MAX_WIDTH
from synthfer.schema import option


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All values of a training; the defaults are those published for the linear space."""

    space: str = "linear"
    size: int = 128
    width: int = 64
    blocks: int = 6
    kernel: int = 7
    code: str = "maps"
    output: str = "face"
    critic: str = "wasserstein"
    critic_width: int = 64
    critic_layers: int = 6
    n_critic: int = 5
    lr: float = 1e-4
    critic_lr: float = 1e-4
    beta2: float = 0.999
    adversarial_weight: float = 1.0
    class_weight: float = 1.0
    cycle_weight: float = 10.0
    strength_weight: float = 1.0
    point_weight: float = 1.0
    prediction_weight: float = 0.5
    penalty_weight: float = 10.0
    free: float = 5 / 16
    full: float = 0.0
    axes: str = "random"
    edited: float = 1.0
    warmup: float = 0.0
    ema: float = 0.0
    decay: float = 0.0


_SMALL = Settings(
    size=48,
    width=16,
    blocks=2,
    kernel=5,
    code="blocks",
    output="blend",
    critic="joint",
    critic_width=32,
    critic_layers=4,
    n_critic=1,
    lr=2e-3,
    critic_lr=1e-3,
    beta2=0.99,
    cycle_weight=5.0,
    strength_weight=0.5,
    penalty_weight=0.2,
    free=0.0,
    full=3 / 4,
    axes="even",
    edited=1 / 2,
    warmup=0.15,
    ema=0.995,
    decay=0.4,
)
_SMALL_GAUSSIAN = replace(
    _SMALL, critic="wasserstein", lr=5e-4, beta2=0.999, adversarial_weight=4.0, class_weight=2.0, cycle_weight=10.0,
    penalty_weight=10.0, free=1 / 3, full=0.0, edited=1 / 4, warmup=1 / 4, ema=0.99,
)  # fmt: skip
PRESETS = {
    ("small", "linear"): _SMALL,
    ("small", "gaussian"): _SMALL_GAUSSIAN,
    ("published", "linear"): Settings(),
    # Seven of a batch of 16 are at the means.
    ("published", "gaussian"): Settings(class_weight=2.0, free=9 / 16),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of networks and losses; what is null is said by the preset."""

    preset: str = option(
        "small", "what null means: for a few minutes of one core, or GANmut's own", choices=("small", "published")
    )
    space: str = option("linear", "directions with a strength, or points among Gaussians", choices=SPACES)
    size: int | None = option(None, "side of the faces in pixels (48; 128)", low=8, high=MAX_NETWORK_SIDE)
    width: int | None = option(None, "channels of the generator's first layer", low=4, high=MAX_WIDTH)
    blocks: int | None = option(None, "its residual blocks", low=0, high=MAX_LAYERS)
    kernel: int | None = option(None, "side of its first and last kernel, odd", low=3, high=63)
    code: str | None = option(
        None, "the point comes in as maps, or as scale and shift in each block", choices=("maps", "blocks")
    )
    output: str | None = option(
        None, "it makes faces, or faces that are blended into the source", choices=("face", "blend")
    )
    critic: str | None = option(
        None,
        "it tells edits by patches, with a gradient penalty (GANmut); or, in a linear space, as a class of their own",
        choices=("wasserstein", "joint"),
    )
    critic_width: int | None = option(None, "channels of the critic's first layer", low=4, high=MAX_WIDTH)
    critic_layers: int | None = option(None, "its layers, each halves the picture", low=2, high=12)
    n_critic: int | None = option(None, "steps of the critic per step of the generator", low=1, high=1000)
    lr: float | None = option(None, "learning rate of the generator (Adam, beta1 0.5)", low=0)
    critic_lr: float | None = option(None, "learning rate of the critic", low=0)
    adversarial_weight: float | None = option(None, "of how real the critic finds a face, a mean over patches", low=0)
    class_weight: float | None = option(None, "of the classes, in both losses", low=0)
    cycle_weight: float | None = option(None, "of the way back, mean absolute difference", low=0)
    strength_weight: float | None = option(None, "of the critic's confidence against the strength asked for", low=0)
    point_weight: float | None = option(None, "of the point that the critic reads off an edit", low=0)
    prediction_weight: float | None = option(None, "Gaussian only: of the class at a mean", low=0)
    penalty_weight: float | None = option(None, "of the gradient penalty (joint: R1 on real faces)", low=0)
    beta2: float | None = option(None, "Adam's memory of squared gradients", low=0, high=0.99999)
    free: float | None = option(None, "share of a batch with codes anywhere in the plane", low=0, high=1)
    full: float | None = option(None, "linear only: share of the other codes at full strength", low=0, high=1)
    axes: str | None = option(
        None, "linear only: axes begin at random, or evenly around the circle", choices=("random", "even")
    )
    edited: float | None = option(
        None, "share of a batch that is edited; the critic's class head learns from all of it", low=0, high=1
    )
    warmup: float | None = option(None, "first share of the steps, for that class head alone", low=0, high=1)
    ema: float | None = option(
        None, "memory of the average of the generator's weights (0: the last ones)", low=0, high=1
    )
    decay: float | None = option(None, "last share of the steps in which the rates fall to 0", low=0, high=1)


def settled(config: Config) -> Settings:
    """The preset's values, and the given ones in their place. `ValueError`: they contradict one another."""
    given = {key: value for key, value in asdict(config).items() if value is not None and key != "preset"}
    settings = replace(PRESETS[config.preset, config.space], **given)
    if settings.critic == "joint" and settings.space != "linear":
        raise ValueError("critic=joint asks for one class at a time, which a Gaussian space does not: use wasserstein")
    return settings
