#!/usr/bin/env bash
# Runs the runtime's and the engine's tests in the virtual machine of make-vm.sh, under software emulation: a kernel of
# Debian with cgroup v2, AppArmor and full capabilities, whatever this machine has.
#   test-vm.sh DIRECTORY-OF-BINARIES [v2|v1|systemd]... [-- NAME[=PART]...]
#       NAME: only the programs with these names, bad_input or testkit/bad_input; PART: only what has it in its name
# The tests are built here, static, and put on a second disk under the names that they have here. PROCESSORS says how
# many processors the machine has: as many as there are here, and no more than four, unless told.
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
processors=${PROCESSORS:-$(nproc)}
[ "$processors" -le 4 ] || processors=4
work=$(mktemp -d -p .cache/vm)
trap 'rm -rf "$work"' EXIT

# The suites of a mode, each with its bound in seconds, and with what is to be run of it. Only a hang reaches a bound:
# emulation is some 35 times slower than the processor. The modes share no more than what depends on them:
#   v2       everything
#   v1       what reads or writes control groups, and what the commands and the specification say
#   systemd  the control groups that systemd makes, and those that are made beside it
suites() {
	case $1 in
	v2) echo "ponton-sys:300 ponton-cgroup:300 ponton-snapshot:300 ponton-runtime:1800 rights:600 outlive:900 bad_input:1800 checkpoint:900:criu_itself" ;;
	v1) echo "ponton-cgroup:300 cgroup:600 container:600 command:900 conformance:1800 rights:600" ;;
	systemd) echo "ponton-cgroup:300 systemd:600 cgroup:600 command:900 conformance:900:resources" ;;
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

# The programs of a mode: BOUND DIRECTORY PROGRAM ARGUMENTS
list() {
	local suite name bound part wanted
	for suite in $(suites "$1"); do
		IFS=: read -r name bound part <<<"$suite"
		while IFS=$'\t' read -r directory test program; do
			# A crate's name stands for all its programs.
			[ "$test" = "$name" ] || [ "ponton-$(basename "$directory")" = "$name" ] || continue
			for wanted in "${names[@]:-$test=$part}"; do
				[[ "${wanted%%=*}" =~ ^("$(basename "$directory")"/)?"$test"$ ]] || continue
				[[ $wanted = *=* ]] || wanted=$wanted=
				echo "$bound $directory $program --test-threads=$((processors + 1)) --color=never ${wanted#*=}"
			done
		done <"$work/programs"
	done
}

# What each program of a log came to: PROGRAM, passed, failed, seconds.
summary() {
	awk -v mode="$1" '
		$1 == "==" { counts = "ended early" }
		/^test result: / { counts = $4 " passed, " $6 " failed" }
		/^conformance: / { counts = $4 " passed, " $6 " failed, " $8 " skipped" }
		$1 == "--" && $3 == "ended" { printf "%-8s %-28s %6.0f s   %s\n", mode, $2, $(NF - 1), counts }
	' "$2"
}

# What guards against speculation costs an emulated processor much, and so do grace periods that nobody hurries. On a
# machine that is busy the timer comes too late for the kernel's check of it.
emulated="mitigations=off rcupdate.rcu_expedited=1 no_timer_check"
failed=0
for mode in "${modes[@]}"; do
	list "$mode" | awk '!seen[$3, $NF]++' >"$stage/programs"
	if [ ! -s "$stage/programs" ]; then
		echo "test-vm.sh: nothing to run in mode $mode" && continue
	fi
	mke2fs -q -F -t ext4 -d "$stage" -O ^has_journal "$work/tests.ext4" "$(($(du -sm "$stage" | cut -f1) + 600))M"
	echo "==== $mode: $(wc -l <"$stage/programs") programs"
	bound=$(awk '{ sum += $1 } END { print sum + 300 }' "$stage/programs")
	timeout -k 5 "$bound" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp "$processors" -m 2048 -nodefaults \
		-no-reboot -display none -serial stdio -kernel .cache/vm/vmlinuz -initrd .cache/vm/initrd \
		-drive file=.cache/vm/rootfs.ext4,if=virtio,format=raw,snapshot=on \
		-drive file="$work/tests.ext4",if=virtio,format=raw,snapshot=on \
		-append "console=ttyS0 quiet panic=-1 apparmor=1 security=apparmor $emulated ${flags[$mode]}" </dev/null |
		sed -u 's|\r||' | tee "$work/$mode.log" || echo "the machine was ended after its time"
	grep -q '^ponton-vm: 0 failed$' "$work/$mode.log" || failed=1
done
echo "==== all"
for mode in "${modes[@]}"; do
	[ ! -f "$work/$mode.log" ] || summary "$mode" "$work/$mode.log"
done
exit $failed
