# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Grip-Sig header: a JWT by which origins recognise the proxy."""

import base64
import hashlib
import hmac
import json
import time

import pytest

gripcontrol = pytest.importorskip("gripcontrol")

from harness.client import Connection  # noqa: E402
from harness.origin import Response  # noqa: E402


def sig_of(suite, origin, target="/", headers=()):
    origin.handler = lambda req: Response(200, [], "ok")
    with Connection(suite.http_port) as c:
        assert c.request("GET", target, headers).status == 200
    values = origin.next_request().header_values("Grip-Sig")
    assert len(values) <= 1, values
    return values[0] if values else None


def b64(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def decode(token, key: bytes):
    """Check the HS256 signature by hand and return (header, claims)."""
    head, claims, sig = token.split(".")
    assert hmac.compare_digest(hmac.new(key, f"{head}.{claims}".encode(), hashlib.sha256).digest(), b64(sig)), "bad signature"
    return json.loads(b64(head)), json.loads(b64(claims))


def test_signature_is_hs256_with_the_configured_key(suite, origin):
    header, _ = decode(sig_of(suite, origin), b"changeme")
    assert header["alg"] == "HS256"


def test_claims_are_issuer_and_expiry_in_an_hour(suite, origin):
    _, claims = decode(sig_of(suite, origin), b"changeme")
    assert claims["iss"] == "pushpin"
    assert abs(claims["exp"] - time.time() - 3600) < 60


def test_official_library_accepts_the_signature(suite, origin):
    token = sig_of(suite, origin)
    assert gripcontrol.validate_sig(token, "changeme") is True
    assert gripcontrol.validate_sig(token, "changeme", "pushpin") is True
    assert gripcontrol.validate_sig(token, "wrong") is False
    assert gripcontrol.validate_sig(token, "changeme", "someone-else") is False


def test_key_and_issuer_options(start_suite, origin):
    suite = start_suite(proxy={"sig_key": "another key", "sig_iss": "me"})
    _, claims = decode(sig_of(suite, origin), b"another key")
    assert claims["iss"] == "me"


def test_base64_key(start_suite, origin):
    key = bytes(range(16))
    suite = start_suite(proxy={"sig_key": "base64:" + base64.b64encode(key).decode()})
    decode(sig_of(suite, origin), key)


def test_route_overrides_key_and_issuer(start_suite, origin):
    suite = start_suite(routes=["* 127.0.0.1:{port}", "*,path_beg=/own,sig_iss=route-iss,sig_key=route-key 127.0.0.1:{port}"])
    _, claims = decode(sig_of(suite, origin, "/own"), b"route-key")
    assert claims["iss"] == "route-iss"
    _, claims = decode(sig_of(suite, origin, "/other"), b"changeme")
    assert claims["iss"] == "pushpin"


def test_route_may_have_a_base64_key(start_suite, origin):
    suite = start_suite(routes=["*,sig_iss=r,sig_key=base64:AAECAw== 127.0.0.1:{port}"])
    decode(sig_of(suite, origin), b"\x00\x01\x02\x03")


def test_signature_of_the_client_is_replaced(suite, origin):
    decode(sig_of(suite, origin, headers=[("Grip-Sig", "forged")]), b"changeme")


def test_empty_issuer_disables_signing(start_suite, origin):
    assert sig_of(start_suite(proxy={"sig_iss": '""'}), origin) is None


def make_token(key: bytes, exp: int):
    def enc(v):
        return base64.urlsafe_b64encode(json.dumps(v).encode()).rstrip(b"=").decode()

    text = enc({"typ": "JWT", "alg": "HS256"}) + "." + enc({"iss": "up", "exp": exp})
    sig = base64.urlsafe_b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    return f"{text}.{sig}"


def test_trusted_upstream_signature_is_passed_on_untouched(start_suite, origin):
    suite = start_suite(proxy={"upstream_key": "shared"})
    token = make_token(b"shared", int(time.time()) + 600)
    assert sig_of(suite, origin, headers=[("Grip-Sig", token)]) == token


def test_response_to_a_trusted_upstream_keeps_grip_headers(start_suite, origin):
    suite = start_suite(proxy={"upstream_key": "shared"})
    origin.on("/s", Response(200, [("Grip-Hold", "stream"), ("Grip-Channel", "c")], "body"))
    with Connection(suite.http_port) as c:
        resp = c.request("GET", "/s", [("Grip-Sig", make_token(b"shared", int(time.time()) + 600))])
    assert (resp.header("Grip-Hold"), resp.header("Grip-Channel"), resp.body) == ("stream", "c", b"body")


@pytest.mark.parametrize("key,age", [(b"wrong", 600), (b"shared", -10)], ids=["wrong-key", "expired"])
def test_invalid_upstream_signature_is_replaced(start_suite, origin, key, age):
    suite = start_suite(proxy={"upstream_key": "shared"})
    token = make_token(key, int(time.time()) + age)
    got = sig_of(suite, origin, headers=[("Grip-Sig", token)])
    assert got != token
    decode(got, b"changeme")
