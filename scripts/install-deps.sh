#!/usr/bin/env bash
# Installs what building and testing need on a plain Debian 12.
#   install-deps.sh build        a C compiler, make
#   install-deps.sh demo         what `make demo` makes its image of and fetches pages with
#   install-deps.sh test         the peers that the tests compare with, and the clients
#   install-deps.sh vm           what `make test-vm` makes its machine with
#   install-deps.sh bench        the runtimes that the bench compares with
# Nothing is done for what is there already.
set -euo pipefail

packages=()
need() { # need PACKAGE COMMAND
	command -v "$2" >/dev/null 2>&1 || packages+=("$1")
}

for set in "$@"; do
	case $set in
	build)
		need gcc cc
		need make make
		;;
	demo)
		need busybox-static busybox
		need debootstrap debootstrap
		need curl curl
		;;
	test)
		need busybox-static busybox
		need docker.io dockerd
		need podman podman
		need strace strace
		need uidmap newuidmap
		need runc runc
		need docker-compose docker-compose
		need iproute2 ip
		need nftables nft
		need procps ps
		need xz-utils xz
		need zstd zstd
		need btrfs-progs mkfs.btrfs
		need bzip2 bzip2
		need skopeo skopeo
		need openssl openssl
		need umoci umoci
		need docker-registry docker-registry
		need python3 python3
		/usr/bin/python3 -c 'import docker' 2>/dev/null || packages+=(python3-docker)
		;;
	vm)
		need qemu-system-x86 qemu-system-x86_64
		need debootstrap debootstrap
		need e2fsprogs mke2fs
		need jq jq
		need busybox-static busybox
		;;
	bench)
		need runc runc
		need crun crun
		need pkg-config pkg-config
		[ -e /usr/include/seccomp.h ] || packages+=(libseccomp-dev)
		;;
	*)
		echo "install-deps.sh: unknown set '$set' (build, demo, test, vm, bench)" >&2
		exit 2
		;;
	esac
done

[ ${#packages[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "these packages are missing, and installing them needs root: ${packages[*]}" >&2
	exit 1
fi
echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
