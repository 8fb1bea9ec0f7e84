"""What every setting of a plan is, in words for someone who has never trained a model."""

MEANINGS: dict[str, str] = {
    "task.template": "The shipped starting point whose model and data reading are used.",
    "task.file": "Your own file that says what the model and the data are.",
    "task.sha256": "A fingerprint of that code: a run stops when it has changed since the plan.",
    "task.data": "Where the data is.",
    "task.options": "Choices that the task's own code offers.",
    "run.name": "The name of the run.",
    "run.directory": "The folder for the run's checkpoints, figures and reports.",
    "run.seed": "The number that all chance starts from: same seed, same run.",
    "run.log_every_steps": "After how many steps the loss and the speed are written down.",
    "device.kind": "What does the arithmetic: the processor (cpu) or a graphics card.",
    "device.index": "Which one, where there are several; counted from 0.",
    "device.threads": "How many threads the processor computes with.",
    "device.kernels": (
        "How many pieces of code, each made for one shape of data, a processor's library keeps: "
        "each takes memory, and one that is not kept is made again when its shape comes back."
    ),
    "device.keep_freed": (
        "Whether memory that a step frees is kept for the next one, which is faster, or goes back "
        "to the system at once."
    ),
    "memory.share": "The part of the memory that training may take.",
    "memory.budget_bytes": "The memory that training may take.",
    "batch.micro_batch": (
        "How many samples the model looks at together. Memory must hold all that the model "
        "computes for each of them until it has learned from them, so this number decides "
        "whether training fits; more at once is usually faster, up to a point."
    ),
    "batch.accum_steps": (
        "How many micro-batches are worked through before the model is changed once. It gives "
        "the effect of a larger batch without its memory, at the price of time."
    ),
    "batch.world_size": "How many processes train the same model together.",
    "parallel.strategy": (
        "Of several processes, whether each keeps the whole model (ddp), or a part of it (shard): "
        "that takes less memory in each, and they exchange more."
    ),
    "parallel.reduce": (
        "Of a divided model, whether gradients are added up after the last micro-batch of a step, "
        "or after each: that takes less memory, and more exchanges."
    ),
    "batch.global_batch": (
        "How many samples the model has seen each time it is changed: micro_batch x accum_steps "
        "x world_size. It is what others call the (effective) batch size."
    ),
    "batch.buckets": (
        "Pairs of a length and a number of samples: up to that length, so many samples the model "
        "looks at together. Short ones take less memory, so more of them fit."
    ),
    "batch.target_items": (
        "How much the model has seen each time it is changed, where samples differ in length: "
        "the sum of their lengths (frames, tokens)."
    ),
    "batch.split": (
        "In how many parts each micro-batch is taken. A run sets it when memory ran out; the "
        "result is the same."
    ),
    "model.memory_format": "In which order the numbers of an image lie in memory.",
    "model.compile": "Whether the model is translated into faster code before training.",
    "model.cuda_graphs": (
        "Whether a graphics card is given all of a step's compiled work at once, recorded, in "
        "place of one piece after another."
    ),
    "model.activation_checkpointing": (
        "Whether parts of the model are computed a second time instead of kept: slower, but it "
        "takes less memory."
    ),
    "precision.dtype": (
        "How exactly numbers are kept. fp32 is the ordinary form; bf16 and fp16 take half the "
        "memory and are faster on hardware that is made for them."
    ),
    "optimizer.name": "The rule by which the model is changed after each batch.",
    "optimizer.lr": (
        "The learning rate: how far each step changes the model. Too large and the loss jumps "
        "about or becomes NaN; too small and training takes for ever."
    ),
    "optimizer.weight_decay": "How strongly large weights are pulled back towards zero.",
    "optimizer.momentum": "How much of the last step's direction is kept.",
    "optimizer.betas": "How slowly the optimizer forgets past gradients and their sizes.",
    "optimizer.eps": (
        "A tiny number added to the usual size of a gradient before dividing by it, so that a "
        "weight which hardly ever changes does not leap."
    ),
    "optimizer.implementation": "How the step is computed; the result is the same.",
    "optimizer.clip_norm": "The longest step allowed: longer gradients are cut to this length.",
    "optimizer.decays": (
        "Which weights are pulled back: all of them, or matrices and kernels alone and not the "
        "biases and the gains of norms."
    ),
    "optimizer.layer_decay": (
        "What is left of the learning rate at each level further from the output, so that a model "
        "which knows something already keeps what its first layers know."
    ),
    "schedule.name": "How the learning rate changes while training goes on.",
    "schedule.warmup_steps": "Over how many steps the learning rate rises from near zero.",
    "schedule.min_lr": "The learning rate never falls below this.",
    "schedule.factor": "What the learning rate is multiplied by each time it is lowered.",
    "schedule.patience": "How many evaluations without progress before it is lowered.",
    "schedule.period_steps": "After how many steps the schedule lowers it or starts again.",
    "train.epochs": "How many times the model sees all of the training data.",
    "train.within_seconds": "The time that the run may take: epochs are chosen to fit it.",
    "train.spend_dollars": "What the run may cost: epochs are chosen to fit it.",
    "train.price_per_hour": "What an hour of the machine costs, in dollars.",
    "train.ema_decay": (
        "Beside the weights a running average of them is kept, which is what is tried on the "
        "validation data and what you use afterwards; it keeps this share of itself at each step."
    ),
    "train.freeze": (
        "Patterns over names of parameters that stay as they are, such as encoder.*; less memory "
        "and time, where those know enough already."
    ),
    "early_stop.patience": "Training ends after this many evaluations without progress.",
    "early_stop.min_delta": "The least improvement that counts as progress.",
    "evaluate.every_epochs": "After how many epochs the model is tried on the validation data.",
    "evaluate.every_steps": "After how many steps the model is tried on the validation data.",
    "checkpoint.interruption_hours": (
        "After how many hours, on average, something stops a run on this machine: a lid that "
        "closes, a crash, a provider that takes a spot machine back. You may say laptop, "
        "workstation, server or spot."
    ),
    "checkpoint.at_stake_minutes": "The most work, in minutes, that an interruption may undo.",
    "checkpoint.every_epochs": "After how many epochs the run is saved, to go on from there.",
    "checkpoint.every_steps": "After how many steps the run is saved, to go on from there.",
    "checkpoint.background": "Whether training goes on while a checkpoint is written.",
    "checkpoint.grace_seconds": "How long this run has to save itself once it is told to end.",
    "checkpoint.mirror": "Where copies of checkpoints go, so that a lost disk costs no work.",
    "checkpoint.keep": "How many of the regular checkpoints are kept; older ones are deleted.",
    "loader.workers": "Processes that read and prepare data beside the training.",
    "loader.prefetch": "Batches that each of them keeps ready.",
    "loader.pin_memory": "Whether batches wait where a graphics card fetches them fastest.",
    "loader.start_method": "How these processes are started.",
    "loader.keep": (
        "Samples stay in memory once they were read (ram), or where the model computes, stacked as "
        "a batch is (device), so that later epochs need not read them again; only where they are "
        "the same each time."
    ),
    "loader.timeout_seconds": (
        "After how long at one sample a process that loads data counts as hung."
    ),
    "heal.spike_score": (
        "How far above the usual a loss must lie for its step to be undone, counted in the usual "
        "scatter of the losses."
    ),
    "heal.rollbacks": "How often the run may go back to a checkpoint when nothing else helps.",
    "heal.bad_samples": "The share of the samples that may be unreadable and left out.",
    "data.valid_share": "The part of the data held back to see how the model does on new data.",
    "predicted.tensor_peak_bytes": "The most memory that numbers in use take at once.",
    "predicted.reserved_peak_bytes": "The most a graphics card's allocator sets aside for them.",
    "predicted.device_peak_bytes": "The most memory the system will see this run take.",
    "predicted.step_seconds": "The time of one step.",
    "predicted.run_seconds": "The time of the whole run, if it is not stopped early.",
    "predicted.checkpoint_bytes": "The size of one checkpoint on disk.",
}
