"""The exceptions of the package and the wording that they share.

Every message says the rule, the value and the way out, in one line. This module imports nothing, so that
every other module may use it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: How the ways to run out of memory call themselves: torch, the CUDA runtime, cuBLAS, cuDNN, the CPU's allocator.
_OUT_OF_MEMORY = ("outofmemoryerror", "out of memory", "alloc_failed", "allocation_failed", "can't allocate memory")
#: cuDNN with too little room to work in, but also with a computation that it does not have at all, such as bfloat16.
_NO_ENGINE = "unable to find an engine to execute this computation"


class NlsTuneError(Exception):
    """Base class of the package's own exceptions."""


class InputError(NlsTuneError, ValueError):
    """Something the user gave cannot be used; the command exits with 2 and prints the message."""


class CompileError(NlsTuneError, RuntimeError):
    """Compiling was asked for and does not work here."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """Return the error for a name that does not exist, with the nearest valid one and all of them in their order.

    ``kind`` says what the name stands for, for example ``"dataset"``.
    """
    names = list(valid)
    lowered = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    hint = f" (did you mean {lowered[near[0]]!r}?)" if near else ""
    return InputError(f"unknown {kind} {name!r}{hint}; valid: {', '.join(names)}")


def is_out_of_memory(error: BaseException | str, *, shared_gpu: bool = False) -> bool:
    """Whether an error, or the line ``Type: message`` that is left of it, means that memory ran out.

    Only part of the GPU libraries raise ``torch.OutOfMemoryError``; cuBLAS and cuDNN show as RuntimeError. Where others
    train on the same GPU, ``shared_gpu``, cuDNN's words for "no way to compute this" mean that its workspace did not
    fit; with the GPU to itself they mean what they say.
    """
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    signs = (*_OUT_OF_MEMORY, _NO_ENGINE) if shared_gpu else _OUT_OF_MEMORY
    return any(sign in text.lower() for sign in signs)


def error_line(error: BaseException) -> str:
    """Return type and message of an error in one line, without the advice that torch adds to it."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {'. '.join(first.split('. ')[:2])}".rstrip(".")
