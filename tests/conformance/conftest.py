# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fixtures: `origin`, `suite` (default settings, shared by a module) and `start_suite` (own settings)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.origin import Origin  # noqa: E402
from harness.suite import Suite  # noqa: E402


@pytest.fixture(scope="module")
def _origin():
    origin = Origin().start()
    yield origin
    origin.stop()


@pytest.fixture(scope="module")
def _suite(_origin):
    suite = Suite(routes=[f"* 127.0.0.1:{_origin.port},over_http"]).start()
    yield suite
    suite.stop()


@pytest.fixture
def origin(_origin):
    _origin.reset()
    return _origin


@pytest.fixture
def suite(_suite, origin):
    return _suite


@pytest.fixture
def start_suite(origin):
    """start_suite(routes=[...], proxy={...}, handler={...}, runner={...}) -> Suite. {port} in a route is the origin's."""
    started = []

    def start(routes=("* 127.0.0.1:{port},over_http",), **settings) -> Suite:
        suite = Suite([r.replace("{port}", str(origin.port)) for r in routes], settings)
        started.append(suite)
        return suite.start()

    yield start
    for suite in started:
        suite.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for name in ("_suite",):
            suite = item.funcargs.get(name) or item.funcargs.get("suite")
            if suite is not None:
                report.sections.append(("suite logs", suite.logs()))
