#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# A backend on port 8000 that has its clients held. socat runs this script again for each connection.
set -eu

if [ "${1:-}" != answer ]; then
    echo "backend on port 8000; clients connect to the suite, on port 7999"
    exec socat TCP-LISTEN:8000,bind=127.0.0.1,reuseaddr,fork EXEC:"$0 answer"
fi

respond() {
    printf 'HTTP/1.1 %s\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n' "$1" "${#2}"
    printf '%s\r\n' "${@:3}" ''
    printf '%s' "$2"
}

read -r _ path _
while IFS= read -r line && [ "$line" != $'\r' ]; do :; done # the headers of the request, up to an empty line

case $path in
    /stream) respond '200 OK' $'[open]\n' 'Grip-Hold: stream' 'Grip-Channel: chat' ;;
    /poll) respond '200 OK' $'[nothing new]\n' 'Grip-Hold: response' 'Grip-Channel: chat' 'Grip-Timeout: 20' ;;
    *) respond '404 Not Found' $'There are /stream and /poll.\n' ;;
esac
