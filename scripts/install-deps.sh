#!/usr/bin/env bash
# Installs what building and testing need on a plain Debian 12.
#   install-deps.sh build        a C compiler, make
#   install-deps.sh demo         what `make demo` makes its image of and fetches pages with
#   install-deps.sh test         the peers that the tests compare with, and the clients
#   install-deps.sh vm           what `make test-vm` makes its machine with
#   install-deps.sh bench        the runtimes that the bench compares with
#   install-deps.sh clients      libraries of other languages that speak to the daemon, in .cache/clients
#   install-deps.sh fuzz-api     what scripts/fuzz-api.sh makes its requests with
# Nothing is done for what is there already.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

packages=()
need() { # need PACKAGE COMMAND
	command -v "$2" >/dev/null 2>&1 || packages+=("$1")
}
need_venv() {
	need python3 python3
	/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
}
# The API's published definition.
definition=/usr/share/gocode/src/github.com/docker/docker/api/swagger.yaml
libraries=()

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
		need zsh zsh
		need fish fish
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
	clients)
		need_venv
		need npm npm
		libraries+=(python node bollard)
		;;
	fuzz-api)
		need_venv
		[ -e "$definition" ] || packages+=(golang-github-docker-docker-dev)
		libraries+=(schemathesis)
		;;
	*)
		echo "install-deps.sh: unknown set '$set' (build, demo, test, vm, bench, clients, fuzz-api)" >&2
		exit 2
		;;
	esac
done

if [ ${#packages[@]} -ne 0 ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "these packages are missing, and installing them needs root: ${packages[*]}" >&2
		exit 1
	fi
	echo "installing ${packages[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# Libraries come from registries that a machine may not reach. What can't be had is no failure here: the reason is kept
# in NAME.missing, and the tests that need it say so.
clients=$here/crates/testkit/tests/clients
cache=$here/.cache/clients
attempt() { # attempt NAME COMMAND...
	local name=$1
	shift
	rm -f "$cache/$name.missing"
	"$@" >"$cache/$name.log" 2>&1 && return
	tail -n 5 "$cache/$name.log" >"$cache/$name.missing"
	echo "client library '$name' can't be installed: $(cat "$cache/$name.missing")" >&2
	return 1
}
pinned() { # pinned NAME LIST COMMAND...: installs what LIST names, again when it has changed
	local name=$1 list=$2
	shift 2
	if cmp -s "$list" "$cache/$name/installed"; then return; fi
	rm -rf "${cache:?}/$name"
	mkdir -p "$cache/$name"
	if attempt "$name" "$@"; then cp "$list" "$cache/$name/installed"; fi
}
from_pypi() { # from_pypi NAME LIST
	/usr/bin/python3 -m venv "$cache/$1" &&
		"$cache/$1/bin/pip" install -q --disable-pip-version-check --retries 2 -r "$2"
}
from_npm() { # from_npm NAME LIST
	cp "$2" "$(dirname "$2")/package.json" "$cache/$1" &&
		npm ci --prefix "$cache/$1" --omit=optional --ignore-scripts --no-audit --no-fund --fetch-retries=2
}
from_crates() { # from_crates NAME
	cargo build -q --locked --manifest-path "$clients/$1/Cargo.toml" --target-dir "$cache/$1"
}
for name in "${libraries[@]}"; do
	mkdir -p "$cache"
	case $name in
	python) list=$clients/requirements.txt && pinned python "$list" from_pypi python "$list" ;;
	node) list=$clients/package-lock.json && pinned node "$list" from_npm node "$list" ;;
	schemathesis)
		list=$here/scripts/fuzz-api/requirements.txt
		pinned schemathesis "$list" from_pypi schemathesis "$list"
		;;
	bollard) attempt bollard from_crates bollard || true ;;
	esac
done
