#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# publish.sh CHANNEL TEXT: sends a line of text to everyone who is held on a channel. No quotes or backslashes in it, please.
set -eu
curl --fail-with-body -sS http://localhost:5561/publish/ -d @- <<JSON
{"items": [{"channel": "$1", "formats": {
    "http-stream": {"content": "$2\\n"},
    "http-response": {"body": "$2\\n"}}}]}
JSON
