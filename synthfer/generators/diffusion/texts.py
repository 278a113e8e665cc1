"""Prompts to embeddings: each distinct text once, always in one canonical shape, cached in memory on the CPU.

Text encoders give slightly different bits for different batch sizes, so texts are encoded in calls of a fixed number of
rows, padded. A plan may have thousands of prompts or millions, so texts are encoded when a batch first needs them, and
the least recently used are dropped beyond a memory limit: this changes the time, never a bit. A job with few prompts
can `prepare` them all, which frees the text encoders (11 GB for SD3).
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from synthfer.generators import Failure
from synthfer.generators._device import ROW_ERRORS, concerns_the_device
from synthfer.generators.diffusion.families import Embeds, Family

log = logging.getLogger(__name__)

Text = str | None
"""None is an absent negative prompt, which SDXL treats differently from an empty one."""


class TextEncoder:
    """Embeddings by text, for one pipeline of a family that takes embeddings."""

    def __init__(
        self, pipe: Any, family: Family, *, tokens: int, device: torch.device, limit: int, cut_long: bool
    ) -> None:
        """`pipe` holds the text encoders, on `device`; `limit` is the memory for embeddings in bytes."""
        assert family.encode is not None
        self._pipe, self._family, self._encode_batch = pipe, family, family.encode
        self._tokens, self._device, self._limit, self._cut_long = tokens, device, limit, cut_long
        self._zeros = bool(pipe.config.get("force_zeros_for_empty_prompt"))
        self._known: OrderedDict[Text, Embeds | Failure] = OrderedDict()
        self._bytes = 0
        self._warned_of_cut = False

    def encode(self, texts: Iterable[Text]) -> dict[Text, Embeds | Failure]:
        """The embeddings of every text, on the CPU, or why it has none."""
        embedded: dict[Text, Embeds | Failure] = {}
        missing = []
        for text in dict.fromkeys(texts):
            if text in self._known:
                self._known.move_to_end(text)
                embedded[text] = self._known[text]
            else:
                missing.append(text)
        rows = self._family.encode_rows
        for start in range(0, len(missing), rows):
            chunk = missing[start : start + rows]
            for text, embeds in zip(chunk, self._encode(chunk), strict=True):
                embedded[text] = embeds
                self._keep(text, embeds)
        return embedded

    def prepare(self, texts: Iterable[Text]) -> bool:
        """Encodes all texts of a job and frees the text encoders; False, and nothing freed, if they do not fit."""
        wanted = list(dict.fromkeys(texts))
        for start in range(0, len(wanted), self._family.encode_rows):
            self.encode(wanted[start : start + self._family.encode_rows])
            if self._bytes / len(self._known) * len(wanted) > self._limit:
                log.info(
                    "%d prompts do not fit into generator.text_cache_mb; the text encoders stay in memory.", len(wanted)
                )
                return False
        self._pipe = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def batch(self, embeds: Sequence[Embeds | Failure], device: torch.device, prefix: str = "") -> dict[str, Any]:
        """Arguments of a pipeline's call for these rows; each distinct embedding crosses to the device once."""
        rows = [row for row in embeds if not isinstance(row, Failure)]
        if self._family.ragged:
            return {prefix + name: [row[name].to(device) for row in rows] for name in rows[0]}
        distinct = {id(row): row for row in rows}
        positions = {key: position for position, key in enumerate(distinct)}
        order = torch.tensor([positions[id(row)] for row in rows], device=device)
        return {
            prefix + name: torch.stack([row[name] for row in distinct.values()]).to(device)[order] for name in rows[0]
        }

    def _encode(self, chunk: Sequence[Text]) -> list[Embeds | Failure]:
        if self._pipe is None:
            return [Failure("this prompt was not prepared, and the text encoders are gone")] * len(chunk)
        padded = [text or "" for text in chunk] + [""] * (self._family.encode_rows - len(chunk))
        try:
            with torch.no_grad():
                batch = self._encode_batch(self._pipe, padded, self._tokens, self._device)
        except ROW_ERRORS as error:
            if concerns_the_device(error):
                raise
            if len(chunk) == 1:
                return [Failure(f"the prompt cannot be encoded: {type(error).__name__}: {error}")]
            return [self._encode([text])[0] for text in chunk]
        return [self._finish(text, row) for text, row in zip(chunk, batch, strict=False)]

    def _finish(self, text: Text, row: Embeds) -> Embeds | Failure:
        if text is None and self._zeros:
            return {name: torch.zeros_like(value, device="cpu") for name, value in row.items()}
        tokens, room = self._length(text or "")
        if tokens > room:
            if not self._cut_long:
                return Failure(f"the prompt has {tokens} tokens, {tokens - room} more than the model reads")
            if not self._warned_of_cut:
                log.warning("Prompts of more than %d tokens are cut, such as this one of %d: %s", room, tokens, text)
                self._warned_of_cut = True
        # A copy, since a row would keep the whole batch alive.
        return {name: value.to("cpu", copy=True) for name, value in row.items()}

    def _length(self, text: str) -> tuple[int, int]:
        """Tokens of a text and room for them, by the tokenizer that reads most (T5 where there is CLIP and T5)."""
        names = [name for name in self._pipe.components if name.startswith("tokenizer")]
        tokenizer = getattr(self._pipe, max(name for name in names if getattr(self._pipe, name) is not None))
        room = self._tokens if self._family.text_limit else tokenizer.model_max_length
        return len(tokenizer(text, verbose=False).input_ids) + self._family.template, room

    def _keep(self, text: Text, embeds: Embeds | Failure) -> None:
        self._known[text] = embeds
        self._bytes += _size(embeds)
        while self._bytes > self._limit and len(self._known) > 1:
            self._bytes -= _size(self._known.popitem(last=False)[1])


def _size(embeds: Embeds | Failure) -> int:
    return 0 if isinstance(embeds, Failure) else sum(value.nbytes for value in embeds.values())
