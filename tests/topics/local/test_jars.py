"""Gathering jars: once, whole or not at all, and with plain words about what is missing."""

import multiprocessing
import shutil
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from topics.local import jars

FAKE_MVN = """#!/bin/sh
for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#-DoutputDirectory=}";; esac; done
echo run >> "$COUNT"
sleep 0.3
mkdir -p "$out" && : > "$out/kafka.jar"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole path, with no tool in it but sh's own needs; JAVA_HOME is unset."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sleep", "mkdir"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return folder


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("Unable to locate a Java Runtime", None),
    ],
)
def test_java_version_is_read_from_what_java_prints(text: str, version: int | None) -> None:
    """Old and new version strings are understood; anything else is no version."""
    assert jars.parse_java_version(text) == version


def test_a_machine_without_java_is_told_so(tools: Path) -> None:
    """Without java on the path the sentence names Java 17 and a remedy."""
    said = jars.missing_java_tools()
    assert said is not None
    assert "Java 17" in said
    assert "apt-get" in said


def test_an_old_java_is_told_with_its_version(tools: Path) -> None:
    """Java 8 is refused by its number."""
    _program(tools / "java", "#!/bin/sh\necho 'java version \"1.8.0_402\"' >&2\n")
    said = jars.missing_java_tools()
    assert said is not None
    assert "is version 8" in said


def test_maven_is_needed_only_until_the_jars_are_there(tools: Path, tmp_path: Path) -> None:
    """With Java but no Maven it is Maven that is missing, and nothing once the jars were gathered."""
    _program(tools / "java", "#!/bin/sh\necho 'openjdk version \"17.0.15\"' >&2\n")
    said = jars.missing_java_tools(tmp_path)
    assert said is not None
    assert "Maven" in said
    _program(tools / "mvn", FAKE_MVN)
    jars.gather(tmp_path, "broker")
    (tools / "mvn").unlink()
    assert jars.missing_java_tools(tmp_path) is None


def test_two_processes_at_once_gather_once(tools: Path, tmp_path: Path) -> None:
    """Four processes that need the jars at the same time run Maven once and all get the complete folder."""
    _program(tools / "mvn", FAKE_MVN)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=jars.gather, args=(tmp_path / "data", "broker")) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert (tmp_path / "count").read_text() == "run\n"
    assert [jar.name for jar in jars.gather(tmp_path / "data", "broker").iterdir()] == ["kafka.jar"]


def test_a_download_is_announced_once(tools: Path, tmp_path: Path) -> None:
    """The first gathering says what is fetched and how much; the second says nothing."""
    _program(tools / "mvn", FAKE_MVN)
    said: list[str] = []
    jars.gather(tmp_path, "broker", said.append)
    jars.gather(tmp_path, "broker", said.append)
    assert said == ["Gathering Apache Kafka (46 MB) with Maven, once ..."]


def test_a_maven_that_fails_is_quoted_and_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    """The error carries Maven's own error lines, and the next try starts afresh."""
    _program(tools / "mvn", "#!/bin/sh\necho '[ERROR] Could not resolve dependencies'\nexit 1\n")
    with pytest.raises(ConfigError, match=r"Maven failed(.|\n)*Could not resolve dependencies"):
        jars.gather(tmp_path, "broker")
    assert [path.name for path in (tmp_path / "jars").iterdir()] == ["broker.lock"]
    _program(tools / "mvn", FAKE_MVN)
    assert (jars.gather(tmp_path, "broker") / "kafka.jar").exists()


@pytest.mark.parametrize("bundle", ["broker", "connect", "debezium-postgres"])
def test_a_pom_pins_versions_and_names_no_repository(bundle: str) -> None:
    """Every dependency has an exact version; where the jars come from is the user's Maven settings' to say."""
    text = (jars.poms() / bundle / "pom.xml").read_text(encoding="utf-8")
    assert text.count("<dependency>") == text.count("</version>") - 1
    assert "<repositories>" not in text
    assert "SNAPSHOT" not in text
