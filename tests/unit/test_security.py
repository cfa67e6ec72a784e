"""Certificates of a cluster: what they are for, who may read them, and what TLS makes of them."""

from __future__ import annotations

import socket
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509

from orca import config
from orca.cluster.nodes.parts import dask_environment
from orca.cluster.security import make_certificates, security, tls_settings
from orca.errors import ConfigError, InputError, StorageError

NAMES = ["lwacalim01", "127.0.0.1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "tls", NAMES)
    return tmp_path / "tls"


def settings(tmp_path: Path, tls: Path | None) -> config.Config:
    file = tmp_path / "orca-conf.yml"
    file.write_text(f"network: {{tls: {tls or 'null'}}}\n")
    return config.load(file)


def test_the_certificate_is_for_the_machines_and_five_years(folder: Path) -> None:
    certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["lwacalim01"]
    assert [str(address) for address in hosts.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=5 * 365) < left < timedelta(days=5 * 366)
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    certificate.verify_directly_issued_by(authority)


def test_the_key_is_for_its_owner_alone_and_the_authoritys_is_not_kept(folder: Path) -> None:
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert "PRIVATE" not in (folder / "ca.pem").read_text() + (folder / "cert.pem").read_text()


def shake_hands(folder: Path, name: str, *, with_certificate: bool = True) -> str:
    """What a client hears from a server that has the certificate and asks for the client's."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=folder / "ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    if with_certificate:
        client.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as wrapped:
                wrapped.sendall(b"welcome")
        except ssl.SSLError:
            far.close()

    thread = Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=name) as wrapped:
            return wrapped.recv(100).decode()
    finally:
        near.close()
        thread.join(timeout=10)


@pytest.mark.parametrize("name", NAMES)
def test_two_machines_trust_each_other(folder: Path, name: str) -> None:
    assert shake_hands(folder, name) == "welcome"


def test_a_machine_of_another_name_is_not_trusted(folder: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'lwacalim02'"):
        shake_hands(folder, "lwacalim02")


def test_who_has_no_certificate_is_refused(folder: Path) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(folder, NAMES[0], with_certificate=False)


def test_certificates_that_are_there_are_kept_unless_forced(folder: Path) -> None:
    before = (folder / "cert.pem").read_bytes()
    with pytest.raises(InputError, match=r"ca.pem: is there already. All machines need the same: replace .* --force"):
        make_certificates(folder, NAMES)
    assert (folder / "cert.pem").read_bytes() == before
    make_certificates(folder, NAMES, force=True)
    assert (folder / "cert.pem").read_bytes() != before
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize(("names", "told"), [([], "no host given"), (["käse"], "'käse' is no name")])
def test_without_names_of_machines_nothing_is_made(tmp_path: Path, names: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_certificates(tmp_path / "tls", names)
    assert not (tmp_path / "tls").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/tls"):
        make_certificates(tmp_path / "file" / "tls", NAMES)


def test_without_tls_dask_is_given_nothing(tmp_path: Path) -> None:
    off = settings(tmp_path, None)
    assert security(off, "tcp://127.0.0.1:8786") is None
    assert tls_settings(off) == {}


def test_a_scheduler_with_tls_needs_certificates(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scheduler at tls://lwacalim00:8786 talks TLS, and network.tls is null"):
        security(settings(tmp_path, None), "tls://lwacalim00:8786")


def test_with_tls_all_parts_of_dask_have_to_use_it(tmp_path: Path, folder: Path) -> None:
    on = settings(tmp_path, folder)
    assert security(on, "tcp://127.0.0.1:8786") is None, "a flow's own cluster on the loopback"
    used = security(on, "tls://lwacalim00:8786")
    assert used is not None
    assert used.require_encryption
    assert used.get_connection_args("client")["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    environment = dask_environment(on)
    assert environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
    assert environment["DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY"] == str(folder / "key.pem")
    assert "PRIVATE KEY" not in str(environment)


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, folder: Path, name: str) -> None:
    (folder / name).write_text("nonsense")
    with pytest.raises(ConfigError, match=f"{name}: holds no .* in PEM form. Make it with `orca cluster certs`"):
        tls_settings(settings(tmp_path, folder))
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read \(No such file or directory\)"):
        tls_settings(settings(tmp_path, folder))
