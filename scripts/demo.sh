#!/usr/bin/env bash
# A tour of Ponton on this machine, with a daemon of its own: nothing of it is left afterwards.
#   demo.sh DIRECTORY-OF-BINARIES
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo "demo.sh: needs root: it makes namespaces, cgroups and a bridge" >&2; exit 1; }

work=$(mktemp -d /tmp/ponton-demo.XXXXXX)
export PONTON_HOST=unix://$work/run/ponton.sock
unset DOCKER_HOST
ponton() { "$bin/ponton" "$@"; }
port=18080
daemon_pid=

start_daemon() {
	"$bin/ponton" daemon -H "$PONTON_HOST" --data-root "$work/data" --exec-root "$work/run" >>"$work/daemon.log" 2>&1 &
	daemon_pid=$!
	for _ in $(seq 500); do
		curl -sf --unix-socket "$work/run/ponton.sock" http://ponton/_ping >/dev/null && return
		kill -0 "$daemon_pid" 2>/dev/null || break
		sleep 0.01
	done
	echo "the daemon did not come up:" >&2
	cat "$work/daemon.log" >&2
	return 1
}

clean_up() {
	status=$?
	trap - EXIT
	if [ -n "$daemon_pid" ]; then
		ponton rm -f web >/dev/null 2>&1 || true
		kill "$daemon_pid" 2>/dev/null || true
		wait "$daemon_pid" 2>/dev/null || true
	fi
	[ $status = 0 ] || { echo "--- daemon's log"; tail -n 20 "$work/daemon.log"; }
	rm -rf "$work"
	exit $status
}
trap clean_up EXIT

step() { # step TITLE COMMAND...: runs it, shows its output and its time
	local title=$1 begin end
	shift
	printf '\n\033[1m== %s\033[0m\n   %s\n' "$title" "$*"
	begin=$(date +%s%N)
	"$@" 2>&1 | sed 's/^/   | /'
	end=$(date +%s%N)
	printf '   %d.%01d ms\n' $(((end - begin) / 1000000)) $(((end - begin) / 100000 % 10))
}
page() { curl -sS --max-time 5 "http://127.0.0.1:$port/"; }

step "a base image from Debian's packages (kept in .cache)" scripts/make-images.sh debian-web
mkdir -p "$work/site"
echo "hello from a container" >"$work/site/index.html"

start_daemon
step "a private daemon answers" ponton version --format 'daemon {{.Server.Version}}, API {{.Server.APIVersion}}'
step "import the root file system as an image" ponton image import --change 'EXPOSE 80' .cache/images/debian-web.tar debian-web:latest
step "what images there are" ponton images
step "run a web service: limits, a bind mount, a published port" \
	ponton run -d --name web --memory 64m --pids-limit 50 -v "$work/site:/var/www/html:ro" -p "127.0.0.1:$port:80" \
	debian-web sh -c 'ln -sf /dev/stdout /var/log/nginx/access.log; exec nginx -g "daemon off;"'
for _ in $(seq 200); do page >/dev/null 2>&1 && break; sleep 0.01; done
step "fetch a page from it" page
step "exec: its limits, seen from inside" ponton exec web sh -c 'echo "processes: $(ls -d /proc/[0-9]* | wc -l)"; cat /etc/debian_version'
step "logs" ponton logs web
step "stats" ponton stats --no-stream web
step "ps" ponton ps
step "kill the daemon with -9" kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || true
step "the service goes on without it" page
start_daemon
step "the next daemon finds the container running" ponton ps
step "and takes up exec" ponton exec web cat /proc/1/comm
step "run a program to its end" ponton run --rm debian-web sh -c 'echo "in and out"; exit 0'
step "stop and remove the service" ponton rm -f web
step "remove the image" ponton rmi debian-web:latest
step "stop the daemon" kill "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || true
daemon_pid=

left=$(grep -c "$work" /proc/self/mountinfo || true)
[ "$left" = 0 ] || { echo "mounts are left behind" >&2; exit 1; }
! pgrep -f "$work" >/dev/null || { echo "processes are left behind:" >&2; pgrep -af "$work" >&2; exit 1; }
printf '\nDone; nothing is left behind.\n'
