"""The token counting seam: whoever asks tiktoken for an encoding is given one over the extension's core.

LiteLLM's rules of counting (messages, tools, images) are left to it; what it counts by is replaced where
all of its versions get it: in tiktoken's registry. That is done when tiktoken is loaded, which LiteLLM
does before it counts anything. Texts that LiteLLM counts by tokenizers of its own never come here, nor do
those for its native tokenizer where that is switched on.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from fast_litellm import _encoding_definitions, _native
from fast_litellm._native import FAULTS
from fast_litellm._token_gate import Gate
from fast_litellm.integrations.litellm import _compat
from fast_litellm.integrations.litellm.seam import Seam, logger

#: What LiteLLM counts by: loaded before workers are forked.
_SHARED = ("cl100k_base", "o200k_base")

#: All that were made, by name: whoever holds one keeps it when the seam is removed and applied again.
_made: dict[str, Any] = {}
#: The seam whose tables are loaded before a fork.
_applied: TokenCountingSeam | None = None
_hooked = False


class TokenCountingSeam(Seam):
    """Puts encodings into tiktoken's registry, and where LiteLLM has kept some of it."""

    missing = "tokens are counted by tiktoken"

    def __init__(self, region: _native.Region) -> None:
        super().__init__()
        self._gate = Gate(region)
        self._names: list[str] = []
        #: Why an encoding is left to tiktoken, by name.
        self._left: dict[str, str] = {}
        #: What the registry had, by name; None = nothing.
        self._registered: dict[str, Any] = {}
        #: What LiteLLM had kept: by the place where it was.
        self._kept: dict[_compat.Keeper, Any] = {}

    @property
    def open(self) -> bool:
        """Whether the feature is off for all workers."""
        return self._gate.breaker.open

    @property
    def reason(self) -> str:
        """Why it is not applied; where it is, what it does not reach."""
        if self.state == "applied" and not self._reason and _compat.counts_natively():
            return "LiteLLM's native tokenizer is switched on: what it counts is left to it"
        return self._reason

    @reason.setter
    def reason(self, reason: str) -> None:
        self._reason = reason

    def load(self) -> None:
        """Load what LiteLLM counts by, if it is not loaded. Never raises."""
        for name in _SHARED:
            if name in self._registered:
                try:
                    _made[name].load()
                except FAULTS as error:  # workers load it for themselves
                    self._gate.failed("load before a fork", error)

    def apply(self, module: ModuleType) -> None:
        """Replace the encodings that are what the extension implements. Never raises."""
        super().apply(module)
        if self.state == "applied":
            self.reason = "; ".join(
                f"{name} is left to tiktoken: {why}" for name, why in self._left.items()
            )

    def _probe(self, module: ModuleType) -> str:
        from fast_litellm import _encodings

        reason = _encodings.probe()
        if reason:
            return reason
        names, self._left = _encoding_definitions.compare()
        for name in names:
            if not _encodings.is_free(module.ENCODINGS.get(name)):
                self._left[name] = "somebody else has put another one in its place"
        self._names = [name for name in names if name not in self._left]
        if self._names:
            return ""
        return "; ".join(f"{name}: {why}" for name, why in self._left.items())

    def _install(self, module: ModuleType) -> None:
        from fast_litellm import _encodings

        self._gate.active = True
        self._registry = module
        with module._lock:
            for name in self._names:
                theirs = module.ENCODINGS.get(name)
                ours = _made.get(name)
                if ours is None:
                    definition = _encoding_definitions.IMPLEMENTED[name]
                    ours = _encodings.RustEncoding(definition, self._gate, theirs)
                    _made[name] = ours
                else:
                    ours.use(self._gate)
                if theirs is not ours:
                    self._registered[name] = theirs
                    module.ENCODINGS[name] = ours
        for keeper, kept in _compat.kept_encodings():
            if _encodings.is_tiktokens_own(kept) and kept.name in self._registered:
                self._kept[keeper] = kept
                keeper.keep(_made[kept.name])
        _load_before_forks(self)
        logger.info("tokens are counted by the extension: %s", ", ".join(self._names))

    def _undo(self) -> None:
        global _applied
        self._gate.close()
        if _applied is self:
            _applied = None
        ours = {name: _made[name] for name in self._registered if name in _made}
        for keeper, kept in _compat.kept_encodings():
            if any(kept is each for each in ours.values()):
                self._put_back(keeper, kept)
        if self._registered:
            with self._registry._lock:
                for name, theirs in self._registered.items():
                    if self._registry.ENCODINGS.get(name) is not ours.get(name):
                        continue
                    if theirs is None:
                        del self._registry.ENCODINGS[name]
                    else:
                        self._registry.ENCODINGS[name] = theirs
        self._registered, self._kept = {}, {}

    def _put_back(self, keeper: _compat.Keeper, ours: Any) -> None:
        """Have LiteLLM keep what it kept, or would have kept without this seam."""
        if keeper in self._kept:
            keeper.keep(self._kept[keeper])
        elif keeper.asks_again:
            keeper.forget()
        else:
            # It asks tiktoken once, and what it was given is then in the registry as well.
            theirs = ours.tiktokens_own
            self._registered[ours.name] = theirs
            keeper.keep(theirs)


def _load_before_forks(seam: TokenCountingSeam) -> None:
    global _applied, _hooked
    _applied = seam
    if not _hooked:
        _hooked = True
        os.register_at_fork(before=_before_fork)


def _before_fork() -> None:
    if _applied is not None:
        _applied.load()
