"""Checkpoints of tiny random networks with their cards, one for each generator that loads weights."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from synthfer.checkpoints import Card
from synthfer.generators.expression_editor.networks import Generator as Editor
from synthfer.generators.expression_editor.networks import NetworkConfig as EditorConfig
from synthfer.generators.gan.networks import Dcgan
from synthfer.generators.gan.networks import NetworkConfig as GanConfig
from synthfer.generators.vae_gan.networks import NetworkConfig as VaeGanConfig
from synthfer.generators.vae_gan.networks import VaeGan


def save(module: nn.Module, folder: Path, **facts: Any) -> str:
    """Writes weights and card; the path of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    safetensors.torch.save_file({k: v.contiguous() for k, v in module.state_dict().items()}, path)
    (folder / "model.card.yaml").write_text(Card(**facts).to_yaml())
    return str(path)


def gan(folder: Path, seed: int = 0, **options: Any) -> str:
    """A DCGAN of 16 pixels, with weights so large that its pictures are not blank."""
    options = {"latent": 8, "width": 4, "size": 16} | options
    network = seeded(lambda: Dcgan(GanConfig(**options)), seed)
    network.main[-2].weight.data.mul_(30)
    return save(network, folder, architecture="dcgan", options=options)


def seeded(build: Any, seed: int) -> Any:
    """What `build` makes with torch's random state at a seed, which is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def expression_editor(folder: Path, seed: int = 0) -> str:
    """An editor of 16 pixels."""
    options = {"space": "linear", "size": 16, "width": 8, "blocks": 1, "channels": "RGB"}
    network = seeded(lambda: Editor(EditorConfig(**options)), seed)
    return save(network, folder, architecture="expression_editor", options=options)


def vae_gan(folder: Path, seed: int = 0) -> str:
    """A VAE-GAN of 32 pixels whose classes have means, and ten faces each."""
    options = {"size": 32, "width": 8, "latent": 6}
    network = seeded(lambda: VaeGan(VaeGanConfig(**options)), seed)
    network.means.copy_(torch.randn(7, 6, generator=torch.Generator().manual_seed(seed)))
    network.covariances.copy_(torch.eye(6).expand(7, 6, 6))
    network.counts.fill_(10)
    return save(network, folder, architecture="vae_gan", options=options)
