#!/usr/bin/env bash
# Uses ponton-runtime as the OCI runtime of Debian's dockerd and podman, and compares each step with
# the same step on runc: exit code and output, with what differs by nature (ids, times) left out.
#   drop-in.sh RUNTIME [docker] [podman]     RUNTIME is the binary; both engines if none is named
# The engines get directories and a network namespace of their own; nothing is left behind.
set -uo pipefail

if [ "${DROP_IN_NAMESPACE:-}" != own ]; then
	# Before anything else: processes that are left go with their pid namespace's process 1.
	exec env DROP_IN_NAMESPACE=own unshare --net --mount -- "$0" "$@"
fi
runtime=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- docker podman
project=$(realpath "$(dirname "$0")/..")
"$project/scripts/make-images.sh" busybox >/dev/null
image=$project/.cache/images/busybox.tar
work=$(mktemp -d /tmp/ponton-drop-in.XXXXXX)
ip link set lo up
mkfifo "$work/nobody"

# --- the engines ------------------------------------------------------------------------------------

docker_start() {
	mkdir -p "$work/docker"
	dockerd --data-root "$work/docker/data" --exec-root "$work/docker/exec" -H "unix://$work/docker.sock" \
		-p "$work/docker.pid" --bip 172.30.77.1/24 --add-runtime "ponton=$runtime" --storage-driver overlay2 \
		>"$work/dockerd.log" 2>&1 &
	dockerd=$!
	export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/docker
	for _ in $(seq 1200); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
	docker import "$image" busybox >/dev/null || { tail -n 20 "$work/dockerd.log" >&2; return 1; }
}

docker_stop() {
	# A step that failed may have left a container.
	docker ps -aq 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1
	kill "$dockerd" 2>/dev/null && wait "$dockerd"
}

podman_() { # the engine with directories of its own
	podman --root "$work/podman/root" --runroot "$work/podman/run" --tmpdir "$work/podman/tmp" \
		--cgroup-manager cgroupfs --events-backend file "$@"
}

podman_start() {
	mkdir -p "$work/podman"
	podman_ import -q "$image" busybox >/dev/null
}

podman_stop() {
	podman_ rm -af -t 0 >/dev/null 2>&1
	podman_ system reset -f >/dev/null 2>&1
	# podman leaves the groups that it makes around its containers' own.
	find /sys/fs/cgroup -depth -type d -path "*/$(basename "$work")*" -exec rmdir {} + 2>/dev/null
}

# --- the steps --------------------------------------------------------------------------------------

step() { # step NAME COMMAND...: one block of the transcript
	echo "== $1"
	shift
	# Through a shell, which knows the functions of this one.
	timeout -k 1 120 bash -c '"$@"' step "$@" 2>&1 </dev/null
	echo "exit $?"
}

# A command on a terminal of its own, at which nobody types: the end of input would end it early.
terminal() { SHELL=/bin/bash script -qec "$*" /dev/null <>"$work/nobody"; }

until_says() { # until_says TEXT COMMAND...: once the command says so
	local text=$1
	shift
	for _ in $(seq 600); do "$@" 2>/dev/null | grep -q "$text" && return; sleep 0.1; done
	echo "it never says $text"
	return 1
}

has_all_rights() { # whether this machine gives us what --privileged is to hand on
	local last bounding
	last=$(cat /proc/sys/kernel/cap_last_cap)
	bounding=$(awk '/^CapBnd/ {print $2}' /proc/self/status)
	[ $((0x$bounding)) = $(((1 << (last + 1)) - 1)) ]
}

limits() { # what the kernel says of a container's limits, from inside
	cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null ||
		cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max
}

steps() { # steps ENGINE RUNTIME: engine is the words that begin its command lines
	local engine=$1 name=drop-in-$3 make=$2 network=${4:-}
	local run="$engine run $make $network"
	step run $run --rm busybox echo hello
	step exit-code $run --rm busybox sh -c 'echo to stderr >&2; exit 42'
	step not-found $run --rm busybox nosuch
	step not-executable $run --rm busybox /etc/passwd
	step rights $run --rm busybox grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
	step user $run --rm --user 65534:100 --workdir /tmp --env A=b busybox sh -c 'id -u; id -g; pwd; echo $A'
	step limits $run --rm --memory 64m --pids-limit 50 busybox sh -c "$(declare -f limits); limits"
	step files $run --rm --read-only --tmpfs /t busybox sh -c 'exec 2>&1; touch /x; touch /t/x && ls /t; ls /dev | sort | xargs'
	step host $run --rm --hostname h1 --ulimit nofile=100:200 busybox sh -c 'hostname; ulimit -n'
	step terminal terminal $run --rm -it busybox sh -c "'tty; stty -a | head -n 1 | cut -d\; -f 1'"
	step volume $run --rm -v "vol$3:/v" busybox sh -c 'echo kept > /v/f'
	step volume-again $run --rm -v "vol$3:/v:ro" busybox sh -c 'exec 2>&1; cat /v/f; touch /v/g'
	step detach bash -c "$run -d --name $name --memory 64m --health-cmd 'test -e /healthy' --health-interval 1s busybox \
		sh -c 'trap \"exit 7\" TERM; echo begin; while :; do sleep 0.1; done' | wc -c"
	step logs until_says begin $engine logs $name
	step exec $engine exec -e X=y $name sh -c 'echo $X; id -u; exit 5'
	step exec-user $engine exec -u 65534 -w /tmp $name sh -c 'id -u; pwd'
	step exec-not-found $engine exec $name nosuch
	step exec-input bash -c "echo through | $engine exec -i $name cat"
	step exec-terminal terminal $engine exec -it $name tty
	! has_all_rights || step exec-privileged $engine exec --privileged $name grep CapEff /proc/self/status
	step top bash -c "$engine top $name | sed -n 2p | grep -c 'while'"
	step stats bash -c "$engine stats --no-stream --format '{{.PIDs}}' $name | grep -c '^[1-9]'"
	step pause $engine pause $name
	step paused $engine ps --filter name=$name --format '{{.State}}'
	step exec-paused $engine exec $name true
	step unpause $engine unpause $name
	step update $5 $name $(awk '{print $3}' <<<"$engine")
	step updated $engine exec $name sh -c "$(declare -f limits); limits"
	step healthy $engine exec $name touch /healthy
	step health $6 $name
	step rm-running $engine rm $name
	step kill-usr1 $engine kill -s USR1 $name
	step kill-term $engine kill -s TERM $name
	step wait $engine wait $name
	step start-again $engine start $name
	step restart $engine restart -t 0 $name
	step rm $engine rm -f $name
	step rm-again $engine rm $name
	step left bash -c "$engine ps -aq | wc -l"
}

docker_health() { until_says '^healthy' docker inspect --format '{{.State.Health.Status}}' "$1"; }
docker_update() { docker update --memory 96m --memory-swap -1 --pids-limit 60 "$1"; }
docker_steps() { # docker_steps RUNTIME
	steps docker "--runtime $1" "$1" "" docker_update docker_health
	step network docker run --runtime "$1" --rm busybox sh -c 'ip -o -4 addr show eth0 | grep -c 172.30.77; wc -l < /etc/resolv.conf'
	step init docker run --runtime "$1" --rm --init busybox sh -c 'cat /proc/1/comm'
	! has_all_rights || step privileged docker run --runtime "$1" --rm --privileged busybox sh -c 'mount -t tmpfs none /mnt && echo mounted'
	step namespaces docker run --runtime "$1" --rm --pid host --ipc host --uts host busybox sh -c 'test $$ -gt 1'
}

podman_health() { podman_ healthcheck run "$1"; }
podman_update() { podman_ --runtime "$2" update --memory 96m --pids-limit 60 "$1"; }
podman_steps() { # podman_steps RUNTIME
	local path=runc
	[ "$1" = ponton ] && path=$runtime
	steps "podman_ --runtime $path" "--ulimit nofile=1000:1000 --ulimit nproc=1000:1000" "$1" "--network none --cgroup-parent /$(basename "$work")" podman_update podman_health
}

# --- the comparison ---------------------------------------------------------------------------------

# What differs by nature: ids, pids, times, the runtimes' names and their own words in front of an error.
neutral() {
	tr -d '\000\010' | sed -E -e 's/\^[@D]//g' -e 's/[0-9a-f]{64}/ID/g' -e 's/\b[0-9a-f]{12}\b/ID/g' -e 's/drop-in-(ponton|runc)/NAME/g' \
		-e "s#$runtime#RUNTIME#g" -e 's/\b(runc|ponton-runtime)\b/RUNTIME/g' -e 's/[0-9]+ seconds?/N seconds/' \
		-e 's/\r$//' -e 's/time="[^"]*"/time/' \
		-e 's/^.*(executable file not found|permission denied|is not running|is paused).*$/error: \1/' \
		-e '/^Run .docker run --help/d' -e '/^$/d'
}

compare() { # compare ENGINE
	local engine=$1 failed=0
	"${engine}_start" || return 1
	export -f podman_ docker_health docker_update podman_health podman_update until_says terminal limits
	export work
	for with in runc ponton; do
		"${engine}_steps" "$with" | tee "$work/$engine.$with.raw" | neutral >"$work/$engine.$with"
	done
	"${engine}_stop" >/dev/null 2>&1
	diff -U 3 "$work/$engine.runc" "$work/$engine.ponton" || failed=1
	echo "$engine: $(grep -c '^==' "$work/$engine.ponton") steps $([ $failed = 0 ] && echo 'as with runc' || echo 'compared, some differ')"
	return $failed
}

clean_up() {
	[ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap clean_up EXIT

failed=0
running=()
for engine in "$@"; do
	compare "$engine" >"$work/$engine.out" 2>&1 &
	running+=("$engine:$!")
done
for one in "${running[@]}"; do
	wait "${one#*:}" || failed=1
	cat "$work/${one%%:*}.out"
done
exit $failed
