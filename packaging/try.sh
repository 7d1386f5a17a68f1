#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Installs a package into a copy of this system that is thrown away, as the README tells, publishes a message there, and takes
# the package away again: packaging/try.sh PACKAGE. Needs root, for overlays, namespaces and dpkg. SIZE_LIMIT is how many bytes a
# program may have; those of a debug build have more than the default.
set -euo pipefail
package=$(realpath "${1:?package}")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$package" "$work/package.deb"
cp "$here/try_inside.sh" "$here/docker/entrypoint.sh" "$work"

# What happens in there is seen by nobody else, and ends with it.
unshare --mount --net --pid --fork --kill-child sh -euc '
    work=$1
    mkdir "$work/top" "$work/system"
    mount -t tmpfs top "$work/top"
    mkdir "$work/top/changes" "$work/top/work"
    mount -t overlay system -o "lowerdir=/,upperdir=$work/top/changes,workdir=$work/top/work" "$work/system"
    mount -t proc proc "$work/system/proc"
    mount --rbind /dev "$work/system/dev"
    mount -t tmpfs run "$work/system/run"
    mount -t tmpfs tmp "$work/system/tmp"
    cp "$work/package.deb" "$work/try_inside.sh" "$work/entrypoint.sh" "$work/system/tmp"
    ip link set lo up
    exec chroot "$work/system" bash /tmp/try_inside.sh
' sh "$work"
