# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fixtures for tests of one component alone; import those that a test module uses."""

import pytest

from .zhttp import WAYS, start_frontend, start_outbound


@pytest.fixture(scope="module", params=WAYS)
def _front(request):
    component, peer = start_frontend(request.param)
    yield component, peer
    peer.close()
    component.stop()


@pytest.fixture(scope="module", params=WAYS)
def _outbound(request):
    component, peer = start_outbound(request.param)
    yield component, peer
    peer.close()
    component.stop()
