"""plan and apply: bring the topics of a cluster to what the registry says. Nothing is ever deleted or made smaller.

Topics that we write (`kind` "out") are ours: they are created, given more partitions and configured. Topics that we read
belong to their producers: one that is missing is created, one that is there is left as it is, and a difference that
matters is said. Repeating an `apply` changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import BrokerError, TopicError
from topics.alter_configs import SET, IncrementalAlterConfigs
from topics.connection import KafkaConfig, probe
from topics.spec import TopicSpec

Action = Literal["create", "add partitions", "configure"]
COMPARED = ("retention.ms", "cleanup.policy", "max.message.bytes")
BROKER_DEFAULT = -1
"""Replication factor: how many copies a topic needs is the cluster's to say."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change to one topic. `partitions` is the number afterwards, `configs` what is set, `was` what it replaces."""

    action: Action
    topic: str
    partitions: int = 0
    configs: Mapping[str, str] = field(default_factory=dict)
    was: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.action == "create":
            settings = ", ".join(f"{k}={v}" for k, v in self.configs.items())
            return f"create {self.topic}: {self.partitions} partitions, {settings}"
        if self.action == "add partitions":
            return f"add partitions to {self.topic}: {self.was['partitions']} -> {self.partitions}"
        changes = ", ".join(f"{k} {self.was.get(k, 'unset')} -> {v}" for k, v in self.configs.items())
        return f"configure {self.topic}: {changes}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` would do, in order; `notes` are differences that it leaves to a person. False when nothing is to be done."""

    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as the cluster has it."""

    partitions: int
    configs: Mapping[str, str]


async def plan(
    specs: Iterable[TopicSpec[Any]], config: KafkaConfig, *, follows: Mapping[str, str] | None = None
) -> Plan:
    """Compare the specs with the cluster; changes nothing.

    `follows` maps the logical name of a topic that we write to that of its source: it needs at least as many partitions
    as the source really has, because an outcome goes to the partition number of its input. Raises ConfigError where the
    cluster can not be reached, BrokerError where it does not answer.
    """
    wanted = list(specs)
    await probe(config)  # for its reasons: the admin client would only say that it can not bootstrap
    async with _admin(config) as admin:
        found = await _found(admin, {spec.topic for spec in wanted})
    by_name = {spec.name: spec for spec in wanted}
    steps: list[Step] = []
    notes: list[str] = []
    for spec in wanted:
        source = by_name.get((follows or {}).get(spec.name, ""))
        partitions = max(spec.partitions, _partitions_of(source, found) if source else 0)
        have = found.get(spec.topic)
        if have is None:
            steps.append(Step("create", spec.topic, partitions, _configs(spec)))
        elif spec.kind == "out":
            steps += _ours(spec, partitions, have)
        else:
            notes += _theirs(spec, have)
    return Plan(tuple(steps), tuple(notes))


async def apply(plan: Plan, config: KafkaConfig, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Carry the plan out; `say` hears of each step when it is done. Returns once every new partition has a leader.

    A topic that someone else has created meanwhile counts as done. Raises TopicError naming each step that failed and why,
    after all others were tried.
    """
    if not plan:
        return
    failed = []
    await probe(config)
    async with _admin(config) as admin:
        for step in plan.steps:
            try:
                await _do(admin, step)
            except IncompatibleBrokerVersion:
                failed.append(f"{step}: this broker can not do that to a topic that exists (the embedded one restarts empty)")
            except KafkaError as error:
                failed.append(f"{step}: {type(error).__name__}: {error}")
            else:
                say(str(step))
        if not failed:
            await _led(admin, {step.topic: step.partitions for step in plan.steps if step.partitions})
    if failed:
        raise TopicError("applying topics: " + "; ".join(failed))


@asynccontextmanager
async def _admin(config: KafkaConfig) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=config.bootstrap, **config.aiokafka_kwargs())
    try:
        await admin.start()
        yield admin
    except (KafkaError, TimeoutError) as error:
        raise BrokerError(f"administering topics at {config.bootstrap}: {type(error).__name__}: {error}") from error
    finally:
        await admin.close()


async def _found(admin: AIOKafkaAdminClient, names: set[str]) -> dict[str, Found]:
    # All topics and then a look: describing a topic by its name can create it, on the embedded broker always.
    listed = {t["topic"]: t for t in await admin.describe_topics() if t["topic"] in names and not t["error_code"]}
    if not listed:
        return {}
    # Without a filter on keys: Tansu hangs up on one.
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(listed)]
    configs: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            if code:
                raise for_code(code)(f"describing {name}: {message}")
            configs[name] = {entry[0]: entry[1] for entry in entries if entry[0] in COMPARED}
    return {name: Found(len(topic["partitions"]), configs.get(name, {})) for name, topic in listed.items()}


def _partitions_of(source: TopicSpec[Any], found: Mapping[str, Found]) -> int:
    have = found.get(source.topic)
    return have.partitions if have else source.partitions


def _configs(spec: TopicSpec[Any]) -> dict[str, str]:
    return {
        "retention.ms": str(spec.retention_ms),
        "cleanup.policy": spec.cleanup,
        "max.message.bytes": str(spec.max_message_bytes),
    }


def _same(name: str, one: str | None, other: str) -> bool:
    if one is not None and name == "cleanup.policy":
        return {part.strip() for part in one.split(",")} == {part.strip() for part in other.split(",")}
    return one == other


def _ours(spec: TopicSpec[Any], partitions: int, have: Found) -> list[Step]:
    steps = []
    if have.partitions < partitions:
        steps.append(Step("add partitions", spec.topic, partitions, was={"partitions": str(have.partitions)}))
    changed = {k: v for k, v in _configs(spec).items() if not _same(k, have.configs.get(k), v)}
    if changed:
        was = {k: have.configs[k] for k in changed if k in have.configs}
        steps.append(Step("configure", spec.topic, configs=changed, was=was))
    return steps


def _theirs(spec: TopicSpec[Any], have: Found) -> list[str]:
    """What a person should know of a topic that we read and therefore leave alone."""
    notes = []
    if have.partitions < spec.partitions:
        notes.append(
            f"{spec.topic} has {have.partitions} partitions, the registry says {spec.partitions}; left alone, "
            "since more partitions would move its keys"
        )
    policy = have.configs.get("cleanup.policy")
    if "compact" in spec.cleanup and policy is not None and "compact" not in policy:
        notes.append(
            f"{spec.topic} has cleanup.policy={policy} and is read as a table: rows older than its retention "
            f"({have.configs.get('retention.ms', 'unknown')} ms) get lost; its producer should set cleanup.policy=compact"
        )
    return notes


async def _do(admin: AIOKafkaAdminClient, step: Step) -> None:
    if step.action == "create":
        # replica_assignments={} and not None: aiokafka takes a factor of -1 only together with it.
        new = NewTopic(step.topic, step.partitions, BROKER_DEFAULT, {}, dict(step.configs))
        answer = await admin.create_topics([new])
        errors = [(code, message) for _, code, message in answer.topic_errors if code != TopicAlreadyExistsError.errno]
    elif step.action == "add partitions":
        # Raises by itself.
        await admin.create_partitions({step.topic: NewPartitions(step.partitions)})
        errors = []
    else:
        entries = [(name, SET, value) for name, value in step.configs.items()]
        request = IncrementalAlterConfigs([(int(ConfigResourceType.TOPIC), step.topic, entries)])
        answer = await admin._send_request(request)  # the public alter_configs would reset all other settings
        errors = [(code, message) for code, message, *_ in answer.resources]
    for code, message in errors:
        if code:
            raise for_code(code)(message)


async def _led(admin: AIOKafkaAdminClient, partitions: Mapping[str, int], timeout: float = 15.0) -> None:
    """Wait until these topics have so many partitions, each with a leader."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        ready = {
            topic["topic"]
            for topic in await admin.describe_topics()
            if len(topic["partitions"]) >= partitions.get(topic["topic"], 1)
            and all(p["leader"] >= 0 and not p["error_code"] for p in topic["partitions"])
        }
        missing = sorted(set(partitions) - ready)
        if not missing:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise TopicError(f"applying topics: no leader after {timeout:.0f} s for {', '.join(missing)}")
        await asyncio.sleep(0.05)
