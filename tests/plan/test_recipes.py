"""What the origins ask for (DESIGN section 9), and who wins where settings meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrain import files
from autotrain.errors import DoesNotFitError, UsageError
from autotrain.goal import read_template
from autotrain.recipe import read_recipe
from autotrain.schema import Sizes

from .profiles import GIB, MIB, OPTIMIZERS, device, goal, machine, model, planned, reason, recipe


def template(name):
    return read_template(files.shipped("templates") / name).recipe()


# Clips up to -> batch, learning rate, epochs, patience, save every.
ORIGINS_TABLE = [
    (10, 2, 1.5e-3, 50, 5, 10),
    (50, 4, 1.5e-3, 30, 5, 6),
    (200, 8, 1.0e-3, 20, 20, 4),
    (300, 16, 1.0e-3, 20, 20, 4),
]


def test_the_speech_autoencoder_on_a_cpu_is_sized_as_the_origins_table_says():
    wish = goal(template("speech-autoencoder"))
    for clips in range(2, 301):
        row = next(row for row in ORIGINS_TABLE if clips <= row[0])
        valid = max(clips // 5, 1)
        of = model(weights=22 * MIB, each=30 * MIB, train=clips - valid, valid=valid)
        plan = planned(of=of, wish=wish)
        figures = (
            plan.batch.global_batch, plan.optimizer.lr, plan.train.epochs,
            plan.early_stop.patience, plan.checkpoint.every_epochs,
        )  # fmt: skip
        assert figures == row[1:], clips
        assert plan.checkpoint.every_epochs == plan.train.epochs // 5


@given(st.integers(2, 300))
def test_the_origins_table_counts_held_out_clips_too(clips):
    of = model(weights=22 * MIB, each=30 * MIB, train=clips, valid=0)
    plan = planned(of=of, wish=goal(template("speech-autoencoder")))
    assert plan.batch.global_batch == next(r[1] for r in ORIGINS_TABLE if clips <= r[0])


def three(name, of=None, hardware=None, **user):
    recipes, options, _ = read_recipe(name)
    return planned(hardware, of or model(each=8 * MIB, train=800), goal(*recipes, **user)), options


def test_the_conservative_recipe_gives_the_origins_figures():
    plan, options = three("conservative")
    assert (plan.batch.micro_batch, plan.batch.accum_steps) == (8, 2)
    assert (plan.optimizer.name, plan.optimizer.lr) == ("adamw", 3e-4)
    assert (plan.optimizer.weight_decay, plan.optimizer.clip_norm) == (1e-4, 1.0)
    assert (plan.schedule.name, plan.schedule.min_lr) == ("cosine", 1e-6)
    assert plan.schedule.warmup_steps == 5 * 50
    assert plan.train.epochs == 150
    assert options == {"dropout": 0.3}


def test_the_aggressive_recipe_gives_the_origins_figures():
    plan, options = three("aggressive")
    assert (plan.batch.micro_batch, plan.batch.accum_steps) == (12, 1)
    assert (plan.optimizer.name, plan.optimizer.lr) == ("adam", 5e-4)
    assert plan.optimizer.clip_norm == 0.5
    assert plan.schedule.warmup_steps == 3 * 67
    assert plan.train.epochs == 100
    assert options == {"dropout": 0.25}


def test_the_regularized_recipe_gives_the_origins_figures():
    plan, options = three("regularized")
    assert (plan.batch.micro_batch, plan.batch.accum_steps) == (8, 2)
    assert (plan.optimizer.lr, plan.optimizer.weight_decay) == (2e-4, 1e-3)
    assert plan.schedule.name == "cosine_restarts"
    assert plan.schedule.warmup_steps == 10 * 50
    assert plan.train.epochs == 200
    assert options == {"dropout": 0.4, "label_smoothing": 0.1, "mixup": 0.2}


def test_the_overfit_recipe_has_nothing_that_regularises_and_never_stops_early():
    plan, options = three("overfit", model(train=5, valid=1))
    assert plan.optimizer.weight_decay == 0
    assert plan.early_stop.patience is None
    assert plan.schedule.name == "constant"
    assert plan.train.epochs == 300
    assert options.pop("by_heart") is True
    assert not any(options.values())
    assert not any("overfit" in note for note in plan.notes)


def test_the_overfit_recipe_says_that_it_is_for_a_handful_of_samples():
    plan, _ = three("overfit")
    assert any("meant for up to 20 samples, and there are 800" in note for note in plan.notes)


def test_the_finetune_recipe_takes_small_steps_and_few():
    plan, _ = three("finetune", model(train=20_000))
    assert (plan.optimizer.name, plan.optimizer.lr) == ("adamw", 3e-5)
    assert (plan.train.epochs, plan.early_stop.patience) == (4, 2)
    assert plan.schedule.warmup_steps == round(0.1 * 4 * 625)
    little, _ = three("finetune", model(train=800))
    assert (little.train.epochs, little.early_stop.patience) == (20, 5)
    assert little.schedule.warmup_steps == round(0.1 * 20 * 25)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_finetune_recipe_is_gentle_with_every_optimizer(name):
    usual = planned(wish=goal(optimizer__name=name, batch__global_batch=32))
    gentle, _ = three("finetune", optimizer__name=name)
    assert gentle.optimizer.name == name
    assert gentle.optimizer.lr <= 0.1 * usual.optimizer.lr
    assert "the recipe's" not in reason(gentle, "optimizer.lr").formula


def test_a_recipes_settings_for_an_optimizer_hold_with_that_one_alone():
    own = recipe(optimizer__name="adamw", optimizer__lr=1e-3, train__epochs=3)
    own = own.model_copy(update={"optimizers": {"sgd": {"optimizer.lr": 0.5, "train.epochs": 4}}})
    assert planned(wish=goal(own)).train.epochs == 3
    plan = planned(wish=goal(own, optimizer__name="sgd"))
    assert (plan.optimizer.lr, plan.train.epochs) == (0.5, 4)
    later = recipe(optimizer__name="sgd")
    assert planned(wish=goal(own, later)).optimizer.lr == 0.5


@pytest.mark.parametrize("name", ["conservative", "aggressive", "regularized"])
def test_a_recipe_is_cut_finer_where_it_does_not_fit_and_learns_the_same(name):
    of = model(weights=40 * MIB, each=400 * MIB, train=800)
    wide, _ = three(name, of, machine(device("cuda", 40 * GIB)))
    seen = set()
    for free in range(2, 9):
        try:
            tight, _ = three(name, of, machine(device("cuda", free * GIB)))
        except DoesNotFitError:
            continue
        seen.add(tight.batch.micro_batch)
        assert tight.batch.global_batch == wide.batch.global_batch
        assert tight.optimizer == wide.optimizer
        assert tight.schedule == wide.schedule
        assert tight.predicted.device_peak_bytes.high <= tight.memory.budget_bytes
    assert min(seen) < wide.batch.micro_batch


def test_reasons_name_the_recipes_source():
    plan, _ = three("conservative")
    for key in ("optimizer.lr", "optimizer.name", "train.epochs", "schedule.warmup_steps"):
        assert reason(plan, key).source == "sign-language CTC origin, conservative"
        assert reason(plan, key).kind == "fixed"
    assert reason(plan, "batch.micro_batch").limited_by == "the recipe"
    for key in ("batch.micro_batch", "batch.global_batch"):
        assert reason(plan, key).source == "sign-language CTC origin, conservative"


# --- who wins ------------------------------------------------------------------------------

SIZED = recipe(
    Sizes(up_to=10, settings={"train.epochs": 21}),
    Sizes(up_to=5000, devices=("cuda",), settings={"train.epochs": 22}),
    Sizes(up_to=5000, settings={"train.epochs": 23}),
    Sizes(settings={"train.epochs": 24}),
    train__epochs=20,
    early_stop__patience=11,
    source="the template",
)
NAMED = recipe(train__epochs=30, source="the recipe")


def epochs(wish, train=1000, hardware=None):
    return planned(hardware, model(train=train), wish).train.epochs


def test_the_user_beats_the_recipe_beats_the_template_beats_the_rule():
    assert epochs(goal()) == 94
    assert epochs(goal(SIZED)) == 23
    assert epochs(goal(SIZED, NAMED)) == 30
    assert epochs(goal(SIZED, NAMED, train__epochs=40)) == 40
    plan = planned(wish=goal(SIZED, NAMED))
    assert plan.early_stop.patience == 11
    assert reason(plan, "train.epochs").source == "the recipe"
    assert reason(plan, "early_stop.patience").source == "the template"


def test_sizes_are_those_of_the_data_and_the_device():
    assert epochs(goal(SIZED), train=1) == 23  # with 100 to validate on
    assert epochs(goal(SIZED), hardware=machine(device("cuda"))) == 22
    assert epochs(goal(SIZED), train=10_000) == 24
    assert epochs(goal(SIZED), train=4_900) == 23
    assert epochs(goal(SIZED), train=4_901) == 24


def test_a_users_setting_keeps_its_reason_and_says_what_the_rule_would_do():
    why = reason(planned(wish=goal(train__epochs=7)), "train.epochs")
    assert (why.kind, why.source, why.value) == ("user", "you", 7)
    assert why.formula.startswith("you set 7; autotrain's own rule gives 94: 3000 steps / 32")
    same = reason(planned(wish=goal(train__epochs=94)), "train.epochs")
    assert same.formula.startswith("you set 94, as autotrain's own rule would: 3000 steps")


@pytest.mark.parametrize(
    ("user", "cut"),
    [
        ({"global_batch": 64}, (64, 1)),
        ({"global_batch": 7}, (7, 1)),
        ({"micro_batch": 5}, (5, 7)),
        ({"accum_steps": 4}, (8, 4)),
        ({"micro_batch": 5, "accum_steps": 3}, (5, 3)),
        ({"micro_batch": 5, "global_batch": 20}, (5, 4)),
        ({"accum_steps": 4, "global_batch": 20}, (5, 4)),
    ],
)
def test_what_the_user_fixes_of_the_batch_holds_and_the_rest_follows(user, cut):
    batch = planned(wish=goal(**{f"batch__{key}": value for key, value in user.items()})).batch
    assert (batch.micro_batch, batch.accum_steps) == cut
    assert batch.global_batch == cut[0] * cut[1]
    for key, value in user.items():
        assert getattr(batch, key) == value


@pytest.mark.parametrize(
    ("user", "keys"),
    [
        ({"batch__micro_batch": 5, "batch__global_batch": 16}, "global_batch micro_batch"),
        ({"batch__accum_steps": 3, "batch__global_batch": 16}, "global_batch accum_steps"),
        ({"batch__world_size": 3, "batch__global_batch": 16}, "global_batch world_size"),
        ({"schedule__warmup_steps": 5, "schedule__warmup_epochs": 2}, "warmup_steps warmup_epochs"),
    ],
)
def test_settings_that_contradict_are_refused_by_name(user, keys):
    with pytest.raises(UsageError) as caught:
        planned(wish=goal(**user))
    assert all(key in caught.value.message for key in keys.split())
    assert caught.value.hint


def test_a_global_batch_that_the_user_fixed_is_met_exactly_though_it_cuts_badly():
    of = model(each=100 * MIB, train=10_000)
    batch = planned(machine(device("cuda", 4 * GIB)), of, goal(batch__global_batch=94)).batch
    assert (batch.micro_batch, batch.accum_steps) == (2, 47)


def test_off_turns_an_optional_setting_off():
    off = ("optimizer__clip_norm", "early_stop__patience", "checkpoint__every_epochs")
    plan = planned(wish=goal(SIZED, **dict.fromkeys(off)))
    assert plan.optimizer.clip_norm is None
    assert plan.early_stop.patience is None
    assert plan.checkpoint.every_epochs is None
    assert reason(plan, "early_stop.patience").formula.startswith("you set off; ")


def test_a_device_that_the_user_names_carries_its_memory_and_precision_with_it():
    both = machine(device("cuda", 30 * GIB), device("cpu", 8 * GIB))
    gpu, cpu = planned(both), planned(both, wish=goal(device__kind="cpu"))
    assert (gpu.precision.dtype, cpu.precision.dtype) == ("bf16", "fp32")
    assert gpu.memory.budget_bytes == int(0.9 * 30 * GIB)
    assert cpu.memory.budget_bytes == int(0.8 * 8 * GIB)
    assert (gpu.loader.pin_memory, cpu.loader.pin_memory) == (True, False)


@pytest.mark.parametrize(
    ("native", "dtype"),
    [(("fp32",), "fp32"), (("fp32", "fp16"), "fp16"), (("fp32", "tf32", "bf16", "fp16"), "bf16")],
)
def test_precision_follows_what_a_gpu_computes_natively(native, dtype):
    of = model(dtypes=("fp32", "bf16", "fp16"))
    plan = planned(machine(device("cuda", native_dtypes=native)), of)
    assert plan.precision.dtype == dtype


def test_an_optimizer_without_a_fused_kernel_falls_back():
    assert planned().optimizer.implementation == "fused"
    assert planned(wish=goal(optimizer__name="rprop")).optimizer.implementation == "for-loop"
    on_gpu = planned(machine(device("cuda")), wish=goal(optimizer__name="rprop"))
    assert on_gpu.optimizer.implementation == "foreach"
