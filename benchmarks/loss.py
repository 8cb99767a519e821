"""Measures the speed of ``gls_loss`` against torch's own losses and writes the evidence.

Run ``python benchmarks/loss.py`` in the repository. The forms take turns within every round, so that a machine
that slows down slows them all; what is reported is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own spelling)
from torch import Tensor

from nls_tune.losses import gls_loss
from nls_tune.machine.provenance import provenance

RATE = -0.4
SIZES = ((1024, 1000), (512, 100))
TARGETS = {  # the ratio that gls_loss must not exceed on one CPU core
    "1024x1000": {"log_softmax": 1.0, "cross_entropy": 1.6},
    "512x100": {"log_softmax": 1.0},
}


def log_softmax_form(logits: Tensor, targets: Tensor) -> Tensor:
    """Return GLS as one would write it first: log_softmax, gather and mean, composed with autograd."""
    log_p = torch.log_softmax(logits, 1)
    nll = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1)
    return ((1 - RATE) * nll - RATE * log_p.mean(1)).mean()


def soft_target_form(logits: Tensor, targets: Tensor) -> Tensor:
    """Return GLS through torch's cross-entropy with class probabilities."""
    soft = F.one_hot(targets, logits.shape[1]).to(logits.dtype).mul_(1 - RATE).add_(RATE / logits.shape[1])
    return F.cross_entropy(logits, soft)


class FusedGLS(torch.autograd.Function):
    """The mean GLS with a hand-written backward: the road not taken, kept to measure it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss."""
        log_p = torch.log_softmax(logits, 1)
        return (1 - RATE) * F.nll_loss(log_p, targets) - RATE * log_p.mean()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep the logits: their softmax is computed again, in the memory that log_p has left."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits, made in place in one buffer."""
        logits, targets = ctx.saved_tensors
        samples, classes = logits.shape
        result = torch.softmax(logits, 1).sub_(RATE / classes)
        result.scatter_add_(1, targets.unsqueeze(1), result.new_full((samples, 1), RATE - 1))
        return result.mul_(grad / samples), None


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gls_loss": lambda logits, targets: gls_loss(logits, targets, RATE),
    # As a training calls it: on CUDA gls_loss cannot see for itself that no label is ignored.
    "none_ignored": lambda logits, targets: gls_loss(logits, targets, RATE, ignore_index=None),
    "log_softmax": log_softmax_form,
    "fused_function": FusedGLS.apply,
    "cross_entropy": lambda logits, targets: F.cross_entropy(logits, targets),
    "label_smoothing": lambda logits, targets: F.cross_entropy(logits, targets, label_smoothing=abs(RATE)),
    "soft_targets": soft_target_form,
}


def measure(device: torch.device, samples: int, classes: int, rounds: int) -> dict[str, list[float]]:
    """Return, for every form, the seconds that one forward and backward took in each round."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, generator=generator).to(device).requires_grad_()
    targets = torch.randint(0, classes, (samples,), generator=generator).to(device)
    repeats = max(1, round(3e6 / (samples * classes)))  # a few milliseconds per turn
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    warm_up = 5
    for round_number in range(rounds + warm_up):
        for name, form in FORMS.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(repeats):
                logits.grad = None
                form(logits, targets).backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_number >= warm_up:
                seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles of the values."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def measure_size(device: torch.device, samples: int, classes: int, rounds: int) -> dict[str, Any]:
    """Return the evidence for one size on one device."""
    seconds = measure(device, samples, classes, rounds)
    ratios = {
        reference: summary([a / b for a, b in zip(seconds["gls_loss"], seconds[reference], strict=True)])
        for reference in FORMS
        if reference != "gls_loss"
    }
    size = f"{samples}x{classes}"
    targets = TARGETS.get(size, {}) if device.type == "cpu" else {}
    return {
        "device": device.type,
        "samples": samples,
        "classes": classes,
        "dtype": "float32",
        "smooth_rate": RATE,
        "rounds": rounds,
        "microseconds": {name: summary([s * 1e6 for s in values]) for name, values in seconds.items()},
        "gls_loss_ratio_to": ratios,
        "target_ratio_to": targets,
        "met": all(ratios[name]["median"] <= bound for name, bound in targets.items()),
    }


def evidence(rounds: int) -> dict[str, Any]:
    """Measure every size on one CPU core, and on CUDA where there is a device."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    gc.disable()  # a collection in one form's turn would be counted against it
    return {
        "what": "forward and backward of one loss, forms alternating, medians over rounds",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "threads": torch.get_num_threads(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "measurements": [measure_size(device, n, k, rounds) for device in devices for n, k in SIZES],
    }


def show(result: dict[str, Any]) -> None:
    """Print the table of a result of ``evidence``."""
    lines = [
        f"{result['hardware']['cpu']}, {result['threads']} threads, torch {result['versions']['torch']}",
        f"{'device':<7}{'size':<11}{'form':<17}{'microseconds':>13}{'gls_loss / form':>17}{'quartiles':>14}",
    ]
    for row in result["measurements"]:
        for name in FORMS:
            start = f"{row['device']:<7}{row['samples']}x{row['classes']:<6}{name:<17}"
            line = f"{start}{row['microseconds'][name]['median']:>13.0f}"
            if name != "gls_loss":
                ratio = row["gls_loss_ratio_to"][name]
                line += f"{ratio['median']:>17.2f}{ratio['quartile_1']:>8.2f}-{ratio['quartile_3']:.2f}"
                bound = row["target_ratio_to"].get(name)
                line += "" if bound is None else f"  (target: at most {bound})"
            lines.append(line)
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Measure, print the table and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200, help="rounds for each size (default: 200)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "evidence" / "loss.json",
        help="where the evidence goes (default: benchmarks/evidence/loss.json)",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds must be at least 2 to have quartiles, got {arguments.rounds}")
    torch.set_num_threads(1)
    result = evidence(arguments.rounds)
    show(result)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
