#!/usr/bin/env bash
# Makes a small virtual machine of Debian's packages in .cache/vm, for tests on a kernel with cgroup v2, AppArmor and
# full capabilities. Nothing of it is installed on the host.
#   vmlinuz      the kernel of linux-image-cloud-amd64
#   initrd       busybox and the modules of the disk: it mounts the disks and gives over to vm-init.sh
#   rootfs.ext4  debootstrap's minbase with systemd, dbus, AppArmor's parser and the kernel's modules
# What is there is kept, unless this script has changed since; `rm -r .cache/vm` makes it anew.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/.cache/vm
recipe=$(sha256sum <scripts/make-vm.sh)
[ -s "$out/rootfs.ext4" ] && [ "$(cat "$out/recipe" 2>/dev/null)" = "$recipe" ] && exit 0
mkdir -p "$out"
work=$(mktemp -d -p "$out")
trap 'rm -rf "$work"' EXIT

echo "making the virtual machine in .cache/vm (some minutes, once)"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
(cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$kernel" >/dev/null && dpkg-deb -x "$kernel"_*.deb kernel)
version=$(basename "$work"/kernel/lib/modules/*)

# The mirror that this machine's apt uses already.
mirror=$(apt-get indextargets --format "\$(REPO_URI)" "Created-By: Packages" "Release: bookworm" 2>/dev/null | head -n 1)
packages=busybox-static,criu,python3,runc,strace,ca-certificates,iproute2,nftables,procps,kmod,uidmap,apparmor,dbus,systemd
debootstrap --variant=minbase --include=$packages bookworm "$work/rootfs" ${mirror:+"$mirror"} >"$out/debootstrap.log" 2>&1 ||
	{ tail -n 20 "$out/debootstrap.log" >&2; exit 1; }
rm -rf "$work"/rootfs/var/cache/apt/* "$work"/rootfs/var/lib/apt/lists/* "$work"/rootfs/usr/share/{doc,man,locale}/*
mkdir -p "$work/rootfs/vm" "$work/rootfs/lib/modules"
cp -r "$work/kernel/lib/modules/$version" "$work/rootfs/lib/modules/"
printf "127.0.0.1 localhost\n" >"$work/rootfs/etc/hosts"
chroot "$work/rootfs" depmod "$version"
# As unit of systemd, the tests run when the system is up.
cat >"$work/rootfs/etc/systemd/system/ponton-tests.service" <<'UNIT'
[Unit]
After=dbus.service
Requires=dbus.service
[Service]
ExecStart=/vm/init
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Delegate=yes
UNIT

mkdir -p "$work/initrd"/{bin,dev,proc,disk,modules}
cp "$(command -v busybox)" "$work/initrd/bin/busybox"
# In the order in which they can be loaded.
modules=$(chroot "$work/rootfs" modprobe -S "$version" --show-depends -a virtio_pci virtio_blk | awk '$1 == "insmod" && !seen[$2]++ {print $2}')
for name in $modules; do cp "$work/rootfs$name" "$work/initrd/modules/"; done
cat >"$work/initrd/init" <<INIT
#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
for name in $(basename -a $modules | xargs); do busybox insmod /modules/\$name; done
busybox mount -t ext4 /dev/vda /disk
busybox mount -t ext4 /dev/vdb /disk/vm
case " \$(busybox cat /proc/cmdline) " in *" ponton.systemd "*) init=/lib/systemd/systemd ;; *) init=/vm/init ;; esac
busybox umount /proc
exec busybox switch_root /disk \$init --unit=ponton-tests.service
INIT
chmod 755 "$work/initrd/init"
(cd "$work/initrd" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip >"$out/initrd"
cp "$work/kernel/boot/vmlinuz-$version" "$out/vmlinuz"
rm -f "$out/recipe"
mke2fs -q -F -t ext4 -d "$work/rootfs" -O ^has_journal "$out/rootfs.ext4" 3G
# Only when it is whole.
echo "$recipe" >"$out/recipe"
