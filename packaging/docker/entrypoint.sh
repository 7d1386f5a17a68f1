#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Starts the suite in a container. Settings of /etc/pushpin/pushpin.conf are overridden by the environment:
#
#   PUSHPIN_PROXY_SIG_KEY=secret      sig_key in [proxy]; so PUSHPIN_SECTION_NAME for every setting
#   PUSHPIN_ROUTES='* backend:8000'   lines of the routes file
#
# Arguments go to pushpin-runner.
set -eu
run=/run/pushpin
conf=$run/pushpin.conf
# Certificates are beside the configuration.
[ ! -d /etc/pushpin/runner ] || ln -sfn /etc/pushpin/runner "$run/runner"

umask 077
{
    echo "[global]"
    echo "include=/etc/pushpin/pushpin.conf"
    for section in global runner proxy handler; do
        [ "$section" = global ] || echo "[$section]"
        prefix=PUSHPIN_$(echo "$section" | tr a-z A-Z)_
        # Names only, because values may have line ends, which no setting can have.
        for name in $(awk -v prefix="$prefix" 'BEGIN { for (name in ENVIRON) if (index(name, prefix) == 1) print name }'); do
            key=$(echo "${name#"$prefix"}" | tr A-Z a-z)
            printf '%s=%s\n' "$key" "$(printenv "$name" | tr -d '\n')"
        done
        if [ "$section" = proxy ]; then
            if [ -n "${PUSHPIN_ROUTES:-}" ]; then
                printf '%s\n' "$PUSHPIN_ROUTES" > "$run/routes"
                echo "routesfile=$run/routes"
            else
                echo "routesfile=/etc/pushpin/routes"
            fi
        fi
    done
} > "$conf"

# Logs go to where the engine collects them.
exec pushpin-runner --config="$conf" --merge-output "$@"
