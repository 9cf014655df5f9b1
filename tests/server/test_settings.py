"""Settings: where they come from, and what is refused."""

from __future__ import annotations

import stat
from pathlib import Path

import attrs
import pytest

from orchestrator_core.types import Json
from orchestrator_server.errors import Invalid
from orchestrator_server.settings import JwtKeyFile, JwtSection, Settings, load_settings

KEY = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def test_the_command_line_counts_more_than_the_environment_and_that_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1\nhost = "file"\nwait = "5s"\nallow_addresses = ["10.0.0.1"]\n')
    environment = {"ORCHESTRATOR_PORT": "2", "ORCHESTRATOR_HOST": "environment", "ORCHESTRATOR_BODY_TIMEOUT": "1m"}
    found = load_settings(environment, file=file, options={"port": 3, "host": None})
    assert (found.port, found.host, found.wait, found.body_timeout) == (3, "environment", 5.0, 60.0)
    assert found.allow_addresses == ("10.0.0.1",)
    named = load_settings({"ORCHESTRATOR_SETTINGS": str(file), "ORCHESTRATOR_ALLOW_ADDRESSES": "a, b"})
    assert (named.port, named.allow_addresses) == (1, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ports = 1", "ports: is not known here: did you mean 'port'?"),
        ('port = "x"', "port: must be a whole number"),
        ('isolation = "none"', "isolation: must be one of"),
        ("port = -1", "port: must be 0 or more"),
        ("lease = 0", "lease: must be 1 or more"),
        ("[jwt]\nissuer = 'x'", "jwt.audience: is missing"),
        ("port = ", "server.toml"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(Invalid) as caught:
        load_settings({}, file=file)
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")


def test_where_a_wrong_value_was_said_is_told(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 99999\nlease = "x"\nisolation = "none"\n')

    def told(environment: dict[str, str], **options: Json) -> str:
        with pytest.raises(Invalid) as caught:
            load_settings(environment, file=file, options=options)
        return str(caught.value)

    assert told({}).startswith(f"{file}: lease: ")
    assert f"; {file}: isolation: must be one of" in told({}), "everything that is wrong at once"
    environment = {"ORCHESTRATOR_LEASE": "5s", "ORCHESTRATOR_ISOLATION": "shared"}
    assert told(environment) == f"{file}: port: must be 65535 or less"
    assert told({**environment, "ORCHESTRATOR_PORT": "-2"}) == "ORCHESTRATOR_PORT: must be 0 or more"
    assert told(environment, port=-1) == "settings: port: must be 0 or more"
    high = {**environment, "ORCHESTRATOR_METRICS_PORT": "65536"}
    assert told(high, port=1) == "ORCHESTRATOR_METRICS_PORT: must be 65535 or less"
    assert told({"ORCHESTRATOR_PORT": "abc"}) == "ORCHESTRATOR_PORT: must be a whole number, not 'abc'"


def test_a_key_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("k1:short\n")
    with pytest.raises(Invalid, match="keys: the key 'k1' is not 32 bytes") as caught:
        Settings(secret_key_file=str(file)).key_ring()
    assert str(file) in str(caught.value)
    with pytest.raises(Invalid, match=r"^secret_keys: "):
        Settings(secret_keys="nothing").key_ring()
    section = JwtSection("i", "a", (JwtKeyFile("s", "HS256", str(file)),))
    with pytest.raises(Invalid, match="a shared secret is 32 bytes or more") as caught:
        Settings(jwt=section).jwt_settings()
    assert str(file) in str(caught.value)


def test_a_file_or_a_value_that_cannot_be_read_is_named() -> None:
    with pytest.raises(Invalid, match=r"nowhere\.toml: cannot be read"):
        load_settings({}, file="nowhere.toml")
    with pytest.raises(Invalid, match="ORCHESTRATOR_PORT"):
        load_settings({"ORCHESTRATOR_PORT": "http"})
    with pytest.raises(Invalid, match="ORCHESTRATOR_METRICS_PUBLIC"):
        load_settings({"ORCHESTRATOR_METRICS_PUBLIC": "perhaps"})


def test_an_embedded_database_gets_a_key_that_nobody_else_reads(tmp_path: Path) -> None:
    settings = Settings(database=f"sqlite:///{tmp_path}/data.db")
    with pytest.raises(Invalid):
        settings.key_ring()
    made = settings.key_ring(make=True)
    assert settings.key_ring(make=True) == made, "it stays the same"
    assert stat.S_IMODE((tmp_path / "data.db.key").stat().st_mode) == 0o600


def test_other_databases_need_keys_from_the_operator(tmp_path: Path) -> None:
    other = Settings(database="postgresql+psycopg://user@host/name")
    with pytest.raises(Invalid, match="secret_keys"):
        other.key_ring(make=True)
    assert attrs.evolve(other, secret_keys=KEY).key_ring().current == "k1"
    file = tmp_path / "keys"
    file.write_text(f"# first\n{KEY}\n")
    assert attrs.evolve(other, secret_key_file=str(file)).key_ring().current == "k1"
    assert KEY not in repr(attrs.evolve(other, secret_keys=KEY))


def test_tokens_are_accepted_with_the_keys_of_files(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_text("0123456789abcdef0123456789abcdef\n")
    section = {"issuer": "i", "audience": "a", "keys": [{"id": "s", "algorithm": "HS256", "file": str(shared)}]}
    found = load_settings({}, options={"jwt": section}).jwt_settings()
    assert found is not None
    assert (found.issuer, found.keys[0].algorithm) == ("i", "HS256")
    section["keys"] = [{"id": "s", "algorithm": "none", "file": str(shared)}]
    with pytest.raises(Invalid):
        load_settings({}, options={"jwt": section}).jwt_settings()
    assert Settings().jwt_settings() is None


def test_every_setting_is_told_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "server.md").read_text(encoding="utf-8")
    for field in attrs.fields(Settings):
        assert f"| `{field.name}` |" in page, field.name
        assert field.metadata["description"], field.name
