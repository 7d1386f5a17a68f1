#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# The examples and the README's first steps, as a reader would run them, with programs that are built already.
# Arguments: the directory of the programs, wsdump of websocket-client. Needs the ports of the examples for itself:
#     unshare -rn tests/examples.sh target/release wsdump
set -euo pipefail
programs=$(realpath "$1")
wsdump=$(realpath "$2")
ip link set lo up 2>/dev/null || true
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'code=$?; [ $code = 0 ] || tail -n 30 "$out"/*; kill $(jobs -p) 2>/dev/null || true; wait; rm -r "$out"; exit $code' EXIT

# within FILE TEXT: waits until the text is in it.
within() {
    for _ in {1..200}; do
        grep -qF -- "$2" "$out/$1" 2>/dev/null && return
        sleep 0.05
    done
    echo "waited in vain for '$2' in what $1 wrote" >&2
    exit 1
}

# run NAME COMMAND: in the background; its process id is in $pid.
run() {
    "${@:2}" <&0 >"$out/$1" 2>&1 &
    pid=$!
}

# end PID: by TERM, because Ctrl-C does not reach what a script runs in the background.
end() {
    kill -TERM "$1"
    wait "$1" || true
}

serves() {
    until curl -s -o "$out/curl" "http://localhost:$1/"; do sleep 0.05; done
}

# A stream and a long-poll at these paths get what the command publishes: hello.
hear_hello() {
    run stream curl -sN "http://localhost:7999/$1"
    stream=$pid
    within stream open
    for _ in {1..100}; do
        run poll curl -s --max-time 60 "http://localhost:7999/$2"
        poll=$pid
        sleep 0.2
        # Too early if the poll is not held yet: then once more.
        "${@:3}" >"$out/publish"
        within stream hello
        for _ in {1..20}; do
            grep -q hello "$out/poll" && break 2
            sleep 0.05
        done
        kill "$poll"
    done
    within poll hello
    end "$stream"
}

run suite "$programs/pushpin-runner" -m --config=examples/config/pushpin.conf
suite=$pid
within suite ' started'

run backend python3 examples/python/backend.py
backend=$pid
serves 8000
hear_hello stream poll curl -s -d hello http://localhost:7999/say
end "$backend"
echo "examples/python/backend.py: passed"

run chat python3 examples/python/chat.py
chat=$pid
serves 8001
mkfifo "$out/keys"
exec 3<>"$out/keys" # a keyboard on which nobody types
rm "$out/keys"
export PYTHONUNBUFFERED=1
run listener "$wsdump" ws://localhost:7999/chat <&3
listener=$pid
within listener Welcome.
(sleep 0.5 && echo hi there && sleep 1) | "$wsdump" ws://localhost:7999/chat >"$out/speaker" 2>&1
within listener 'hi there'
end "$listener"
end "$chat"
echo "examples/python/chat.py: passed"

run backend examples/shell/backend.sh
backend=$pid
serves 8000
hear_hello stream poll examples/shell/publish.sh chat hello
end "$backend"
end "$suite"
echo "examples/shell: passed"

run suite "$programs/pushpin-runner"
suite=$pid
within suite ' started'
hear_hello stream response "$programs/pushpin-publish" test hello
hear_hello stream response curl -sf http://localhost:5561/publish/ -d '{"items":[{"channel":"test","formats":{
    "http-stream":{"content":"hello\n"}, "http-response":{"body":"hello\n"}}}]}'
end "$suite"
echo "README: passed"
