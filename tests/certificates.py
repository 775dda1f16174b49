"""A certificate of this machine, made on the spot: as PEM files, and as a keystore with its key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

PEM = serialization.Encoding.PEM
PLAIN = serialization.NoEncryption()


def make(folder: Path) -> Path:
    """`certificate.pem`, `key.pem` and `keystore.p12` (password `secret`), for 127.0.0.1; returns the folder."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "models.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN))
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "keystore.p12").write_bytes(pkcs12.serialize_key_and_certificates(b"mms", key, certificate, None, locked))
    return folder
