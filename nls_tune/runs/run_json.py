"""run.json: what a run is, how far it is, and what it found. Read and written here, and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from nls_tune.errors import InputError
from nls_tune.files import json_text, seal_holds, sealed_json
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import SCHEMA_VERSION, Stage
from nls_tune.spaces.settings import describe_validation_error

#: ``crashed`` is never written: run.json says that the run goes on, and no process holds it.
RunStatus = Literal["running", "finished", "interrupted", "failed", "crashed"]
EndedBy = Literal["trials", "time_budget"]
#: Plain values by name, as JSON has them.
Values = dict[str, Any]


def _in_utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _with_default(setting: Values) -> Values:
    if "default" not in setting:
        raise ValueError("a searched setting must have a default")
    return setting


Time = Annotated[datetime, AfterValidator(_in_utc), PlainSerializer(datetime.isoformat, when_used="json")]


class _Part(BaseModel):
    """A part of run.json. What another version wrote and this one does not know is kept and written again."""

    model_config = ConfigDict(extra="allow")


class RunSlots(_Part):
    """How many trials run at once, and what each gets."""

    count: int = 1
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0


class RunStage(_Part):
    """The stage that a session works on: number of trials by noise level, epochs of a full trial.

    ``epochs_after`` are those of the stages that follow. ``time_budget`` holds the seconds of the whole search;
    None for no limit.
    """

    name: Stage
    trials: dict[str, int]
    epochs: int
    epochs_after: int = 0
    started_at: Time | None = None
    time_budget: float | None = None


class RunSession(_Part):
    """One session: a process that worked on the run, with its ``nls_tune.machine.provenance``.

    ``finished_at`` is None while it works, and for one that was killed; ``stage`` is None before its first trial.
    ``search_seconds`` is the wall time of its part of the search, and ``out_of_memory_with`` the numbers of trials per
    GPU with which memory ran out. ``settings`` are those of the search that are not defaults, and ``folder`` the
    current folder, to which their paths are relative. With ``data_in_memory`` a user's own data were given from Python.
    """

    versions: dict[str, str | None] = {}
    git_commit: str | None = None
    hardware: Values = {}
    command: str | None = None
    settings: Values | None = None
    folder: str | None = None
    data_in_memory: bool = False
    started_at: Time | None = None
    finished_at: Time | None = None
    slots: RunSlots = RunSlots()
    stage: RunStage | None = None
    search_seconds: float = 0.0
    out_of_memory_with: list[int] = []


class RunLevel(_Part):
    """The plan of a noise level: number of trials and start points by arm, and what is known of its noise."""

    noise_level: str
    noise_rate: float | None = None
    noise_cancelling_rate: float | None = None
    num_train: int | None = None
    num_val: int | None = None
    trials: dict[str, int] = {}
    start: dict[str, list[Values]] = {}
    warm_start: list[Values] = []
    estimate: Values | None = None


class RunSpace(_Part):
    """The search space: the searched settings by name, each with its default and its range or values."""

    name: str | None = None
    space: dict[str, Annotated[Values, AfterValidator(_with_default)]] = {}
    budget: Values = {}


class RunAnnotator(_Part):
    """An annotator of a user's own data; errors are those that Dawid and Skene's method estimates.

    Attributes:
        name: The column of the labels.
        num_labels: Labels of training and validation samples.
        error_rate: Estimated share of wrong labels.
        true_error_rate: True share of wrong labels; None where clean labels are unknown.
        agreement: Share of equal labels with each annotator, in their order; None where two share no item. Empty where
            there are more than 20 annotators.
        matrix: Estimated transition matrix, rows: right class; None of more than 20 classes or annotators.
    """

    name: str
    num_labels: int
    error_rate: float
    true_error_rate: float | None = None
    agreement: list[float | None] = []
    matrix: list[list[float]] | None = None


class RunData(_Part):
    """A user's own data: the names of the classes in the order of their numbers, and what else was said of the data.

    With ``val_clean`` the validation labels were taken as clean, with ``test_clean`` the test labels. Data with one
    label per item have no ``annotators``.
    """

    class_names: list[str] = []
    val_clean: bool = False
    test_clean: bool = True
    notes: list[str] = []
    annotators: list[RunAnnotator] = []


class RunIdentity(_Part):
    """What must agree when a run is resumed."""

    settings: Values = {}
    space: RunSpace = RunSpace()
    fingerprints: dict[str, str] = {}


class RunJson(_Part):
    """The content of run.json.

    ``run_id`` is the run's name in every row. ``plan`` and ``verdicts`` (by the fields of ``analysis``'s ``Verdict``)
    have one entry per noise level, in the order of the command; ``data`` tell of a user's own. ``search_trials`` counts
    the rows of the search when the session ended.
    """

    schema_version: int
    run_id: str | None = None
    status: RunStatus
    created_at: Time | None = None
    sessions: list[RunSession] = []
    identity: RunIdentity = RunIdentity()
    plan: list[RunLevel] = []
    data: RunData | None = None
    verdicts: list[Values] = []
    ended_by: EndedBy | None = None
    search_trials: int | None = None

    @classmethod
    def parse(cls, text: str, where: str | Path) -> RunJson:
        """Read a run.json; raise InputError if it is torn, breaks a rule, or has a schema newer than this version.

        One that is not what was written is refused as well; early versions wrote no checksum.
        """
        if seal_holds(text.encode(errors="replace")) is False:
            raise InputError(
                f'{where} is not what was written (its checksum differs); restore it, or remove its entry "seal" to '
                "take it as it is"
            )
        try:
            # The version first: a newer schema may break every other rule.
            version = _Version.model_validate_json(text).schema_version
            if version > SCHEMA_VERSION:
                raise InputError(
                    f"{where} has schema version {version}, this nls_tune reads up to {SCHEMA_VERSION}; update nls_tune"
                )
            content = cls.model_validate_json(text)
        except ValidationError as error:
            reason = describe_validation_error(error)
            raise InputError(f"{where} cannot be read ({reason}); restore it or give another run") from None
        (content.model_extra or {}).pop("seal", None)
        return content

    def text(self) -> str:
        """Return the text of the file."""
        return sealed_json(json_text(self.model_dump(mode="json")))

    @property
    def searched(self) -> dict[str, Values]:
        """The searched settings by name, each with its default and range or values; empty where unknown."""
        return self.identity.space.space

    @property
    def defaults(self) -> Values:
        """The default of each searched setting."""
        return {name: setting["default"] for name, setting in self.searched.items()}

    @property
    def metric(self) -> Metric:
        """What the run selects by."""
        return cast("Metric", self.identity.settings.get("metric", "accuracy"))

    @property
    def planned_trials(self) -> dict[str, int]:
        """Search trials by noise level."""
        return {level.noise_level: sum(level.trials.values()) for level in self.plan}

    @property
    def search_seconds(self) -> float:
        """Wall time of the search, all sessions together."""
        return sum(session.search_seconds for session in self.sessions)


class _Version(BaseModel):
    schema_version: Annotated[int, Field(strict=True)]
