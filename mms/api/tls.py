"""Makes the TLS context of https addresses from the configured certificate: PEM files, or a PKCS12 keystore."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from mms.config.resolve import ServerSettings
from mms.errors import UsageError

logger = logging.getLogger(__name__)

_PEM = serialization.Encoding.PEM
_SELF_SIGNED_DAYS = 365


def tls_context(settings: ServerSettings) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer. Raises UsageError that names the file which cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.keystore is not None:
        _load_keystore(context, settings.keystore, settings.keystore_pass)
    elif settings.certificate_file is not None:
        _load_pem(context, settings.certificate_file, settings.private_key_file)
    else:
        logger.warning(
            "No certificate is configured: https is served with one made up for this start, which nobody trusts."
        )
        _load_from_memory(context, _self_signed())
    return context


def _load_pem(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    for path in filter(None, (certificate, key)):
        if not path.is_file():
            raise UsageError(f"The TLS file {path} is not there.")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UsageError(f"The TLS certificate {certificate} and its key {key} cannot be used: {error}.") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


def _load_keystore(context: ssl.SSLContext, keystore: Path, password: str) -> None:
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(keystore.read_bytes(), password.encode())
    except (OSError, ValueError) as error:
        raise UsageError(f"The keystore {keystore} cannot be read: {error}.") from error
    if key is None or certificate is None:
        raise UsageError(f"The keystore {keystore} holds no key with its certificate.")
    pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem += b"".join(one.public_bytes(_PEM) for one in (certificate, *others))
    _load_from_memory(context, pem)


def _self_signed() -> bytes:
    """A new key and a certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem + certificate.public_bytes(_PEM)


def _load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """`load_cert_chain` reads files only; one without a name keeps the key off the disk."""
    descriptor = os.memfd_create("mms-tls", os.MFD_CLOEXEC)
    try:
        with contextlib.closing(os.fdopen(os.dup(descriptor), "wb")) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
