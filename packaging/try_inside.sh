#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# What try.sh does in the copy of the system.
set -euo pipefail
cd /
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive

fail() {
    echo "packaging: $*" >&2
    tail -n 50 /var/log/pushpin/* /tmp/*.log >&2 2>/dev/null || true
    exit 1
}

until_true() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "not so in time: $*"
        sleep 0.1
    done
}

# Runs a program as the unit does.
as_pushpin() {
    exec setpriv --reuid=pushpin --regid=pushpin --init-groups --inh-caps=-all --no-new-privs "$@"
}

# A stream that is held gets what is published.
publish_a_message() {
    curl -sN http://127.0.0.1:7999/stream > /tmp/stream.log &
    local client=$!
    until_true 20 grep -q 'stream opened' /tmp/stream.log
    until_true 20 published
    until_true 20 grep -qx hello /tmp/stream.log
    kill $client
    wait $client 2>/dev/null || true
}

published() {
    pushpin-publish --spec http://127.0.0.1:5561 test hello > /tmp/publish.log 2>&1
}

answers() {
    curl -sf -o /dev/null http://127.0.0.1:7999/
}

# Its programs have the same names. What becomes of a configuration of Pushpin's is asked by dpkg, and not what is tried here.
dpkg --purge --force-depends pushpin >/dev/null 2>&1 || true
dpkg -i /tmp/package.deb

[ "$(stat -c '%a %U %G' /etc/pushpin/pushpin.conf)" = '640 root pushpin' ] || fail "the configuration is open to others"
! grep -q '^sig_key=changeme' /etc/pushpin/pushpin.conf || fail "the key is the one of the example"
for program in runner top frontend proxy handler outbound publish; do
    size=$(stat -c %s "/usr/bin/pushpin-$program")
    [ "$size" -lt "${SIZE_LIMIT:-8000000}" ] || fail "pushpin-$program has $size bytes"
    echo "pushpin-$program: $size bytes"
    [ -s "/usr/share/man/man1/pushpin-$program.1.gz" ] || fail "pushpin-$program has no man page"
    bash -c ". /usr/share/bash-completion/completions/pushpin-$program && complete -p pushpin-$program" >/dev/null ||
        fail "bash does not complete pushpin-$program"
done
zcat /usr/share/doc/pushpin-suite/THIRD-PARTY-NOTICES.gz | grep 'libzmq' >/dev/null || fail "the notices lack libzmq"
if command -v systemd-analyze >/dev/null; then
    mistakes=$(systemd-analyze verify /usr/lib/systemd/system/pushpin.service 2>&1 | grep pushpin || true)
    [ -z "$mistakes" ] || fail "the unit: $mistakes"
fi

# As the unit says; there is no systemd in here to do it.
start=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/pushpin.service)
(as_pushpin $start --check) > /tmp/check.log || fail "--check: $(cat /tmp/check.log)"
(as_pushpin $start) > /tmp/runner.log 2>&1 &
runner=$!
until_true 20 answers
publish_a_message
if command -v logrotate >/dev/null; then
    logrotate --debug /etc/logrotate.d/pushpin > /tmp/logrotate.log 2>&1 || fail "logrotate: $(cat /tmp/logrotate.log)"
fi
kill -TERM $runner
wait $runner || fail "the suite ended with status $?"

# As the image for containers starts it, with settings from the environment.
(
    export PUSHPIN_RUNNER_HTTP_PORT=127.0.0.1:7999 PUSHPIN_PROXY_SIG_KEY=other PUSHPIN_ROUTES='* test'
    as_pushpin sh /tmp/entrypoint.sh
) > /tmp/container.log 2>&1 &
runner=$!
until_true 20 answers
publish_a_message
grep -qx sig_key=other /run/pushpin/pushpin.conf || fail "the environment does not count"
kill -TERM $runner
wait $runner || fail "the suite ended with status $?"

dpkg --purge pushpin-suite
for left in /usr/bin/pushpin-runner /etc/pushpin /var/log/pushpin /usr/lib/systemd/system/pushpin.service; do
    [ ! -e "$left" ] || fail "$left is left behind"
done
echo "packaging: installed, published, removed"
