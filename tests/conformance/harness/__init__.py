# SPDX-License-Identifier: AGPL-3.0-or-later
"""Black-box harness: start a GRIP proxy suite, give it an origin, talk to it as clients and publishers do."""
