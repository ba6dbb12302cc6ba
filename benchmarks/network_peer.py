"""The published PyTorch networks as a worker, for `train_step.py` and `draw.py`. Runs in the peers' environment."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import sys
import types

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from workers import seconds, serve

LEADS, SAMPLES = 8, 1000


def _unet() -> torch.nn.Module:
    """The one-dimensional U-Net of denoising-diffusion-pytorch; only its module is loaded, for the package asks for torchvision."""
    package = types.ModuleType("denoising_diffusion_pytorch")
    package.__path__ = list(importlib.util.find_spec("denoising_diffusion_pytorch").submodule_search_locations)
    sys.modules[package.__name__] = package
    for name in ("accelerate", "ema_pytorch"):  # of its trainer, which is not used
        stub = types.ModuleType(name)
        stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
        stub.Accelerator = stub.EMA = object
        sys.modules[name] = stub
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import Unet1D

    return Unet1D(dim=64, dim_mults=(1, 2, 4, 8), channels=LEADS)


def _diffusers() -> torch.nn.Module:
    """The one-dimensional U-Net of diffusers, with 64 to 256 channels."""
    from diffusers import UNet1DModel

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = UNet1DModel(
                in_channels=LEADS,
                out_channels=LEADS,
                extra_in_channels=128,
                time_embedding_type="fourier",
                use_timestep_embedding=False,
                block_out_channels=(64, 128, 256),
            )

        def forward(self, x, step):
            return self.network(x, step).sample

    return Network()


class _DiffWave(torch.nn.Module):
    """diffwave's own embedding and residual layers for eight leads; without a spectrogram, which an ECG has not."""

    def __init__(self):
        super().__init__()
        from diffwave.model import Conv1d, DiffusionEmbedding, ResidualBlock

        class Zero(torch.nn.Module):
            def forward(self, conditioner):
                return 0.0

        self.enter = Conv1d(LEADS, 64, 1)
        self.embedding = DiffusionEmbedding(50)
        self.blocks = torch.nn.ModuleList([ResidualBlock(1, 64, 2 ** (number % 10)) for number in range(20)])
        for block in self.blocks:
            block.conditioner_projection = Zero()
        self.skip, self.leave = Conv1d(64, 64, 1), Conv1d(64, LEADS, 1)
        torch.nn.init.zeros_(self.leave.weight)

    def forward(self, x, step):
        x = torch.relu(self.enter(x))
        state = self.embedding(step)
        skips = []
        for block in self.blocks:
            x, skip = block(x, None, state)
            skips.append(skip)
        x = torch.sum(torch.stack(skips), dim=0) / math.sqrt(len(skips))
        return self.leave(torch.relu(self.skip(x)))


def main() -> None:
    name, precision, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(0)
    network = {"unet": _unet, "diffwave": _DiffWave, "diffusers": _diffusers}[name]()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step(x, noise, level, at) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = network(level.sqrt() * x + (1 - level).sqrt() * noise, at)
        loss = torch.mean((output.float() - noise) ** 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    def drawn() -> tuple:
        x = torch.randn(batch, LEADS, SAMPLES)
        return x, torch.randn_like(x), torch.rand(batch, 1, 1), torch.randint(0, 50, (batch,))

    def steps(times: int) -> float:
        return seconds(lambda: step(*drawn()), times)

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            step(*drawn())
        return counter.get_total_flops()

    def parameters(path: str) -> None:
        """Writes the weights, in the order of the network."""
        np.savez(path, **{key: value.detach().numpy() for key, value in network.named_parameters()})

    def losses(path: str) -> list[float]:
        """Of a training on given batches, from the weights written."""
        given = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
        return [step(*(given[key][k] for key in ("x", "noise", "level", "at"))) for k in range(len(given["x"]))]

    @torch.no_grad()
    def draw(evaluations: int) -> float:
        """Seconds of a deterministic sampler with so many evaluations of the network."""

        def course() -> None:
            x = torch.randn(batch, LEADS, SAMPLES)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                for k in reversed(range(evaluations)):
                    x = 0.9 * x + 0.1 * network(x, torch.full((batch,), k)).float()

        return seconds(course)

    serve({"steps": steps, "draw": draw, "flops": flops, "parameters": parameters, "losses": losses})


if __name__ == "__main__":
    main()
