"""What a run is said to suffer from: invented runs of each kind, and what is to be typed then."""

import math
import random
import shlex
from collections import Counter
from itertools import pairwise

import pytest
from held_out import EXPECTED
from invented import KINDS, VERDICTS, Made, converged, overfitting, plateau
from plans import a_plan, a_step, evaluated, reason, started, stopped

from autotrain.events import Healed
from autotrain.goal import parse_settings
from autotrain.planfile import inconsistencies
from autotrain.report.diagnosis import NAMES, Place, command, diagnose
from autotrain.report.diagnosis.valley import valley
from autotrain.report.result import collect
from autotrain.schema import Plan

SEEDS = range(20)


def judged(made, **plan):
    return diagnose(*made.result(**plan))


def told(events, plan=None):
    plan = plan or a_plan()
    return diagnose(collect(events, plan), plan)


@pytest.mark.parametrize("kind", KINDS)
def test_of_twenty_runs_of_a_kind_nineteen_are_known_for_it(kind):
    verdicts = Counter(judged(KINDS[kind](seed)).verdict for seed in SEEDS)
    assert verdicts[VERDICTS.get(kind, kind)] >= 19, verdicts


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_so_are_runs_of_shapes_that_no_threshold_was_chosen_by(make):
    verdicts = Counter(judged(make(seed)).verdict for seed in SEEDS)
    assert sum(verdicts[each] for each in EXPECTED[make]) >= 19, verdicts


def test_overfitting_is_dated_within_a_tenth_of_the_run():
    """Validation turns after 12 of 40 epochs."""
    late = []
    for seed in SEEDS:
        made = Made(
            seed, lambda x: 2 * math.exp(-6 * x), lambda x: 0.5 + abs(x - 0.3), epochs=40, keeps=0.0
        )
        late.append(judged(made).findings[0].since_epoch - 12)
    assert max(map(abs, late)) <= 4


def test_a_command_that_is_advised_is_one_that_the_plan_takes():
    """Of every kind of run, under plans of several kinds: each key and value parses, and fits."""
    plans = (
        {},
        {"schedule": {"name": "constant"}, "optimizer": {"clip_norm": None, "name": "sgd"}},
        {"precision": {"dtype": "fp16"}, "loader": {"workers": 0}, "inputs": cores(2)},
        {"task": {"options": {"dropout": 0.1}}, "inputs": cores(64)},
    )
    seen = Counter()
    for kind, make in KINDS.items():
        for number, changed in enumerate(plans):
            result, plan = make(number).result(**changed)
            for finding in diagnose(result, plan).findings:
                line = command(finding.changes, Place("my runs/plan.toml", "plan.toml"))
                if line is None:
                    continue
                seen[finding.kind] += 1
                words = shlex.split(line)
                assert words[:4] == ["autotrain", "plan", "--refresh", "my runs/plan.toml"]
                pairs = [b for a, b in pairwise(words) if a == "--set"]
                settings, options = parse_settings(pairs)
                assert changed_by(plan, settings, options), (kind, line)
    assert {*NAMES} - {*seen} <= {"too_short", "converged"}


def cores(count):
    return {"hardware": "a", "dataset": "b", "model": "c", "cores": count}


def changed_by(plan, settings, options):
    """Whether these differ from what the plan has, and are values that its keys take."""
    data = plan.model_dump(mode="json", by_alias=True)
    for key, value in settings.items():
        section, name = key.split(".")
        if value is ...:  # let go of: the planner chooses
            continue
        if data[section][name] == value:
            return False
        data[section][name] = value
    if "batch.global_batch" in settings:  # the planner cuts it anew
        data["batch"] |= {"micro_batch": settings["batch.global_batch"], "accum_steps": 1}
    if settings.get("schedule.name") == "cosine":
        data["schedule"] = {"name": "cosine", "warmup_steps": 0}
    made = Plan.model_validate(data)
    return bool(settings or options) and not inconsistencies(made)


def test_loading_on_the_cores_of_the_model_is_no_idleness_that_a_worker_ends():
    """Of a fifth to two fifths of the time the plan knew; of what a person set it did not."""

    def advised(share, count, kind="measured"):
        plan = {"inputs": cores(count), "device": {"threads": 2}, "loader": {"workers": 0}}
        because = {"loader": {"workers": reason(0, kind)}}
        made = converged(3, wait=lambda: share)
        found = judged(made, **plan, because=because).findings
        return next((each.changes for each in found if each.kind == "starved"), None)

    assert advised(0.3, 8) == (("loader.workers", "1"),)
    assert advised(0.3, 2) is None
    assert advised(0.5, 2) == (("loader.workers", "auto"),)
    assert advised(0.3, 2, "user") == (("loader.workers", "auto"),)


def test_a_stage_is_named_in_its_command():
    (finding,) = judged(plateau(1)).findings
    line = command(finding.changes, Place("x/plan.toml", stage="teacher"))
    assert "--set stage.teacher.optimizer.lr=" in line
    assert " -o " not in line


@pytest.mark.parametrize("events", [[], [started()], [started(), a_step(1)], [stopped(0)]])
def test_a_run_that_hardly_began_is_too_short_to_tell(events):
    found = told(events)
    assert found.verdict == "too_short"
    assert found.findings[0].changes == ()


def test_a_single_step_that_was_left_out_is_no_instability():
    """Twice, and it is."""
    result, plan = converged(3).result()
    nan = Healed(
        step=9, epoch=1, fault="the loss became nan at step 9", cure="none", cost_seconds=0
    )
    result.healed.append(nan)
    assert diagnose(result, plan).verdict == "converged"
    result.healed.append(nan)
    assert diagnose(result, plan).verdict == "unstable"


def test_memory_that_ran_out_says_which_batch_the_run_came_to():
    result, plan = converged(3).result()
    amends = {"batch.micro_batch": [8, 2], "batch.accum_steps": [1, 4]}
    fault = Healed(
        step=9, epoch=1, fault="out of memory: tried to allocate 2 GiB", cure="cut finer",
        cost_seconds=1.0, amends=amends,
    )  # fmt: skip
    result.healed.append(fault)
    found = diagnose(result, plan)
    assert [each.kind for each in found.findings] == ["batch_too_large", "converged"]
    assert found.findings[0].changes[0] == ("batch.micro_batch", "2")
    assert "2 GiB" not in found.findings[0].advice


def test_what_a_person_fixed_is_let_go_of_where_it_would_not_fit():
    because = a_plan().because
    fixed = because["batch"]["micro_batch"].model_copy(update={"kind": "user"})
    because = {**because, "batch": {**because["batch"], "micro_batch": fixed}}
    result, plan = KINDS["too_large"](1).result(because=because)
    (finding,) = diagnose(result, plan).findings
    assert ("batch.micro_batch", "auto") in finding.changes
    assert ("batch.accum_steps", "auto") not in finding.changes


def test_jumps_of_single_samples_are_no_instability():
    """A batch of one: what is hard stands out by itself."""
    losses = [
        3.0 if step % 17 == 0 else 2.3 * math.exp(-step / 60) + 0.05 for step in range(1, 401)
    ]

    def events(samples):
        steps = [a_step(n, loss=x, samples=samples) for n, x in enumerate(losses, 1)]
        return [started(epochs=40), *steps, stopped(400)]

    assert told(events(1)).verdict != "unstable"
    assert told(events(8)).verdict == "unstable"


def brief(valid, losses, **figures):
    """A run of a few epochs, validated after each."""
    per = len(losses) // len(valid)
    events = [started(epochs=len(valid), per_epoch=per)]
    for n, loss in enumerate(losses, 1):
        events.append(a_step(n, loss=loss, lr=1e-3 * (1.05 - n / len(losses)), samples=16))
        if n % per == 0:
            events.append(evaluated(n, valid[n // per - 1], best=True))
    return [*events, stopped(len(losses))]


def test_a_few_epochs_that_each_brought_more_are_not_done():
    """A trial of two epochs whose rate went down: its training loss stands still at the end."""
    losses = [max(18 - n, 2.5) + 0.3 * (n % 3) for n in range(46)]
    found = told(brief([5.7, 3.2], losses))
    assert found.verdict == "improving"
    assert "each of 2 evaluations found it better, the last 3.2 after 5.7" in (
        found.findings[0].evidence
    )
    assert ("train.epochs", "75") in found.findings[0].changes
    assert told(brief([2.9, 2.88], losses)).verdict == "converged"


def test_a_plateau_in_training_is_none_while_validation_gets_better():
    losses = [1.5 if n < 8 else 1.14 + 0.03 * (n % 3) for n in range(48)]
    assert told(brief([1.3, 1.1, 0.8], losses)).verdict == "improving"


def test_losses_that_differ_by_their_samples_are_no_instability():
    """Squared errors of 16 samples scatter by a third; the weights are judged by validation."""
    draw = random.Random(0)
    losses = [1.2 * math.exp(draw.gauss(0, 0.5)) for _ in range(60)]
    assert told(brief([1.21, 1.2, 1.19], losses)).verdict != "unstable"
    assert told(brief([1.2, 0.9, 1.3], losses)).verdict == "unstable"


def test_a_run_that_goes_on_is_not_called_underfitted():
    made = KINDS["underfitting"](2, stop_at=0.5, end=None)
    assert judged(made).verdict != "underfitting"
    assert judged(KINDS["underfitting"](2)).verdict == "underfitting"


def test_a_metric_that_still_improves_is_no_overfitting_though_the_loss_rises():
    rising = {"accuracy": lambda n: 0.5 + 0.012 * n, "falling": lambda n: 0.9 - 0.01 * n}
    verdicts = {}
    for name, figure in rising.items():
        events = [started(epochs=40, monitor="accuracy", better="higher")]
        for n in range(1, 41):
            events += [a_step(10 * n, loss=2.0 / n)]
            loss = 0.5 + 0.03 * abs(n - 10)
            events += [evaluated(10 * n, loss, best=True, metrics={"accuracy": figure(n)})]
        verdicts[name] = told([*events, stopped(400)]).verdict
    assert verdicts == {"accuracy": "improving", "falling": "overfitting"}


def test_a_rate_that_came_to_nothing_early_does_not_improve_any_more():
    """Five sentences learned by heart: none is wrong from the tenth of 100 epochs on."""
    events = [started(epochs=100, monitor="wer")]
    for n in range(1, 101):
        wer = max(1 - 0.1 * n, 0.0)
        events += [a_step(10 * n, loss=0.01 + 4.0 / n**2)]
        events += [evaluated(10 * n, 0.01 + 4.0 / n**2, best=n < 11, metrics={"wer": wer})]
    assert told([*events, stopped(1000)]).verdict == "converged"


def test_a_valley_of_plain_noise_is_seldom_seen_in_it():
    """Two thousand curves that only fall, or stand still, with noise about a tenth of the fall."""
    import random

    draw, sure = random.Random(7), 0
    for number in range(2000):
        count = draw.choice((8, 12, 20, 40, 80))
        fall = 10.0 * (number % 2)
        curve = [5 + fall * math.exp(-8 * n / count) + draw.gauss(0, 1) for n in range(count)]
        sure += valley(curve).sure
    assert sure <= 20


def test_no_verdict_depends_on_the_unit_of_the_loss():
    for make in (overfitting, plateau, converged):
        verdicts = {judged(make(5, scale=scale)).verdict for scale in (1e-6, 1.0, 1e6)}
        assert len(verdicts) == 1


@pytest.mark.parametrize("size", [1e100, 1e160, 1e300])
def test_losses_that_no_square_holds_are_no_error(size):
    values = [size * factor for factor in (9, 1, 5, 2, 8, 1, 7, 3, 9, 2, 6, 1)] * 3
    valley(values)
    valley([1.0, 1.1, 1.0, 1.1] * 5 + values)


def test_a_run_whose_figures_no_sum_holds_has_a_report_all_the_same():
    sizes = [1e300, -1e300, 1e308, 1e150, 10.0, -1e308]
    events = [started(epochs=10, per_epoch=40)]
    for n in range(1, 401):
        events.append(a_step(n, loss=sizes[n % 6], grad_norm=abs(sizes[n % 5])))
        if n % 40 == 0:
            events.append(evaluated(n, sizes[n // 40 % 6], best=n == 40))
    result = collect([*events, stopped(400)], a_plan())
    assert diagnose(result, a_plan()).verdict == "unstable"
    assert max(result.points.column("loss")) == 1e100
