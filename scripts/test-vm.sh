#!/usr/bin/env bash
# Runs the runtime's and the engine's tests in the virtual machine of make-vm.sh, under software emulation: a kernel of
# Debian with cgroup v2, AppArmor and full capabilities, whatever this machine has.
#   test-vm.sh DIRECTORY-OF-BINARIES [v2|v1|systemd]... [-- NAME...]     NAME: only the programs with these names
# The tests are built here, static, and put on a second disk under the names that they have here.
set -euo pipefail
bin=$(realpath "$1")
shift
modes=() names=()
while [ $# -gt 0 ]; do
	case $1 in
	v2 | v1 | systemd) modes+=("$1") ;;
	--) shift && names=("$@") && break ;;
	*) echo "test-vm.sh: unknown mode '$1' (v2, v1, systemd)" >&2 && exit 2 ;;
	esac
	shift
done
[ ${#modes[@]} -gt 0 ] || modes=(v2 v1 systemd)
cd "$(dirname "$0")/.."
project=$PWD
triple=$(rustc -vV | sed -n 's/^host: //p')
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$(mktemp -d -p .cache/vm)
trap 'rm -rf "$work"' EXIT

# The suites of a mode, each with its bound in seconds: emulation is some 35 times slower than the processor.
suites() {
	case $1 in
	v2) echo "ponton-sys:120 ponton-cgroup:120 ponton-snapshot:180 ponton-runtime:900 rights:300 outlive:600 bad_input:600" ;;
	v1) echo "ponton-cgroup:120 cgroup:300 container:300" ;;
	systemd) echo "ponton-cgroup:120 systemd:300" ;;
	esac
}

declare -A flags=([v2]="" [v1]="ponton.v1 cgroup_no_v1=none" [systemd]="ponton.systemd systemd.unified_cgroup_hierarchy=1")
crates=(ponton-sys ponton-cgroup ponton-snapshot ponton-runtime ponton-testkit)
export "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$triple")_RUSTFLAGS=-C target-feature=+crt-static"
cargo test --locked --target "$triple" --no-run --message-format=json "${crates[@]/#/-p}" |
	jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable)
		| [(.manifest_path | rtrimstr("/Cargo.toml")), .target.name, .executable] | @tsv' >"$work/programs"

stage=$work/stage
mkdir -p "$stage$project/.cache/images" "$stage$target/$triple/debug/deps" "$stage$bin"
cp -r crates scripts Cargo.toml "$stage$project/"
cp .cache/images/busybox.tar "$stage$project/.cache/images/"
install -m 755 -s "$bin/ponton" "$bin/ponton-runtime" -t "$stage$bin/"
# The tests' own programs are those that are shipped.
install -m 755 -s "$bin/ponton" "$bin/ponton-runtime" -t "$stage$target/$triple/debug/"
while IFS=$'\t' read -r _ _ program; do
	install -D -m 755 -s "$program" "$stage$program"
done <"$work/programs"
install -m 755 scripts/vm-init.sh "$stage/init"
printf 'PATHS="%s %s %s"\nexport PONTON_BIN_DIR=%s PONTON_RANDOM_COUNT=40\n' "$project" "$target" "$bin" "$bin" >"$stage/environment"

# programs of a mode: BOUND DIRECTORY PROGRAM ARGUMENTS
list() {
	local suite name bound
	for suite in $(suites "$1"); do
		IFS=: read -r name bound <<<"$suite"
		while IFS=$'\t' read -r directory test program; do
			# A crate's name stands for all its programs.
			[ "$test" = "$name" ] || [ "ponton-$(basename "$directory")" = "$name" ] || continue
			[ ${#names[@]} -eq 0 ] || [[ " ${names[*]} " == *" $test "* ]] || continue
			echo "$bound $directory $program --test-threads=2 --color=never"
		done <"$work/programs"
	done
}

failed=0
for mode in "${modes[@]}"; do
	list "$mode" | awk '!seen[$3]++' >"$stage/programs"
	if [ ! -s "$stage/programs" ]; then
		echo "test-vm.sh: nothing to run in mode $mode" && continue
	fi
	mke2fs -q -F -t ext4 -d "$stage" -O ^has_journal "$work/tests.ext4" "$(($(du -sm "$stage" | cut -f1) + 600))M"
	echo "==== $mode: $(wc -l <"$stage/programs") programs"
	timeout -k 5 3000 qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 2048 -nodefaults -no-reboot \
		-display none -serial stdio -kernel .cache/vm/vmlinuz -initrd .cache/vm/initrd \
		-drive file=.cache/vm/rootfs.ext4,if=virtio,format=raw,snapshot=on \
		-drive file="$work/tests.ext4",if=virtio,format=raw,snapshot=on \
		-append "console=ttyS0 quiet panic=-1 apparmor=1 security=apparmor ${flags[$mode]}" </dev/null |
		sed -u 's|\r||' | tee "$work/log" || echo "the machine was ended after its time"
	grep -q '^ponton-vm: 0 failed$' "$work/log" || failed=1
done
exit $failed
