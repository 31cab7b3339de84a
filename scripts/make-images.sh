#!/usr/bin/env bash
# Makes root file system tars of Debian's packages, for tests, the demo and benchmarks. No registry is asked.
#   make-images.sh busybox       .cache/images/busybox.tar   (busybox-static and its links)
#   make-images.sh debian-web    .cache/images/debian-web.tar  (debootstrap's minbase with nginx-light)
#   make-images.sh big           .cache/images/big.tar   (75,000 entries, 1 GB, half of it compressible)
# A tar that is there is kept; `rm -r .cache/images` makes them anew.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/.cache/images
mkdir -p "$out"

pack() { # pack DIRECTORY NAME: visible under its name only when it is whole
	tar -C "$1" --numeric-owner --sort=name -cf "$out/$2.tar.part" .
	mv "$out/$2.tar.part" "$out/$2.tar"
}

make_busybox() {
	local root
	root=$(mktemp -d)
	trap 'rm -rf "$root"' RETURN
	mkdir -p "$root"/{bin,etc,tmp,root,proc,sys,dev,var/www}
	chmod 755 "$root"
	chmod 1777 "$root/tmp"
	local binary
	binary=$(command -v busybox)
	cp "$binary" "$root/bin/busybox"
	"$binary" --list | while IFS= read -r applet; do
		[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
	printf 'root:x:0:\ndaemon:x:1:\nusers:x:100:daemon\nnogroup:x:65534:\n' >"$root/etc/group"
	pack "$root" busybox
}

make_debian_web() {
	local root mirror
	# The mirror that this machine's apt uses already.
	mirror=$(apt-get indextargets --format "\$(REPO_URI)" "Created-By: Packages" "Release: bookworm" 2>/dev/null | head -n 1)
	root=$(mktemp -d)
	trap 'rm -rf "$root"' RETURN
	debootstrap --variant=minbase --include=nginx-light bookworm "$root" ${mirror:+"$mirror"} >"$out/debootstrap.log" 2>&1 ||
		{ tail -n 20 "$out/debootstrap.log" >&2; return 1; }
	rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
	pack "$root" debian-web
}

make_big() {
	local root
	root=$(mktemp -d -p "$out")
	trap 'rm -rf "$root"' RETURN
	python3 - "$root" <<'PY'
import os, random, sys
root, random_bytes = sys.argv[1], random.Random(7)
# 3,000 directories of 24 files each, 1 GB in all: sizes as in a distribution, half of the bytes compressible.
words = [b"container", b"snapshot", b"manifest", b"descriptor", b"runtime", b"namespace", b"\n", b" "]
noise = random_bytes.randbytes(1 << 20)
text = b"".join(random_bytes.choice(words) for _ in range(200000))
for d in range(3000):
    path = os.path.join(root, "usr", f"d{d % 50}", f"e{d}")
    os.makedirs(path)
    for f in range(24):
        size = int(random_bytes.paretovariate(0.9) * 900)
        size = min(size, 4 << 20)
        source = noise if f % 2 else text
        start = random_bytes.randrange(len(source) - 1)
        with open(os.path.join(path, f"f{f}"), "wb") as out:
            while size > 0:
                chunk = source[start:start + size]
                out.write(chunk)
                size -= len(chunk)
                start = 0
PY
	mkdir -p "$root/bin"
	cp "$(command -v busybox)" "$root/bin/busybox"
	ln -s busybox "$root/bin/sh"
	ln -s busybox "$root/bin/true"
	pack "$root" big
}

for name in "$@"; do
	case $name in
	busybox | debian-web | big) [ -s "$out/$name.tar" ] || "make_${name//-/_}" ;;
	*)
		echo "make-images.sh: unknown image '$name' (busybox, debian-web, big)" >&2
		exit 2
		;;
	esac
done
