"""A plan: every setting, what it will take, and why."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from autotrain.schema.base import (
    PLAN_SCHEMA,
    Kind,
    Prediction,
    Record,
    Whole,
)
from autotrain.schema.goal import TaskSection
from autotrain.schema.settings import (
    Amendment,
    BatchSection,
    CheckpointSection,
    DataSection,
    DeviceSection,
    EarlyStopSection,
    EvaluateSection,
    HealSection,
    LoaderSection,
    MemorySection,
    ModelSection,
    OptimizerSection,
    ParallelSection,
    PrecisionSection,
    RunSection,
    ScheduleSection,
    TrainSection,
)
from autotrain.schema.stage import Stage

# Each is a plan by itself, of which all settings are looked at; each cure of a run is one.
MOST_STAGES, MOST_AMENDMENTS = 32, 256


class Beside(Record):
    """Another rule's answer, shown beside ours, with why we do not use it."""

    name: str
    value: Any
    formula: str
    why_not: str


class Reason(Record):
    """Why a setting has its value. `formula` has its numbers filled in."""

    value: Any = None
    kind: Kind
    formula: str
    source: str
    limited_by: str = ""
    would_change: str = ""
    beside: tuple[Beside, ...] = ()


class InputsSection(Record):
    """What the plan was made from: SHA-256 digests, and what of it a person can compare.

    Any but the digests may be unknown (None, or empty), as in a plan of an older version.
    `asked`: what was said on the command line and stands in no setting, such as a recipe's file.
    """

    hardware: str
    dataset: str
    model: str
    train_samples: Whole | None = None
    valid_samples: Whole | None = None
    data_bytes: Whole | None = None
    parameters: Whole | None = None
    device: str = ""
    device_bytes: Whole | None = None
    ram_bytes: Whole | None = None
    cpu: str = ""
    cores: Whole | None = None
    system: str = ""
    versions: dict[str, str] = {}
    asked: dict[str, Any] = {}

    @field_validator("asked")
    @classmethod
    def _stages_are_texts(cls, asked: dict[str, Any]) -> dict[str, Any]:
        said = asked.get("stages", [])
        if not isinstance(said, list | tuple) or not all(isinstance(each, str) for each in said):
            raise ValueError("stages: should be texts, each as on the command line")
        return asked


class PredictedSection(Record):
    tensor_peak_bytes: Prediction
    reserved_peak_bytes: Prediction
    device_peak_bytes: Prediction
    step_seconds: Prediction
    run_seconds: Prediction
    checkpoint_bytes: Prediction


class Plan(Record):
    """Every setting of a run, what it will take, and for every setting the reason.

    With stages (`[[stage]]` in the file), it is the first one's, and each says what differs there.
    """

    schema_version: Literal[1] = Field(PLAN_SCHEMA, alias="schema")
    made_by: str
    recipe: str
    task: TaskSection
    run: RunSection
    device: DeviceSection
    memory: MemorySection
    batch: BatchSection
    parallel: ParallelSection = ParallelSection()
    model: ModelSection = ModelSection()
    precision: PrecisionSection
    optimizer: OptimizerSection
    schedule: ScheduleSection
    train: TrainSection
    early_stop: EarlyStopSection
    evaluate: EvaluateSection
    checkpoint: CheckpointSection
    loader: LoaderSection
    heal: HealSection = HealSection()
    data: DataSection
    stage: tuple[Stage, ...] = Field((), max_length=MOST_STAGES)
    inputs: InputsSection
    predicted: PredictedSection
    notes: tuple[str, ...] = ()
    because: dict[str, dict[str, Reason]] = {}
    amendments: tuple[Amendment, ...] = Field((), max_length=MOST_AMENDMENTS)

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A plan without stages says nothing of stages."""
        data: dict[str, Any] = handler(self)
        if not self.stage:
            data.pop("stage", None)
        return data

    def plain(self) -> dict[str, Any]:
        """As a file holds it: what is off or says nothing is left out."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for reasons in data["because"].values():
            for key, reason in reasons.items():
                reasons[key] = {
                    name: part
                    for name, part in reason.items()
                    if part not in ("", []) or Reason.model_fields[name].is_required()
                }
        for place, stage in enumerate(data.get("stage", ())):
            if not stage["off"]:
                del stage["off"]
            if place == 0:
                del stage["weights"]
        return data


SETTING_SECTIONS = (
    "task",
    "run",
    "device",
    "memory",
    "batch",
    "parallel",
    "model",
    "precision",
    "optimizer",
    "schedule",
    "train",
    "early_stop",
    "evaluate",
    "checkpoint",
    "loader",
    "heal",
    "data",
)


def setting_types() -> dict[str, Any]:
    """Every settable plan key (`batch.micro_batch`) with its annotation, constraints included."""
    found: dict[str, Any] = {}
    for section in SETTING_SECTIONS:
        record = Plan.model_fields[section].annotation
        assert isinstance(record, type)
        assert issubclass(record, Record)
        for name, field in record.model_fields.items():
            constraints = tuple(field.metadata)
            found[f"{section}.{name}"] = (
                Annotated[field.annotation, *constraints] if constraints else field.annotation
            )
    return found
