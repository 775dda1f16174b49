"""Makes the TLS context of https addresses from the configured certificate: PEM files, or a PKCS12 keystore."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path

from mms.config.resolve import ServerSettings
from mms.errors import UsageError


def tls_context(settings: ServerSettings) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer. Raises UsageError that names the file which cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.keystore is not None:
        _load_keystore(context, settings.keystore, settings.keystore_pass)
    elif settings.certificate_file is not None:
        _load_pem(context, settings.certificate_file, settings.private_key_file)
    else:
        raise UsageError("An https address needs certificate_file and private_key_file, or keystore.")
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
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.serialization import pkcs12
    except ImportError as error:
        raise UsageError(
            "A keystore needs the package cryptography; install it, or give certificate_file and private_key_file."
        ) from error
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(keystore.read_bytes(), password.encode())
    except (OSError, ValueError) as error:
        raise UsageError(f"The keystore {keystore} cannot be read: {error}.") from error
    if key is None or certificate is None:
        raise UsageError(f"The keystore {keystore} holds no key with its certificate.")
    encoding = serialization.Encoding.PEM
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem += b"".join(one.public_bytes(encoding) for one in (certificate, *others))
    _load_from_memory(context, pem)


def _load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """`load_cert_chain` reads files only; one without a name keeps the key off the disk."""
    descriptor = os.memfd_create("mms-tls", os.MFD_CLOEXEC)
    try:
        with contextlib.closing(os.fdopen(os.dup(descriptor), "wb")) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
