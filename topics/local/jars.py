"""Gathers the jars of Apache Kafka and Kafka Connect with Maven, once per version, into the data directory."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal

from schemas.errors import ConfigError

Bundle = Literal["broker", "connect", "debezium-postgres"]
TITLES: dict[Bundle, str] = {
    "broker": "Apache Kafka (46 MB)",
    "connect": "Kafka Connect (33 MB)",
    "debezium-postgres": "the Debezium connector for PostgreSQL (9 MB)",
}
Say = Callable[[str], None]


def silent(_: str) -> None:
    """A `Say` that says nothing."""


def poms() -> Path:
    """The folder of the poms: in an installed wheel beside this package, in a checkout under deploy/kafka."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "kafka_poms", package.parent / "deploy" / "kafka"):
        if (folder / "broker" / "pom.xml").is_file():
            return folder
    raise ConfigError(f"gathering jars: no poms in {package / 'kafka_poms'}; this installation of headrace is not complete")


def java() -> str | None:
    """The java command: of JAVA_HOME where that is set, else of the path; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and os.access(Path(home) / "bin" / "java", os.X_OK):
        return str(Path(home) / "bin" / "java")
    return shutil.which("java")


def java_version(command: str) -> int | None:
    """The major version that a java command reports, e.g. 17; None when it does not say one."""
    try:
        answer = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - found above
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_java_version(answer.stderr + answer.stdout)


def parse_java_version(text: str) -> int | None:
    """The major version in the output of `java -version`: 17 of "17.0.15", 8 of "1.8.0_402"."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found.group(1)) if found else None


def missing_java_tools(data_dir: Path | None = None, *, bundles: tuple[Bundle, ...] = ("broker",)) -> str | None:
    """What a local Apache Kafka needs and this machine lacks, as a sentence with the remedy; None when nothing is missing.

    Maven is needed only until the jars are in `data_dir`.
    """
    command = java()
    if command is None:
        return "Apache Kafka needs Java 17 or newer, and there is no java here. On Debian: apt-get install default-jre-headless"
    version = java_version(command)
    if version is None or version < 17:
        found = "one that does not tell its version" if version is None else f"version {version}"
        return f"Apache Kafka needs Java 17 or newer; {command} is {found}. Name another one with JAVA_HOME"
    if shutil.which("mvn") is None and not (data_dir and all(_folder(data_dir, b).is_dir() for b in bundles)):
        return "Gathering Apache Kafka's jars needs Maven, and there is no mvn here. On Debian: apt-get install maven"
    return None


def _folder(data_dir: Path, bundle: Bundle) -> Path:
    digest = sha256((poms() / bundle / "pom.xml").read_bytes()).hexdigest()[:12]
    return data_dir / "jars" / f"{bundle}-{digest}"


def gather(data_dir: Path, bundle: Bundle, say: Say = silent) -> Path:
    """The folder with the bundle's jars, gathered now if it is not there yet; `say` hears about a first download.

    A folder appears complete or not at all, and two processes at once gather it once. Raises ConfigError with Maven's own
    words when it fails.
    """
    folder = _folder(data_dir, bundle)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{bundle}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, also when the process dies
        if folder.is_dir():
            return folder
        say(f"Gathering {TITLES[bundle]} with Maven, once ...")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{bundle}.") as scratch:
            _maven(poms() / bundle / "pom.xml", Path(scratch))
            (Path(scratch) / "libs").rename(folder)
    return folder


def _maven(pom: Path, scratch: Path) -> None:
    """Run Maven on a copy of the pom, because an installed one may lie in a folder that can not be written."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigError("gathering jars: there is no mvn here. On Debian: apt-get install maven")
    copy = scratch / "pom.xml"
    shutil.copyfile(pom, copy)
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={scratch / 'libs'}", "-DincludeScope=runtime"]
    answer = subprocess.run(  # noqa: S603 - our own command, no shell
        [mvn, "-q", "-B", "-f", str(copy), *goal], cwd=scratch, capture_output=True, text=True, check=False
    )
    if answer.returncode or not any((scratch / "libs").glob("*.jar")):
        said = [line for line in (answer.stdout + answer.stderr).splitlines() if "ERROR" in line][:6]
        raise ConfigError("gathering jars: Maven failed; it said\n" + "\n".join(said or ["nothing"]))
