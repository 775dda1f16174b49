import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from mms.api.tls import tls_context
from mms.config.resolve import ServerSettings, resolve_server
from mms.config.sources import read_sources
from mms.errors import UsageError

PEM = serialization.Encoding.PEM


@pytest.fixture(scope="module")
def made() -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "models.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("models.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


@pytest.fixture
def files(made, tmp_path: Path) -> Path:
    key, certificate = made
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(PEM))
    for name, form in (
        ("pkcs8", serialization.PrivateFormat.PKCS8),
        ("rsa", serialization.PrivateFormat.TraditionalOpenSSL),
    ):
        text = key.private_bytes(PEM, form, serialization.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(text)
    locked = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    (tmp_path / "locked.pem").write_bytes(locked)
    store = pkcs12.serialize_key_and_certificates(
        b"mms", key, certificate, None, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "keystore.p12").write_bytes(store)
    return tmp_path


def settings(folder: Path, **given: str) -> ServerSettings:
    file = folder / "config.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    return resolve_server(read_sources(config=str(file), flags={}, environ={}))


async def subject_seen_by_a_client(context: ssl.SSLContext, trusted: x509.Certificate) -> str:
    """Serves one TLS connection and returns the name that a client, which trusts `trusted` only, has checked."""
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=context)
    client = ssl.create_default_context(cadata=trusted.public_bytes(PEM).decode())
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="models.example")
        subject = writer.get_extra_info("peercert")["subject"][0][0][1]
        writer.close()
    return subject


@pytest.mark.parametrize("key", ["pkcs8", "rsa"])
async def test_pem_files_are_served(files: Path, made, key: str) -> None:
    context = tls_context(
        settings(files, certificate_file=str(files / "cert.pem"), private_key_file=str(files / f"{key}.pem"))
    )

    assert await subject_seen_by_a_client(context, made[1]) == "models.example"


async def test_a_keystore_is_served(files: Path, made) -> None:
    context = tls_context(settings(files, keystore=str(files / "keystore.p12"), keystore_pass="secret"))

    assert await subject_seen_by_a_client(context, made[1]) == "models.example"


def test_without_a_certificate_one_is_made_up_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert tls_context(settings(tmp_path)).minimum_version is ssl.TLSVersion.TLSv1_2
    assert "nobody trusts" in caplog.text


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"keystore": "keystore.p12", "keystore_pass": "wrong"}, "keystore.p12"),
        ({"keystore": "nosuch.p12"}, "nosuch.p12"),
        ({"keystore": "cert.pem"}, "cert.pem"),
        ({"certificate_file": "nosuch.pem", "private_key_file": "rsa.pem"}, "nosuch.pem"),
        ({"certificate_file": "cert.pem", "private_key_file": "cert.pem"}, "cert.pem"),
        ({"certificate_file": "cert.pem", "private_key_file": "locked.pem"}, "locked.pem"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files: Path, given: dict[str, str], named: str) -> None:
    places = {name: value if name == "keystore_pass" else str(files / value) for name, value in given.items()}
    with pytest.raises(UsageError, match=named):
        tls_context(settings(files, **places))
