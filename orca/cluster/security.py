"""TLS between the parts of a cluster: who has no certificate of the cluster's own authority is not talked to."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orca.config.secret import SecretUri
from orca.disk import make_folder, storage_errors
from orca.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from distributed import Security

    from orca.config import Config

CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
ROLES = ("scheduler", "worker", "client")
YEARS = 5
_CLOCK = timedelta(days=1)
"""Certificates hold from so long before now: the machines' clocks may differ."""


def security(settings: Config, address: str) -> Security | None:
    """What a client of the scheduler at this address has to be given; None for one that talks no TLS.

    Raises
    ------
    ConfigError
        It talks TLS and `network.tls` is off, or a file of that folder is missing or is no certificate.
    """
    if not address.startswith("tls://"):
        return None
    if settings.network.tls is None:
        remedy = "Set network.tls to the folder with the cluster's certificates"
        raise ConfigError(f"the Dask scheduler at {address} talks TLS, and network.tls is null", settings.file, remedy)
    return _security(settings.network.tls)


@lru_cache(maxsize=1)
def _security(folder: Path) -> Security:
    from distributed import Security

    ca, pair = _files(folder)
    return Security(require_encryption=True, tls_ca_file=ca, **{f"tls_{r}_{k}": pair[k] for r in ROLES for k in pair})


def tls_settings(settings: Config) -> dict[str, Any]:
    """The same as Dask's settings: names of files, no secrets. Empty where `network.tls` is off.

    Raises
    ------
    ConfigError
        A file of the folder is missing, or is no certificate.
    """
    if settings.network.tls is None:
        return {}
    ca, pair = _files(settings.network.tls)
    return {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": ca,
        **{f"distributed.comm.tls.{role}.{kind}": pair[kind] for role in ROLES for kind in pair},
    }


def _files(folder: Path) -> tuple[str, dict[str, str]]:
    """The authority, and certificate and key, which are the same for all roles."""
    for name, mark in ((CA, "CERTIFICATE"), (CERTIFICATE, "CERTIFICATE"), (KEY, "PRIVATE KEY")):
        try:
            text = (folder / name).read_text(errors="replace")
        except OSError as error:
            remedy = "Make it with `orca cluster certs`, or set network.tls: null"
            raise ConfigError(f"cannot be read ({error.strerror or error})", folder / name, remedy) from error
        if f"{mark}-----" not in text:
            raise ConfigError(
                f"holds no {mark.lower()} in PEM form", folder / name, "Make it with `orca cluster certs`"
            )
    return str(folder / CA), {"cert": str(folder / CERTIFICATE), "key": str(folder / KEY)}


def secured(uri: SecretUri | Path, tls: Path | None) -> SecretUri | Path:
    """An address of Redis that names the certificates of the cluster, if it is one with TLS and names none itself."""
    if tls is None or isinstance(uri, Path) or uri.scheme != "rediss" or "ssl_ca_certs=" in uri.reveal():
        return uri
    return SecretUri(f"{uri.reveal()}{'&' if '?' in uri.reveal() else '?'}{redis_query(tls)}")


def redis_query(tls: Path) -> str:
    """The certificates of the cluster, as an address of Redis has them behind its question mark."""
    files = {"ssl_ca_certs": tls / CA, "ssl_certfile": tls / CERTIFICATE, "ssl_keyfile": tls / KEY}
    return "&".join(f"{name}={quote(str(path))}" for name, path in files.items())


def make_certificates(folder: Path, names: Sequence[str], *, force: bool = False) -> list[Path]:
    """Write a certificate for all machines of a cluster, signed by an authority of its own.

    The authority's key is not kept, so nobody can sign with it later: another machine needs new certificates.

    Parameters
    ----------
    folder : Path
        Gets ca.pem, cert.pem and key.pem, the last for the owner's eyes only.
    names : sequence of str
        Names and addresses of the machines, which the certificate is for.
    force : bool
        Replace what is there.

    Returns
    -------
    list of Path
        The three files.

    Raises
    ------
    InputError
        There are such files already, or there is no name.
    StorageError
        The folder cannot be written.
    """
    files = [folder / name for name in (CA, CERTIFICATE, KEY)]
    there = [path for path in files if path.exists()]
    if there and not force:
        raise InputError("is there already", there[0], "All machines need the same: replace it with --force")
    if not names:
        raise InputError("no host given", remedy="Name the machines with --host")
    from cryptography.hazmat.primitives import serialization

    authority, authority_key = _authority()
    certificate, key = _certificate(authority, authority_key, names)
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    make_folder(folder)
    with storage_errors(folder):
        for path, content in zip(
            files, (authority.public_bytes(pem), certificate.public_bytes(pem), secret), strict=True
        ):
            part = path.with_name(f".{path.name}.part")
            part.unlink(missing_ok=True)
            part.touch(mode=0o600 if path.name == KEY else 0o644)
            part.write_bytes(content)
            part.replace(path)
    return files


def _authority() -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("ORCA cluster authority")
    usage = _usage(sign_certificates=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _signed(builder.add_extension(usage, critical=True).add_extension(identifier, critical=False), key), key


def _certificate(
    authority: x509.Certificate, authority_key: EllipticCurvePrivateKey, names: Sequence[str]
) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = _builder(_name("ORCA cluster"), authority.subject, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=False), critical=True)
    builder = builder.add_extension(both, critical=False).add_extension(issuer, critical=False)
    hosts = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)])
    return _signed(builder.add_extension(hosts, critical=False), authority_key), key


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    with suppress(ValueError):  # a name
        return x509.IPAddress(ip_address(name.strip("[]")))
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise InputError(f"{name!r} is no name or address of a machine") from error


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _CLOCK)
    return builder.not_valid_after(now + timedelta(days=365.25 * YEARS))


def _signed(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
