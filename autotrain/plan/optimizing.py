"""The optimizer: which one, how torch runs it, and what its settings are at the plan's batch."""

from __future__ import annotations

from typing import Any, NamedTuple

from autotrain.errors import UsageError
from autotrain.plan import learning, sparse_gradients
from autotrain.plan.learning import ADAM_LIKE
from autotrain.plan.ledger import DEFAULT_OPTIMIZER, FOUND_BY_TRYING, Found, Ledger
from autotrain.plan.memory import FUSED, KEEP_MOMENTUM
from autotrain.schema import USUAL_FOR_SPARSE, Device, ModelProfile, OptimizerName

_TORCH = "torch.optim's default"
_DECAY_SOURCE = f"{_TORCH}; He 2016, arXiv:1512.03385, for SGD"
_TIMESCALE = "Wang and Aitchison 2024, arXiv:2405.13698"
_ADAM = "Kingma and Ba 2015, arXiv:1412.6980"


class Batches(NamedTuple):
    """The global batch of the plan, and the one that a setting was found at."""

    plan: int
    found: int

    @property
    def times(self) -> float:
        """How much larger the plan's is."""
        return self.plan / self.found


def choose(ledger: Ledger, device: Device, model: ModelProfile) -> None:
    """All but what the batch changes; `weight_decay` as it is before that (none stays none)."""
    if model.sparse:
        sparse_gradients.make_way(ledger)
    name: OptimizerName = ledger.settle(
        "optimizer.name",
        USUAL_FOR_SPARSE if model.sparse else DEFAULT_OPTIMIZER,
        formula="AdamW converges on most models without tuning"
        + (", but takes no sparse gradients; Adagrad does" if model.sparse else ""),
        source=sparse_gradients.SOURCE
        if model.sparse
        else "Loshchilov and Hutter 2019, arXiv:1711.05101",
    )
    for key in FOUND_BY_TRYING - {"optimizer.lr"}:
        if not _kin(ledger.found.get(key), name, key):
            ledger.drop(key)
    _momentum(ledger, name, sparse=model.sparse)
    _decay(ledger, name, None, sparse=model.sparse)
    ledger.settle(
        "optimizer.clip_norm",
        1.0,
        formula="gradients longer than 1.0 are shortened to it: one bad batch cannot wreck a run",
        source="Pascanu 2013, arXiv:1211.5063",
        would_change="--set optimizer.clip_norm=off",
    )
    fused = name in FUSED and not model.complex and not model.sparse
    rule = "fused" if fused else "for-loop" if device.kind == "cpu" else "foreach"
    ledger.settle(
        "optimizer.implementation",
        rule,
        formula="fused where torch has it: one pass, no temporaries; else torch's default"
        + ("; none takes weights of complex numbers" if model.complex else "")
        + ("; none takes sparse gradients" if model.sparse else ""),
        source="torch.optim",
        limited_by="torch's kernels",
    )
    if model.complex and ledger.value("optimizer.implementation") == "fused":
        raise UsageError(
            "optimizer.implementation: torch's fused optimizers take no weights of complex numbers",
            hint=f"--set optimizer.implementation={rule}",
        )
    if model.sparse:
        sparse_gradients.insist(ledger)


def _momentum(ledger: Ledger, name: OptimizerName, *, sparse: bool) -> None:
    momentum = name in KEEP_MOMENTUM
    ledger.settle(
        "optimizer.momentum",
        0.9 if name == "sgd" and not sparse else None,
        formula="the share of the last step that is kept; 0.9 is usual for SGD"
        + (f"; {sparse_gradients.WHY}" if sparse else "")
        if momentum
        else f"{name} does without",
        would_change="" if momentum else "another optimizer.name",
        source="Sutskever 2013, proceedings.mlr.press/v28/sutskever13",
    )


def scale(ledger: Ledger, parameters: int, samples: int, *, sparse: bool = False) -> float:
    """What goes with the batch: learning rate, betas, eps, weight decay.

    `parameters` of the model, whose gradients may be `sparse`; `samples` to train on.
    Returns how many times larger the plan's batch is than the one its rate was found at.
    """
    name: OptimizerName = ledger.value("optimizer.name")
    batches = _rate(ledger, name, parameters, samples)
    _betas(ledger, name)
    _eps(ledger, name)
    _decay(ledger, name, _scaled(ledger, "optimizer.weight_decay"), sparse=sparse)
    return batches.times


def _kin(found: Found | None, name: OptimizerName, key: str) -> bool:
    """Whether what a recipe found holds for this optimizer: a rate, betas or eps of Adam's for
    all like it; the decay, which means something else in AdamW, and momentum for its own.
    """
    if found is None or found.optimizer in (None, name):
        return True
    alike = key in ("optimizer.lr", "optimizer.betas", "optimizer.eps")
    return alike and {found.optimizer, name} <= ADAM_LIKE


def _scaled(ledger: Ledger, key: str) -> Batches | None:
    """The batches between which this setting is scaled; None: it stays as it is.

    It belongs to the learning rate: where you set that, or the rate is no recipe's, nothing
    says at which batch the others were good.
    """
    name, rate = ledger.value("optimizer.name"), ledger.found.get("optimizer.lr")
    if rate is None or ledger.by_user("optimizer.lr") or not _kin(rate, name, "optimizer.lr"):
        return None
    own = ledger.found.get(key) if key in ledger.given else None
    found = (own or rate).global_batch
    total: int = ledger.value("batch.global_batch")
    return None if found in (None, total) else Batches(total, found)


def _rate(ledger: Ledger, name: OptimizerName, parameters: int, samples: int) -> Batches:
    total: int = ledger.value("batch.global_batch")
    recipe = ledger.found.get("optimizer.lr")
    own = recipe is not None and _kin(recipe, name, "optimizer.lr")
    if recipe is not None and own:
        rate, source, reference = recipe.value, recipe.source, recipe.global_batch or total
    else:
        rate = learning.default_rate(name, parameters)
        reference = learning.reference_batch(name, samples)
        source = learning.RATE_SOURCES.get(name, _TORCH)
    scaled = learning.scaled_rate(rate, name, reference, total)
    formula = f"{rate:.4g} at a global batch of {reference}"
    if reference != total:
        at = f"found at a global batch of {reference}"
        if not own and name != "sgd":
            at = f"usual at {reference}, which this plan would choose"
        said, law = _law(name, f"{rate:.4g} ({at})", scaled, Batches(total, reference))
        formula, source = said, source if law in source else f"{source}; {law}"
    elif recipe is not None:
        formula += ", as in this plan"
    if recipe is not None and not own:
        formula += f"; the recipe's {recipe.value:.4g} is for {recipe.optimizer}"
    ledger.drop("optimizer.lr")
    ledger.settle(
        "optimizer.lr",
        scaled,
        formula=formula,
        source=source,
        kind="fixed" if own and reference == total else "rule",
        limited_by="batch.global_batch" if scaled != rate else "",
    )
    return Batches(total, reference)


def _law(name: OptimizerName, found: str, scaled: float, batches: Batches) -> tuple[str, str]:
    """How a rate that was `found` follows the batch, in words with numbers, and the source."""
    law, (total, reference) = learning.law(name), batches
    source = learning.LAW_SOURCES[law]
    if law == "none":
        return f"{scaled:.4g} at any global batch: {learning.UNSCALED[name]}", source
    shape = f"{total} / {reference}" if law == "linear" else f"sqrt({total} / {reference})"
    return f"{found} x {shape} = {scaled:.4g} at {total} ({law} scaling)", source


def _betas(ledger: Ledger, name: OptimizerName) -> None:
    key, adam = "optimizer.betas", name in ADAM_LIKE
    given = ledger.fixed(key)
    betas: tuple[float, float] = tuple(given) if given else learning.BETAS
    batches = _scaled(ledger, key) if adam and not ledger.by_user(key) else None
    if batches is None:
        ledger.settle(
            key,
            learning.BETAS if adam else None,
            formula="how much of the running means of gradient and squared gradient is kept"
            if adam
            else f"{name} does without",
            would_change="--set optimizer.betas=[0.9,0.98]" if adam else "another optimizer.name",
            source=_ADAM,
        )
        return
    scaled = learning.scaled_betas(betas, batches.times)
    formula, held = _betas_said(betas, scaled, batches)
    _settle_scaled(
        ledger, key, scaled, formula,
        source=f"{learning.LAW_SOURCES['square root']}{_limits_source(held)}",
        limited_by=held or "batch.global_batch",
        would_change=f"--set optimizer.betas=[{betas[0]:g},{betas[1]:g}] keeps them",
    )  # fmt: skip


def _limits_source(held: str) -> str:
    return f"; {learning.BETA_SOURCES}" if held else ""


def _betas_said(
    betas: tuple[float, float], scaled: tuple[float, float], batches: Batches
) -> tuple[str, str]:
    """The formula with its numbers, and which limits held one back."""
    parts, held = [], []
    for place, (beta, now) in enumerate(zip(betas, scaled, strict=True)):
        wanted = 1 - batches.times * (1 - beta)
        part = f"1 - {batches.plan} / {batches.found} x (1 - {beta:g}) = {wanted:.6g}"
        if abs(wanted - now) > 1e-9:
            low, high = learning.BETA_RANGE[place]
            part += f", held at {now:g}"
            held.append(f"the range of {low:g} to {high:g}")
        parts.append(part)
    said = f"{betas[0]:g} and {betas[1]:g} at a global batch of {batches.found}: {'; '.join(parts)}"
    why = "so that each sample is remembered for as many samples as there"
    return f"{said}: {why}", " and ".join(held)


def _eps(ledger: Ledger, name: OptimizerName) -> None:
    key, usual = "optimizer.eps", learning.EPS.get(name)
    scales = name in learning.SCALES_EPS and not ledger.by_user(key)
    batches = _scaled(ledger, key) if scales else None
    if usual is None or batches is None:
        ledger.settle(
            key,
            usual,
            formula=f"{name} does without"
            if usual is None
            else "added to the usual size of a gradient before dividing by it",
            would_change="another optimizer.name" if usual is None else "",
            source=_TORCH,
        )
        return
    eps: float = ledger.fixed(key) or usual
    scaled = learning.scaled_eps(eps, name, batches.times)
    formula = (
        f"{eps:.4g} (found at a global batch of {batches.found}) / sqrt({batches.plan} / "
        f"{batches.found}) = {scaled:.4g}: gradients of more samples have less noise"
    )
    _settle_scaled(ledger, key, scaled, formula, source=learning.LAW_SOURCES["square root"])


def _decay(ledger: Ledger, name: OptimizerName, batches: Batches | None, *, sparse: bool) -> None:
    key = "optimizer.weight_decay"
    usual = 0.0 if sparse else learning.DECAYS.get(name, 0.0)
    given: float | None = ledger.fixed(key)
    decay = usual if given is None else given
    if name != "adamw" or batches is None or ledger.by_user(key) or not decay:
        ledger.settle(
            key,
            usual,
            formula="0.01 for AdamW, 1e-4 for SGD, none for the others",
            source=_DECAY_SOURCE,
        )
        return
    scaled = learning.scaled_decay(decay, name, batches.times)
    formula = (
        f"{decay:.4g} (found at a global batch of {batches.found}) x sqrt({batches.plan} / "
        f"{batches.found}) = {scaled:.4g}: lr x weight_decay x steps, what an epoch takes of each "
        "weight, stays as it was"
    )
    _settle_scaled(ledger, key, scaled, formula, source=_TIMESCALE)


def _settle_scaled(
    ledger: Ledger,
    key: str,
    value: Any,
    formula: str,
    *,
    source: str,
    limited_by: str = "batch.global_batch",
    would_change: str = "",
) -> None:
    """A recipe's value, or the usual one, as it is at the plan's batch."""
    given = ledger.given.get(key)
    ledger.drop(key)
    ledger.settle(
        key,
        value,
        formula=formula,
        source=f"{given.source}; {source}" if given is not None else source,
        limited_by=limited_by,
        would_change=would_change,
    )
