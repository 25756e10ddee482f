"""An Apache Kafka that refuses: TLS by an authority of our own, SCRAM users, ACLs, and a listener with mutual TLS."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from topics.dev_broker import ApacheKafka, free_port

ADMIN = ("admin", "admin-secret")
ALICE = ("alice", "alice-secret")


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, the broker's certificate (for 127.0.0.1 only) and a client's."""

    ca: Path
    broker: Path
    client: Path
    client_key: Path


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """A self-signed authority: NAME.pem and NAME.key."""
    new = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    _run(folder, "req", *new, "-keyout", f"{name}.key", "-out", f"{name}.pem",
         "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    return folder / f"{name}.pem"


def signed(folder: Path, ca: str, name: str, san: str) -> Path:
    """A certificate signed by that authority: NAME.pem and NAME.key."""
    _run(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
    by = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
    _run(folder, "x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.pem")
    return folder / f"{name}.pem"


def certificates(folder: Path) -> Certificates:
    """All that the broker and its clients need, made now."""
    ca = authority(folder, "ca")
    broker = signed(folder, "ca", "broker", "IP:127.0.0.1")
    client = signed(folder, "ca", "client", "DNS:client")
    both = folder / "broker-both.pem"
    both.write_bytes((folder / "broker.key").read_bytes() + broker.read_bytes())
    return Certificates(ca, both, client, folder / "client.key")


class SecureKafka(ApacheKafka):
    """SASL_SSL with SCRAM users admin (who may do everything) and alice (who may do nothing until allowed), and `mtls`."""

    def __init__(self, data_dir: Path, certs: Certificates) -> None:
        client, self.mtls_port, controller = free_port(), free_port(), free_port()
        listeners = [f"SASL_SSL://127.0.0.1:{client}", f"SSL://127.0.0.1:{self.mtls_port}"]
        super().__init__(
            data_dir,
            port=client,
            protocol="SASL_SSL",
            scram=dict([ADMIN, ALICE]),
            properties={
                "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{controller}"]),
                "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(certs.broker),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(certs.ca),
                "listener.name.ssl.ssl.client.auth": "required",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # The controller's listener is plaintext here, so the broker comes to it without a name.
                "super.users": "User:admin;User:ANONYMOUS",
                "allow.everyone.if.no.acl.found": "false",
            },
        )

    @property
    def mtls(self) -> str:
        """host:port of the listener that wants a client certificate."""
        return f"127.0.0.1:{self.mtls_port}"
