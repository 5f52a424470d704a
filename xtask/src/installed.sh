#!/bin/sh -eu
# Installs, upgrades and purges the Debian package $1, whose version is $2, with a mount
# namespace of its own: what is written goes to a file system in memory that ends with it.
fail() { echo "the package: $*" >&2; exit 1; }
place=$(mktemp --directory)
trap 'rmdir "$place" || true' EXIT
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
mount -t proc proc "$place/root/proc"
cp "$1" "$place/root/unfreed.deb"
inside() { chroot "$place/root" env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

# Its dependencies are this machine's, so dpkg checks them.
inside dpkg --install /unfreed.deb
[ "$(inside unfreed --version)" = "unfreed $2" ] || fail "it has another version"
inside unfreed serve --check --config /etc/unfreed.toml
state=$(inside systemctl is-enabled unfreed.service || true)
[ "$state" = disabled ] || fail "the unit is $state, not disabled"
inside systemctl enable unfreed.service
[ "$(inside systemctl is-enabled unfreed.service)" = enabled ] || fail "the unit cannot be enabled"

# What the administrator wrote and decided outlives an upgrade.
echo '# ours' >> "$place/root/etc/unfreed.toml"
inside dpkg --install /unfreed.deb
grep --quiet '^# ours$' "$place/root/etc/unfreed.toml" || fail "an upgrade takes the configuration away"
[ "$(inside systemctl is-enabled unfreed.service)" = enabled ] || fail "an upgrade disables the unit"

inside dpkg --purge unfreed
rm "$place/root/unfreed.deb"
left=$(cd "$place/root" && find etc usr var -xdev -name '*unfreed*' -newer "$1")
[ -z "$left" ] || fail "purged, it leaves $left"
umount "$place/root/proc" "$place/root" "$place"
