# SPDX-License-Identifier: AGPL-3.0-or-later
"""Marks for what only some suites do. A test without a mark holds for every suite."""

from __future__ import annotations

import pytest

from .suite import SUITE

IS_REFERENCE = SUITE.startswith("pushpin-")


def xfail_on(*names: str, reason: str):
    """Expected to fail on the suites named (and run there, so that a change is seen)."""
    return pytest.mark.xfail(SUITE in names, reason=reason, strict=False)


def skip_on(*names: str, reason: str):
    return pytest.mark.skipif(SUITE in names, reason=reason)


REFERENCES = ("pushpin-1.36", "pushpin-2.0")
