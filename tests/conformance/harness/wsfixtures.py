# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fixtures for WebSocket tests; import the names a test module uses (the underscored ones too)."""

from __future__ import annotations

import pytest

from .suite import Suite
from .woh import WohBackend
from .ws import WsOrigin


@pytest.fixture(scope="module")
def _ws_origin():
    with WsOrigin() as origin:
        yield origin


@pytest.fixture(scope="module")
def _ws_suite(_ws_origin):
    suite = Suite(routes=[f"* 127.0.0.1:{_ws_origin.port}"]).start()
    yield suite
    suite.stop()


@pytest.fixture
def ws_origin(_ws_origin):
    """A WebSocket origin that accepts every connection unless told otherwise."""
    _ws_origin.reset()
    yield _ws_origin
    _ws_origin.reset()


@pytest.fixture
def ws_suite(_ws_suite, ws_origin):
    """A suite that passes WebSockets through to `ws_origin`; shared by the module."""
    return _ws_suite


@pytest.fixture
def woh(origin):
    """A WebSocket-over-HTTP backend behind the `suite` fixture."""
    backend = WohBackend(origin)
    yield backend
    backend.release()
