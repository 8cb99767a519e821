"""Tokens of a cluster and of this process; the cluster's answers are played, as Ray 2.60 gives them."""

import os

import pytest

from nls_tune.errors import InputError
from nls_tune.tune import authentication
from nls_tune.tune.authentication import ask_cluster, check_authentication, has_token

PLACE = "10.0.0.1:6379"


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def play(monkeypatch, token: str | None) -> list[dict[str, str]]:
    """Play a cluster that wants this token; one without tokens lets everyone in."""
    asked: list[dict[str, str]] = []

    def ask(address: str, environment: dict[str, str]) -> str:
        assert address == PLACE
        asked.append(environment)
        shown = os.environ.get("RAY_AUTH_TOKEN") if environment["RAY_AUTH_MODE"] == "token" else None
        return "joined" if token in (None, shown) else "refused"

    monkeypatch.setattr(authentication, "ask_cluster", ask)
    return asked


@pytest.mark.parametrize(
    ("cluster", "own", "words"),
    [
        (None, None, None),
        ("a", "a", None),
        (None, "a", "without authentication and this process has a token (RAY_AUTH_TOKEN)"),
        ("a", None, "wants a token and this process has none; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"),
        ("a", "b", "wants another token than this process has (RAY_AUTH_TOKEN)"),
    ],
)
def test_a_mismatch_is_named_with_the_variable(monkeypatch, cluster, own, words):
    play(monkeypatch, cluster)
    if own:
        monkeypatch.setenv("RAY_AUTH_TOKEN", own)
    if words is None:
        check_authentication(PLACE)
        return
    with pytest.raises(InputError) as raised:
        check_authentication(PLACE)
    assert f"the cluster at {PLACE} " in str(raised.value)
    assert words in str(raised.value)


def test_where_a_token_comes_from(monkeypatch, tmp_path):
    assert has_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a")
    assert has_token() == str(tmp_path / ".ray" / "auth_token")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert has_token() is None


def test_auto_is_asked_where_the_environment_names_it_and_else_left_to_ray(monkeypatch):
    asked = play(monkeypatch, None)
    for address in ("auto", "ray://10.0.0.1:10001", "local"):
        check_authentication(address)
    assert asked == []
    monkeypatch.setenv("RAY_ADDRESS", PLACE)
    check_authentication("auto")
    assert asked == [{"RAY_AUTH_MODE": "disabled"}]


def test_a_question_that_cannot_be_asked_decides_nothing(monkeypatch):
    monkeypatch.setattr(authentication.sys, "executable", "/nowhere/python")
    assert ask_cluster(PLACE, {}) == "unknown"
    check_authentication(PLACE)
