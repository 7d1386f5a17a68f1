#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Makes a Debian package of programs that have been built, and prints its name:
#
#     cargo build --release --workspace && packaging/deb.sh target/release target
#
# It needs dpkg, binutils, Python 3 and cargo; nothing is compiled but the program that writes man pages.
set -euo pipefail
programs=$(cd "${1:?directory of the programs}" && pwd)
output=$(cd "${2:?directory for the package}" && pwd)
cd "$(dirname "$0")/.."

name=pushpin-suite
version=$(cargo pkgid -p pushpin-runner | sed 's/.*[#@]//')
architecture=$(dpkg --print-architecture)
root=$(mktemp -d)
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT

put() { # MODE FILE PLACE
    install -D -m "$1" "$2" "$root/$3"
}

for program in runner top frontend proxy handler outbound publish; do
    put 755 "$programs/pushpin-$program" "usr/bin/pushpin-$program"
    strip "$root/usr/bin/pushpin-$program"
done

manual=$root.manual
trap 'rm -rf "$root" "$manual"' EXIT
cargo run --quiet --locked --example manual -- "$manual"
for page in "$manual"/man/*; do
    put 644 "$page" "usr/share/man/man1/$(basename "$page")"
done
gzip -9 --no-name "$root"/usr/share/man/man1/*
for file in "$manual"/bash/*; do
    put 644 "$file" "usr/share/bash-completion/completions/$(basename "$file" .bash)"
done
for file in "$manual"/zsh/*; do
    put 644 "$file" "usr/share/zsh/vendor-completions/$(basename "$file")"
done
for file in "$manual"/fish/*; do
    put 644 "$file" "usr/share/fish/vendor_completions.d/$(basename "$file")"
done

# What is installed has its directories elsewhere than what is tried out in a checkout. The configuration itself is made
# from this at installation, with a key of its own (debian/postinst).
sed -e 's|^rundir=.*|rundir=/run/pushpin|' -e 's|^logdir=.*|logdir=/var/log/pushpin|' config/pushpin.conf |
    install -D -m 644 /dev/stdin "$root/usr/share/pushpin/pushpin.conf"
put 644 config/routes etc/pushpin/routes
put 644 config/pushpin.service usr/lib/systemd/system/pushpin.service
put 644 packaging/debian/logrotate etc/logrotate.d/pushpin
put 644 packaging/debian/tmpfiles usr/lib/tmpfiles.d/pushpin.conf

documents=usr/share/doc/$name
for file in README.md CHANGELOG.md docs/*.md; do
    put 644 "$file" "$documents/$file"
done
put 644 packaging/debian/copyright "$documents/copyright"
packaging/notices.py | gzip -9 --no-name | install -D -m 644 /dev/stdin "$root/$documents/THIRD-PARTY-NOTICES.gz"

# The packages that have the libraries the programs were linked with, in the versions that are here. By file name, because
# packages may have them in /lib where /lib is a link.
depends=$(for program in "$root"/usr/bin/*; do ldd "$program"; done |
    awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }' | sed 's|.*/|*/|' | sort -u | xargs dpkg-query --search |
    cut -d: -f1 | sort -u | xargs dpkg-query --show --showformat '${Package} (>= ${source:Upstream-Version}), ')

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
    install -m 755 "packaging/debian/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find etc -type f -printf '/%p\n') | sort > "$root/DEBIAN/conffiles"
(cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
cat > "$root/DEBIAN/control" <<END
Package: $name
Version: $version
Architecture: $architecture
Section: net
Priority: optional
Maintainer: The authors of Pushpin in Rust <root@localhost>
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: ${depends}adduser
Recommends: logrotate
Conflicts: pushpin
Replaces: pushpin
Description: reverse proxy that holds connections open and pushes to them
 A plain web backend answers a request with a header that names a channel; the
 proxy keeps the client's connection, and sends it what is published there. For
 HTTP streams, long-polling and WebSockets. Compatible with Pushpin.
END
dpkg-deb --root-owner-group --build "$root" "$output/${name}_${version}_$architecture.deb" >&2
echo "$output/${name}_${version}_$architecture.deb"
