#!/bin/sh
# Inside the virtual machine of make-vm.sh: its first process, or a unit of its systemd. Runs the programs that
# test-vm.sh has put on the second disk, and ends the machine. The words of the kernel's command line:
#   ponton.v1        control groups as version 1, each controller apart
#   ponton.systemd   systemd is process 1 (read by the initrd)
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
line=$(cat /proc/cmdline 2>/dev/null || { mount -t proc proc /proc && cat /proc/cmdline; })

if [ $$ = 1 ]; then
	mount -o remount,rw /
	mount -t sysfs sysfs /sys
	mount -t devtmpfs dev /dev 2>/dev/null
	mkdir -p /dev/pts /dev/shm
	mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
	mount -t tmpfs tmpfs /dev/shm
	mount -t tmpfs tmpfs /run
	mount -t securityfs securityfs /sys/kernel/security
	case " $line " in
	*" ponton.v1 "*)
		mount -t tmpfs cgroup /sys/fs/cgroup
		while read -r name _ _ enabled; do
			[ "$enabled" = 1 ] || continue
			mkdir -p "/sys/fs/cgroup/$name"
			mount -t cgroup -o "$name" "$name" "/sys/fs/cgroup/$name"
		done </proc/cgroups
		;;
	*) mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup ;;
	esac
	ip link set lo up
	exec </dev/null >/dev/ttyS0 2>&1
	# Process 1 stays free to reap; a group of processes that was killed cannot take the machine along.
	setsid -w "$0" child
	sync
	echo o >/proc/sysrq-trigger
	exec sleep 60
fi

. /vm/environment
# What the programs know by the absolute names of the host is there by these names.
for path in $PATHS; do
	mkdir -p "$path"
	mount --bind "/vm$path" "$path"
done
failed=0
while read -r limit directory program arguments; do
	# The build adds a number to the name of the program.
	name=${program##*/}
	name=${directory##*/}/${name%-*}
	echo "== $name $arguments"
	start=$(cut -d' ' -f1 /proc/uptime)
	# shellcheck disable=SC2086
	(cd "$directory" && exec timeout -k 5 "$limit" "$program" $arguments)
	code=$?
	echo "-- $name ended with $code after $(cut -d' ' -f1 /proc/uptime | awk -v s="$start" '{print $1 - s}') s"
	[ $code = 0 ] || failed=$((failed + 1))
done </vm/programs
echo "ponton-vm: $failed failed"
if [ "$(cat /proc/1/comm)" = systemd ]; then
	sync
	echo o >/proc/sysrq-trigger
fi
