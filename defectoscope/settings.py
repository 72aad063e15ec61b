"""Every setting of every process, read once where a process starts and handed down as plain values.

Order of precedence: environment variables (``DEFECTOSCOPE_DATABASE__URL``), then the connection file that
`defectoscope up` writes, then the defaults below. Nothing below the entry points imports this module.
"""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import available_timezones

from platformdirs import user_cache_path, user_state_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from defectoscope.errors.installation import SettingMissing

T = TypeVar("T")

#: Every variable starts so; nested names are joined by two underscores.
ENVIRONMENT_PREFIX = "DEFECTOSCOPE_"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _parts(value: object) -> object:
    """Split what stands in an environment variable; anything else is left to the type."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class DatabaseSettings(_Section):
    """PostgreSQL, the one place that knows what is owed and what came out."""

    url: SecretStr | None = Field(None, description="postgresql+psycopg://user:password@host:port/name")
    pool_size: int = Field(8, ge=1, description="connections each process keeps open")
    statement_timeout_s: int = Field(60, ge=1, description="PostgreSQL ends a statement that runs longer")
    audit_keep_days: int = Field(
        400, ge=30, le=36_500, description="lines of the audit log, and tokens that ended, are kept so long"
    )


class QueueSettings(_Section):
    """The message broker (Redis or Valkey): a hint about work, never the record of it."""

    url: SecretStr | None = Field(None, description="redis://:password@host:port/0")
    key_prefix: str = Field(
        "defectoscope:", description="prefix of every broker key, so that several systems share one"
    )


class StorageSettings(_Section):
    """S3-compatible object storage for images, masks, overlays and models."""

    endpoint_url: str | None = Field(None, description="http(s)://host:port; empty means AWS")
    public_endpoint_url: str | None = Field(None, description="the endpoint as clients reach it, when it differs")
    region: str = Field("us-east-1", description="region name used in signatures")
    access_key: str | None = Field(None, description="access key id")
    secret_key: SecretStr | None = Field(None, description="secret access key")
    bucket: str = Field("defectoscope", description="bucket for everything the product writes; created when absent")
    input_buckets: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="other buckets that jobs may read images from, comma-separated; * allows every one"
    )

    grace_days: int = Field(
        7, ge=1, le=3650, description="stored objects that nothing refers to are deleted when they are this old"
    )
    collect_interval_s: int = Field(
        86_400, ge=0, description="how often such objects are looked for, seconds; 0: never"
    )

    @field_validator("input_buckets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _parts(value)


class InspectionSettings(_Section):
    """How jobs are cut, leased and limited."""

    chunk_size: int = Field(16, ge=1, le=1000, description="images in a chunk, the unit a worker claims")
    lease_s: int = Field(60, ge=2, description="a claimed chunk whose worker is silent this long is owed again")
    reconcile_interval_s: int = Field(15, ge=1, description="how often owed work without a message is sent again")
    resend_after_s: int = Field(60, ge=1, description="a message older than this is taken for lost")
    max_attempts: int = Field(3, ge=1, description="claims of a single image before it is given up")
    backoff_s: float = Field(
        1, ge=0, description="rest of a chunk after its first fault, seconds; it doubles with each further one"
    )
    longest_backoff_s: float = Field(60, ge=0, description="a chunk never rests longer after a fault, seconds")
    max_image_bytes: int = Field(256 * 2**20, ge=1, description="largest file taken as an image, bytes")
    max_image_pixels: int = Field(200_000_000, ge=1, description="largest image decoded, pixels")
    max_archive_members: int = Field(100_000, ge=1, description="most images read from one zip")
    max_manifest_bytes: int = Field(2 * 2**30, ge=1, description="largest manifest read, bytes")
    max_archive_bytes: int = Field(20 * 2**30, ge=1, description="most bytes unpacked from one zip")
    max_archive_ratio: int = Field(
        100, ge=1, description="most bytes unpacked for each byte of a zip that unpacks to more than a gigabyte"
    )
    qa_min_iou: float = Field(0.5, ge=0, le=1, description="pooled defect IoU at which a labelled job passes")


class DecodeSettings(_Section):
    """How the worker and the API decode files from outside."""

    isolation: Literal["off", "process"] = Field(
        "off",
        description="process: in processes of their own, which a hostile file can end without ending anything else",
    )
    processes: int = Field(0, ge=0, description="such processes; 0: one per available core")
    memory_bytes: int = Field(4 * 2**30, ge=2**29, description="most memory one of them takes, libraries too, bytes")
    timeout_s: float = Field(30, gt=0, description="seconds for one file, after which the process is ended")


class WorkerSettings(_Section):
    """The inference process."""

    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="cuda and tensorrt refuse to start without a usable GPU"
    )
    device_id: int = Field(0, ge=0, description="which GPU of those the process may see; one worker for each")
    gpu_memory_bytes: int = Field(0, ge=0, description="most memory ONNX Runtime takes on the GPU, bytes; 0: no limit")
    variant: Literal["auto", "fp32", "fp16", "int8"] = Field(
        "auto", description="which file of a model is served; auto measures which is the fastest here"
    )
    concurrency: int = Field(3, ge=1, description="chunks worked on at once by one process")
    batch_size: int = Field(8, ge=1, description="most images handed to the model at once")
    intra_op_threads: int = Field(0, ge=0, description="threads of ONNX Runtime on the CPU; 0: one per available core")
    memory_bytes: int = Field(512 * 2**20, ge=1, description="most memory that images in work may take, bytes")
    stuck_after_s: float = Field(300, gt=0, description="a model call that lasts this long ends the process")
    champion_interval_s: float = Field(3, gt=0, description="how often a newly promoted model is looked for")
    io_threads: int = Field(4, ge=1, description="threads that fetch images")
    stop_grace_s: float = Field(
        8, ge=0, description="a process told to end is out after so long, its work given back; less than Docker's 10 s"
    )
    retry_pause_s: float = Field(5, ge=0, description="rest of a thread after a server it needs did not answer")
    model_cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("defectoscope") / "models", description="where model files are kept"
    )


class TrainerSettings(_Section):
    """The training process."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="cuda refuses to start without a usable GPU")
    work_dir: Path = Field(
        default_factory=lambda: user_cache_path("defectoscope") / "training", description="scratch of training runs"
    )
    lease_s: int = Field(120, ge=10, description="a run whose trainer is silent this long is owed again")
    max_attempts: int = Field(3, ge=1, description="claims of a run before it is given up as trainer_lost")
    cache_bytes: int = Field(20 * 2**30, ge=0, description="training images kept on local disk, bytes")


class NightSettings(_Section):
    """The nightly retraining."""

    dataset: str | None = Field(None, description="dataset retrained each night; without it there is no night")
    crontab: str = Field("0 2 * * *", description="when: minute, hour, day of month, month, day of week")
    timezone: str = Field("UTC", description="IANA time zone of the crontab, such as Asia/Yekaterinburg")
    min_new_labels: int = Field(20, ge=1, description="fewer new labels than this, and the night is skipped")
    preset: str = Field("default", description="recipe of the nightly run")
    start: Literal["champion", "scratch"] = Field("champion", description="weights that the nightly run starts from")
    recipe: dict[str, Any] = Field(
        default_factory=dict, description='further values of the recipe as JSON, such as {"time_budget_s": 14400}'
    )
    clock_offset_s: int = Field(0, description="seconds added to the clock, to rehearse a night by day")

    @field_validator("timezone")
    @classmethod
    def _exists(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("there is no such time zone")
        return value


class GateSettings(_Section):
    """What a challenger must show to be promoted."""

    margin: float = Field(0.005, ge=0, le=1, description="mean IoU that a challenger may, by chance, be worse")
    slice_margin: float = Field(0.03, ge=0, le=1, description="mean IoU that it may lose on one slice")
    min_groups: int = Field(10, ge=1, description="groups of validation images below which no challenger is judged")
    first_min_iou: float = Field(0.2, ge=0, le=1, description="least mean IoU per image of a first version")
    min_pooled_iou: float = Field(0.1, gt=0, le=1, description="least IoU over all pixels of every version")


class ApiSettings(_Section):
    """The HTTP process, and where clients find it."""

    host: str = Field("127.0.0.1", description="address to listen on; another than loopback needs allow_remote")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    require_token: bool = Field(
        default=True,
        description="every request but those for health needs an API token; without, everybody on this machine may do "
        "everything",
    )
    allow_remote: bool = Field(
        default=False, description="listen to other machines and answer under any host name; only with require_token"
    )
    url: str = Field("http://127.0.0.1:8000", description="base URL that the command line talks to")
    token: SecretStr | None = Field(
        None, description="API token that the command line sends; `defectoscope up` writes one for its own machine"
    )
    max_requests_per_s: float = Field(
        300,
        ge=0,
        description="requests a second that one token may send for long, and half of what one address may; for a short "
        "time ten times as many; counted by each API process for itself; 0: no limit",
    )
    max_refused_tokens_per_min: int = Field(
        20, ge=1, description="requests a minute with a wrong token, or none, after which an address has to wait"
    )
    max_upload_bytes: int = Field(256 * 2**20, ge=1, description="largest request body of an image upload, bytes")
    max_model_bytes: int = Field(2**30, ge=1, description="largest model file taken for import, bytes")


class WebhookSettings(_Section):
    """Events told to addresses that administrators registered. The API sends them, from threads of its own."""

    threads: int = Field(2, ge=0, le=16, description="deliveries that one API process sends at once; 0: it sends none")
    interval_s: float = Field(2, gt=0, description="how often an idle thread looks for what is owed")
    timeout_s: float = Field(10, gt=0, le=60, description="longest attempt, from connecting to the answer")
    max_attempts: int = Field(
        12, ge=1, description="attempts before a delivery is dead; at the defaults about two days"
    )
    retry_first_s: float = Field(10, gt=0, description="pause after the first attempt; each further one is thrice it")
    retry_longest_s: float = Field(12 * 3600, gt=0, description="longest pause between two attempts")
    keep_days: int = Field(30, ge=1, description="records of what was delivered are kept so long")
    dead_keep_days: int = Field(90, ge=1, description="deliveries that were given up can be sent again for so long")
    ports: Annotated[tuple[int, ...], NoDecode] = Field((443, 8443), description="ports that are connected to")
    http_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="hosts that may be sent to without TLS, as they stand in the address"
    )
    private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="hosts that may stand for private and loopback addresses"
    )
    private_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="networks, such as 10.20.0.0/16, that may be sent to under any name"
    )
    ca_file: Path | None = Field(None, description="certificates (PEM) trusted beside those of the system")

    @field_validator("ports", "http_hosts", "private_hosts", "private_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _parts(value)

    @field_validator("http_hosts", "private_hosts")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower().strip("[]") for host in value)

    @field_validator("private_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(network)) for network in value)


class MetricsSettings(_Section):
    """What Prometheus reads: each process serves its own figures at `/metrics` on a port of its own.

    There is no access control; what is served are counts and times, no image and no name of one.
    """

    host: str = Field("127.0.0.1", description="address to listen on; whoever reaches it may read the figures")
    api_port: int = Field(
        19180,
        ge=0,
        le=65526,
        description="port of the API's figures; one of the nine above it when it is in use; 0: none",
    )
    worker_port: int = Field(
        19190, ge=0, le=65526, description="port of a worker's figures; likewise, so that ten find one on a machine"
    )
    trainer_port: int = Field(19200, ge=0, le=65526, description="port of a trainer's figures; likewise")


class LogSettings(_Section):
    """Logs go to standard output, one event a line."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level written")
    format: Literal["console", "json"] = Field("console", description="console for people, json for collectors")


class Settings(BaseSettings):
    """All sections. Frozen: a change needs a restart."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", frozen=True, extra="ignore", env_ignore_empty=True
    )

    database: DatabaseSettings = DatabaseSettings()
    queue: QueueSettings = QueueSettings()
    storage: StorageSettings = StorageSettings()
    inspection: InspectionSettings = InspectionSettings()
    decode: DecodeSettings = DecodeSettings()
    worker: WorkerSettings = WorkerSettings()
    trainer: TrainerSettings = TrainerSettings()
    night: NightSettings = NightSettings()
    gate: GateSettings = GateSettings()
    api: ApiSettings = ApiSettings()
    webhooks: WebhookSettings = WebhookSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before connection file; mounted secret files are the orchestrator's business."""
        del settings_cls, file_secret_settings
        return init_settings, env_settings, dotenv_settings


def connection_file() -> Path:
    """Where `defectoscope up` writes how to reach its servers, readable by its owner alone."""
    override = os.environ.get(f"{ENVIRONMENT_PREFIX}CONNECTION_FILE")
    return Path(override) if override else user_state_path("defectoscope") / "connection.env"


def load_settings() -> Settings:
    """Read the environment and the connection file.

    Raises:
        SettingMissing: a value is malformed; the sentence names the variable, never its value.
    """
    try:
        return Settings(_env_file=connection_file())
    except ValidationError as exc:
        problems = ", ".join(
            f"{ENVIRONMENT_PREFIX}{'__'.join(str(part) for part in error['loc']).upper()}: {error['msg']}"
            for error in exc.errors(include_input=False, include_url=False)
        )
        raise SettingMissing(f"A setting is not usable: {problems}.") from None


def required(value: T | None, name: str) -> T:
    """Return a setting that this process cannot do without, or say which variable is missing.

    Args:
        value: the setting.
        name: its path, such as ``database.url``.

    Raises:
        SettingMissing: it is not set.
    """
    if value is None:
        variable = ENVIRONMENT_PREFIX + name.replace(".", "__").upper()
        raise SettingMissing(f"{variable} is not set; start `defectoscope up` on this machine or set it.")
    return value
