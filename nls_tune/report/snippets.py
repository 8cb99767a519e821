"""A choice as Python: the loop that trains in this way."""

from __future__ import annotations

from nls_tune.analysis.choices import Choice
from nls_tune.losses.registry import LOSS_SETTINGS, loss_info
from nls_tune.report.text import average_of, number, other_settings
from nls_tune.spaces.settings import RATE_ARMS


def snippet(use: Choice) -> str:
    """Return a training loop: CE first, then the loss with a fresh optimiser, to the epoch at which to stop.

    Where averaged weights are to be used, it averages them anew in each phase.
    """
    config, warmup = use.config, int(use.config["warmup_epochs"])
    lr = f"{config['lr']:.6g}"
    first_lr = lr if use.warmup_lr is None else f"{use.warmup_lr:.6g}"
    if warmup:
        lr = f"{first_lr} if warm_up else {lr}"
    fixed = {} if use.schedule == "constant" else {"schedule": use.schedule}
    fixed |= {} if use.class_weights == "none" else {"class_weights": use.class_weights}
    others = {name: v for name, v in {**fixed, **other_settings(config)}.items() if name not in LOSS_SETTINGS}
    also = "  # also " + ", ".join(f"{name}={value!r}" for name, value in others.items()) if others else ""
    head, loss, call = _loss(use, warmup)
    batch = "inputs, labels, indices" if "indices" in call else "inputs, labels"
    start, update = "", ""
    if (span := average_of(use.readout)) is not None:
        head += (
            "from torch.optim.swa_utils import AveragedModel\n\n"
            "def average(mean, now, n):\n"
            f"    return mean + (now - mean) / (1 + {number(span)} * n)\n\n"
        )
        start = "        averaged = AveragedModel(model, avg_fn=average, use_buffers=True)\n"
        update = "        averaged.update_parameters(model)  # use this network, not model\n"
    return (
        f"{head}for epoch in range(1, {(use.best_epoch or warmup + 1) + 1}):{also}\n"
        + (f"    warm_up = epoch <= {warmup}\n" if warmup else "")
        + f"    loss_fn, lr = {loss}, {lr}\n"
        f"    if epoch {f'in (1, {warmup + 1})' if warmup else '== 1'}:\n"
        f"        optimizer = make_optimizer(model.parameters(), lr=lr)\n{start}"
        f"    for {batch} in batches:\n"
        "        optimizer.zero_grad()\n"
        f"        loss_fn({call}).backward()\n"
        f"        optimizer.step()\n{update}"
    )


def _loss(use: Choice, warmup: int) -> tuple[str, str, str]:
    """Return the lines before the loop, the loss of an epoch, and what it is called with."""
    if use.arm in RATE_ARMS:
        rate = f"{use.config['smooth_rate'] + 0.0:.6g}"
        rate = f"0 if warm_up else {rate}" if warmup and use.arm != "ce" else rate
        return "from nls_tune import GLSLoss\n\n", f"GLSLoss(smooth_rate={rate})", "model(inputs), labels"
    needs = loss_info(use.arm).needs
    needed = {"indices": ", num_classes=K, num_samples=N", "matrix": ", matrix=T", "nothing": ""}[needs]
    given = "".join(f", {name}={value!r}" for name, value in use.config.items() if name in LOSS_SETTINGS)
    name = "other_loss"
    head = f"from nls_tune.losses import make_loss\n\n{name} = make_loss({use.arm!r}{needed}{given})\n"
    head += "ce = make_loss('ce')\n\n" if warmup else "\n"
    loss = f"ce if warm_up else {name}" if warmup else name
    call = "model(inputs), labels, indices" if needs == "indices" else "model(inputs), labels"
    return head, loss, call
