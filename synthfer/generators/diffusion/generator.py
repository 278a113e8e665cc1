"""The diffusion generator: rows of a plan to pictures, each a function of weights, row and settings alone.

- Every call of the pipeline has one shape: a short batch is filled by repeating its last row. Within one shape, a
  picture has the same bits in any slot and with any neighbours; another batch size changes them, so it is recorded.
- Noise comes from one CPU generator per row, seeded with the row's seed and given to the pipeline, which draws it
  packed or plain as it needs and casts it to its dtype (the same numbers as a float32 draw that is cast). It also
  serves samplers that draw noise at every step. The same noise comes from plain diffusers with
  `torch.Generator().manual_seed(seed)`. torch uses the lower 32 bits of a seed: two rows of one prompt share their
  noise with a chance of 2**-32, about 40 pairs in 10**8 rows over 30,000 prompts.
- Speed-ups that decide for a whole batch at once (FirstBlockCache, SeaCache) are not offered.
- A row that fails, fails alone: when a call raises, its rows are tried one by one in the same shape.
"""

import logging
import os
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from synthfer.generators import Faces, Failure, OutOfMemory, Picture
from synthfer.generators._device import (
    BLANK,
    ROW_ERRORS,
    blank,
    check_batch,
    concerns_the_device,
    device_notes,
    device_of,
    dtype_of,
    fail_alone,
    fill_missing,
    not_finite,
    run_exactly,
)
from synthfer.generators.diffusion import Config, kernels, pipelines
from synthfer.generators.diffusion.families import Embeds, cut_guidance, family_of
from synthfer.generators.diffusion.settings import settle, takes
from synthfer.generators.diffusion.texts import Text, TextEncoder
from synthfer.sample import Row
from synthfer.schema import ConfigError

log = logging.getLogger(__name__)
_Embedded = dict[Text, Embeds | Failure]


class Diffusion:
    """A loaded pipeline as a `Generator`. One call at a time: lock it where threads share it.

    `batch_size` is the most rows of a call of `make`, `dtype` the type of the weights.
    """

    def __init__(self, config: Config) -> None:
        """Loads the weights and makes one trial batch; see `build` for errors."""
        # CUDA reads it when it starts; without it cuBLAS may choose other kernels from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._config = config
        self._device = device_of(config.device)
        self._text_device = torch.device("cpu") if config.text_encoder == "cpu" else self._device
        self.dtype = dtype_of(config.dtype, self._device)
        loaded = pipelines.load(config, self.dtype)
        self._pipe, self._facts = loaded.pipe, loaded.facts
        self._pipe.set_progress_bar_config(disable=True)
        self._family = family_of(self._pipe)
        self._settings = settle(config, self._pipe, self._family, loaded.card)
        self.batch_size = config.batch_size
        self._call_rows = 1 if self._family.one_row else config.batch_size
        if self._family.one_row:
            log.info("%s runs one row per call: %s.", type(self._pipe).__name__, self._family.one_row)
        self._texts = self._split_text()
        run_exactly(self._set_up, config.threads, self._device)
        try:
            run_exactly(self._make_trial_batch, config.threads, self._device)
        except OutOfMemory as error:
            # Raised again by the first call of `make`, whose caller can halve the batch.
            log.warning("A batch of %d rows does not fit: %s", self.batch_size, error)

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One picture (uint8, height x width x 3, RGB) or `Failure` per row, in order.

        At most `batch_size` rows. `OutOfMemory` where the device cannot hold a batch; the generator stays usable.
        """
        check_batch(rows, self.batch_size)
        return run_exactly(lambda: self._make(rows), self._config.threads, self._device)

    def prepare(self, texts: Sequence[Text]) -> bool:
        """Encodes all prompts and negative prompts of a job ahead and frees the text encoders; optional.

        Worth it where there are few: afterwards a row with another prompt fails. False, and nothing is freed,
        where they do not fit into the text cache or the pipeline encodes prompts itself.
        """
        encoder = self._texts
        if encoder is None:
            return False
        return run_exactly(lambda: encoder.prepare(texts), self._config.threads, self._device)

    def producer(self) -> dict[str, Any]:
        """Everything that the pictures are a function of, as JSON: no path, no machine, nothing about speed."""
        config, cpu = self._config, self._device.type == "cpu"
        return {
            "generator": "diffusion",
            **self._facts,
            **asdict(self._settings),
            "lora_scale": config.lora_scale if config.lora else None,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_size": self.batch_size,
            "rows_per_call": self._call_rows,
            "vae_batch": self._vae_batch,
            "compile": config.compile,
            "strict": config.strict,
            "text_encoder": self._text_device.type,
            "long_prompts": config.long_prompts,
            # Kernels of a GPU do not depend on the number of CPU threads.
            "threads": config.threads if cpu else None,
            # Absent where it is not given: datasets from before the option keep their spec.
            **({"trained_on": sorted(config.trained_on)} if config.trained_on else {}),
            "versions": {m.__name__: m.__version__.partition("+")[0] for m in (diffusers, transformers, torch)},
        }

    def device_notes(self) -> dict[str, str]:
        """What may differ between workers, and with it the last bits of a picture: recorded, not hashed."""
        return device_notes(self._device)

    # -- setting up

    def _split_text(self) -> TextEncoder | None:
        """Moves text encoders and tokenizers into a pipeline of their own, which can live elsewhere and be freed."""
        if self._family.encode is None:
            return None
        text_pipe = copy(self._pipe)
        for name, part in self._pipe.components.items():
            if name.startswith(("text_encoder", "tokenizer")):
                setattr(self._pipe, name, None)
            elif isinstance(part, torch.nn.Module):
                setattr(text_pipe, name, None)
        text_pipe.to(self._text_device)
        return TextEncoder(
            text_pipe,
            self._family,
            tokens=self._settings.text_tokens or 0,
            device=self._text_device,
            limit=self._config.text_cache_mb * 2**20,
            cut_long=self._config.long_prompts == "cut",
        )

    def _set_up(self) -> None:
        """Moves the model to its device and chooses its kernels."""
        pipe, config, cuda = self._pipe, self._config, self._device.type == "cuda"
        pipe.to(self._device)
        if cuda:
            kernels.channels_last(pipe)
            if type(pipe.scheduler).__name__ in ("DDIMScheduler", "PNDMScheduler"):
                log.info(
                    "%s makes the GPU wait at every step; generator.scheduler=DPMSolverMultistepScheduler or"
                    " UniPCMultistepScheduler do not.",
                    type(pipe.scheduler).__name__,
                )
        if config.strict and not config.compile:
            raise ConfigError("generator.strict chooses among compiled kernels; set generator.compile=true too.")
        if config.compile:
            kernels.compile_model(pipe, self._family, config.strict)
        self._vae_batch = kernels.decode_in_batches(pipe.vae, self._call_rows, config.vae_batch)

    def _make_trial_batch(self) -> None:
        """Checks by one batch that pipeline, scheduler and sizes fit; where the first run is slow, it warms up, too."""
        warm_up = self._device.type == "cuda" or self._config.compile
        steps = self._settings.steps if warm_up else min(2, self._settings.steps)
        trial = Row(index=0, label=0, seed=0, prompt="a face")
        embedded = self._embed([trial])
        refusal = self._refusal(trial, embedded)
        try:
            if refusal:
                raise ValueError(refusal.reason)
            self._call([trial], embedded, steps)
        except ROW_ERRORS as error:
            if concerns_the_device(error):
                raise
            raise ConfigError(
                f"generator: {type(self._pipe).__name__} cannot run with these settings:"
                f" {type(error).__name__}: {error}"
            ) from error

    # -- making pictures

    def _make(self, rows: Sequence[Row]) -> list[Picture]:
        embedded = self._embed(rows)

        def call(some: Sequence[Row]) -> list[Picture]:
            return self._call(some, embedded, self._settings.steps)

        def run(indexes: list[int]) -> list[Picture]:
            good = [rows[i] for i in indexes]
            calls = [good[start : start + self._call_rows] for start in range(0, len(good), self._call_rows)]
            return [picture for some in calls for picture in fail_alone(call, some, "the pipeline")]

        return fill_missing([self._refusal(row, embedded) for row in rows], run)

    def _texts_of(self, row: Row) -> list[Text]:
        """Texts that a row needs; the negative one only where it has an effect."""
        return [row.prompt, row.negative_prompt] if self._settings.guided else [row.prompt]

    def _embed(self, rows: Sequence[Row]) -> _Embedded:
        """The embeddings of all texts of these rows; none where the pipeline is given the prompt itself."""
        wanted = [text for row in rows if row.prompt for text in self._texts_of(row)]
        return self._texts.encode(wanted) if self._texts else {}

    def _refusal(self, row: Row, embedded: _Embedded) -> Failure | None:
        """Why no picture can be made of a row; None where one can."""
        if not row.prompt:
            return Failure("the row has no prompt")
        embeds = [embedded.get(text) for text in self._texts_of(row)]
        return next((failure for failure in embeds if isinstance(failure, Failure)), None)

    def _call(self, rows: Sequence[Row], embedded: _Embedded, steps: int) -> list[Picture]:
        """The pictures of one call of the pipeline, which has one shape."""
        settings, family = self._settings, self._family
        padded = [*rows, *[rows[-1]] * (self._call_rows - len(rows))]
        options = self._conditions(padded, embedded)
        if family.guidance and settings.guidance is not None:
            options[family.guidance] = settings.guidance
        if settings.guidance_until < 1:
            options |= cut_guidance(family, max(1, round(steps * settings.guidance_until)))
        if settings.text_tokens:
            options["max_sequence_length"] = settings.text_tokens
        images = self._pipe(
            height=settings.height,
            width=settings.width,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(row.seed) for row in padded],
            output_type="pt",
            **options,
        ).images
        return to_pictures(images)[: len(rows)]

    def _conditions(self, rows: Sequence[Row], embedded: _Embedded) -> dict[str, Any]:
        """What the pictures show, as arguments of the pipeline's call."""
        if self._texts is None:
            (row,) = rows
            negative = {"negative_prompt": row.negative_prompt} if takes(self._pipe, "negative_prompt") else {}
            return {"prompt": row.prompt, **negative}
        options = self._texts.batch([embedded[row.prompt] for row in rows], self._device)
        if self._settings.guided:
            unwanted = [embedded[row.negative_prompt] for row in rows]
            options |= self._texts.batch(unwanted, self._device, "negative_")
        return options


def to_pictures(images: torch.Tensor) -> list[Picture]:
    """Pictures from a pipeline's images (float, B x 3 x H x W, 0..1), bit-equal to its PIL output.

    Rounding and checks happen on the device and cross to the host in one copy. A picture that is not finite
    or is blank (below `BLANK`) is a `Failure`.
    """
    values = images.float()
    finite = values.isfinite().flatten(1).all(1)
    deviation = values.flatten(2).std(2).amax(1) * 255
    levels = values.nan_to_num(0.0).mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1)
    checks = torch.stack([finite, deviation >= BLANK], 1).to(torch.uint8)
    host = torch.cat([levels.flatten(1), checks], 1).cpu().numpy()
    shape = tuple(levels.shape[1:])
    return [_checked(row[:-2].reshape(shape), bool(row[-2]), bool(row[-1])) for row in host]


def _checked(pixels: np.ndarray, finite: bool, structured: bool) -> Picture:
    if not finite:
        return not_finite()
    if not structured:
        return blank()
    return pixels
