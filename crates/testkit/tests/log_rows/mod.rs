//! What is compared of logs. The scripts run in this order: a later one reads what an earlier one had logged. `$D` is
//! the client, `$L` the driver.

/// A script, and whether the text of its error is compared: ours says more, or what later versions say.
pub(crate) struct Row {
    pub(crate) script: &'static str,
    pub(crate) has_other_words: bool,
}

const fn same(script: &'static str) -> Row {
    Row { script, has_other_words: false }
}
const fn worded(script: &'static str) -> Row {
    Row { script, has_other_words: true }
}

/// Before each script. `run` is that of a container with this driver. `follow` starts to read a log into the file `$F`,
/// `ready` waits until a line has come there, `ended` for its end, and tells how that was.
pub(crate) const PRELUDE: &str = r#"
run() { $D run --log-driver $L "$@"; }
follow() { F=$(mktemp); timeout 60 $D logs -f "$@" >$F 2>&1 & P=$!; }
ready() {
    n=0
    until grep -q "$1" $F; do
        n=$((n + 1))
        [ $n -lt 6000 ] || { echo "no line $1"; kill $P; exit 99; }
        sleep 0.01
    done
}
ended() { wait $P; echo "exit $?"; }
time_of() { $D logs -t "$1" | sed -n "$2p" | cut -d ' ' -f 1; }
"#;

/// With each driver.
pub(crate) const ROWS: &[Row] = &[
    // the last lines
    same("run --name lines busybox sh -c 'for i in 1 2 3 4 5; do echo line $i; done'"),
    same("$D logs lines"),
    same("$D logs --tail 0 lines"),
    same("$D logs --tail 1 lines"),
    same("$D logs -n 3 lines"),
    same("$D logs --tail 5 lines"),
    same("$D logs --tail 6 lines"),
    same("$D logs --tail all lines"),
    same("$D logs --tail -1 lines"),
    same("$D logs -f --tail 2 lines"),
    same("$D logs -f lines"),
    // stdout and stderr apart
    same("run --name both busybox sh -c 'echo out; echo err >&2; echo out2; echo err2 >&2'"),
    same("$D logs both"),
    same("$D logs -f both"),
    same("$D logs --tail 0 both"),
    same("$D logs -t both | cut -d ' ' -f 2-"),
    // times: one line for each of three runs
    same("run --name runs busybox echo run; $D start -a runs; $D start -a runs; $D logs runs"),
    same("$D logs --since \"$(time_of runs 2)\" runs"),
    same("$D logs --until \"$(time_of runs 2)\" runs"),
    same("$D logs --since \"$(time_of runs 2)\" --until \"$(time_of runs 2)\" runs"),
    same("$D logs --since \"$(time_of runs 2)\" --tail 1 runs"),
    same("$D logs --until \"$(time_of runs 2)\" --tail 1 runs"),
    same("$D logs --until \"$(time_of runs 2)\" --tail 2 runs"),
    same("$D logs -f --until \"$(time_of runs 2)\" runs"),
    same("$D logs -f --since \"$(time_of runs 3)\" runs"),
    same("$D logs --since \"$(time_of runs 3)\" --until \"$(time_of runs 1)\" runs"),
    // times and attributes before the lines
    same("$D logs -t runs"),
    same("$D logs --timestamps --tail 1 runs"),
    same("$D logs --details runs"),
    same("$D logs --details -t runs"),
    same(
        "run --name attrs --log-opt labels=a,b,missing --log-opt env=X,Y --label b='x y' --label a=1 --label c=2 -e X='q=&/ü' busybox echo attrs",
    ),
    same("$D logs --details attrs"),
    same("$D logs --details -t attrs"),
    same("$D logs attrs"),
    // One option each: dockerd names any one that a driver does not know.
    same(
        "run --name regex --log-opt labels-regex='^a' --label ab=1 --label ba=2 busybox echo regex; $D logs --details regex",
    ),
    same(
        "run --name regex2 --log-opt env-regex='^X.$' -e X1=1 -e X11=2 busybox echo regex; $D logs --details regex2",
    ),
    same("run --name tagged --log-opt tag='{{.Name}}' busybox echo tagged; $D logs --details tagged"),
    // long and odd lines
    same(
        "run --name long busybox sh -c 'for n in 16382 16383 16384 16385 40000 100000; do head -c $n /dev/zero | tr \"\\0\" x; echo; done' | md5sum",
    ),
    same("run --name unended busybox sh -c 'printf first; printf second >&2'; $D logs unended"),
    same("$D logs -t unended"),
    // Which of two unended lines is the last one, dockerd leaves to chance.
    same("$D start unended >/dev/null; $D wait unended; $D logs unended"),
    same("run --name unended1 busybox printf alone; $D logs --tail 1 unended1"),
    same("run --name long2 busybox sh -c 'head -c 50000 /dev/zero | tr \"\\0\" y' | wc; $D logs long2 | wc"),
    same(
        "run --name binary busybox sh -c \"printf '\\\\000\\\\001\\\\377\\\\376\\\\200 a\\\\303\\\\n\\\\033[1m\\\\342\\\\202\\\\254\\\\n'\" | od -c",
    ),
    same("$D logs binary | od -c"),
    same(
        "run --name html busybox sh -c 'printf \"<a&b>\\\\\\\"\\\\t\\\\\\\\\\\\b\\\\n\"' | od -c; $D logs html | od -c",
    ),
    same("run --name empty busybox sh -c 'echo; echo a; echo; echo; printf \"b\\r\\nc\\rd\\n\"' | od -c"),
    same("$D logs empty | od -c"),
    same("$D logs --tail 2 empty | od -c"),
    same("$D logs --tail 4 empty | od -c"),
    same("$D logs -t --tail 3 empty"),
    same("run --name silent busybox true; $D logs silent; $D logs -f silent; $D logs --tail 1 silent"),
    // a terminal
    same("run -t --name tty busybox sh -c 'echo out; echo err >&2; printf end' | od -c"),
    same("$D logs tty | od -c"),
    same("$D logs -t tty | od -c | wc -l"),
    same("$D logs -t tty"),
    same("$D logs --details --tail 1 tty"),
    same("$D logs -f --tail 1 tty | od -c"),
    // rotation
    same(
        "run -d --name rotated --log-opt max-size=10k --log-opt max-file=3 busybox seq 10000 19999 >/dev/null; $D wait rotated",
    ),
    same(
        "$D logs rotated | awk 'NR == 1 { first = $1 } { if (NR > 1 && $1 != last + 1) print \"gap\", last, $1; last = $1 } END { print first > 10000, first < 19990, last }'",
    ),
    same("$D logs --tail 3 rotated"),
    same("$D logs --tail 150 rotated | md5sum"),
    same("$D logs -f --tail 150 rotated | md5sum"),
    same("$D logs --since 1h rotated | tail -n 2"),
    same(
        "run -d --name one --log-opt max-size=5k --log-opt max-file=1 --log-opt compress=false busybox seq 10000 19999 >/dev/null; $D wait one; $D logs one | tail -n 1",
    ),
    same(
        "run --name small --log-opt max-size=1m --log-opt max-file=2 --log-opt compress=true busybox echo x; $D logs small",
    ),
    // following
    same(
        "run -d --name f1 busybox sh -c 'echo begin; until [ -e /go ]; do usleep 5000; done; echo more; echo err >&2; exit 3' >/dev/null; follow f1; ready begin; $D exec f1 touch /go; ended; sort $F; rm $F; $D logs f1",
    ),
    same(
        "run -d --name f2 busybox sh -c 'echo begin; until [ -e /go ]; do usleep 5000; done; seq 1000' >/dev/null; follow f2; ready begin; $D exec f2 touch /go; ended; wc <$F; md5sum <$F; rm $F",
    ),
    same(
        "run -d --name f3 busybox sh -c 'echo begin; sleep 1000' >/dev/null; follow f3; ready begin; $D kill f3; ended; cat $F; rm $F",
    ),
    same(
        "run -d --name f4 busybox sh -c 'echo begin; sleep 1000' >/dev/null; follow f4; ready begin; $D rm -f f4; ended; cat $F; rm $F",
    ),
    same(
        "run -d --name f5 --stop-timeout 0 busybox sh -c 'echo begin; sleep 1000' >/dev/null; follow f5; ready begin; $D restart -t 0 f5; ended; cat $F; rm $F; $D logs --tail 1 f5; $D kill f5",
    ),
    same(
        "run -d --name f6 busybox sh -c 'echo begin; sleep 1000' >/dev/null; follow f6; ready begin; $D pause f6; $D logs f6; $D unpause f6; $D kill f6; ended; cat $F; rm $F",
    ),
    same(
        "run -d --name f7 --restart on-failure:2 busybox sh -c 'echo run; exit 1' >/dev/null; until [ \"$($D inspect -f '{{.State.Status}} {{.RestartCount}}' f7)\" = 'exited 2' ]; do sleep 0.02; done; $D logs f7",
    ),
    same(
        "run -d --name f9 busybox sh -c 'echo begin; until [ -e /go ]; do usleep 5000; done; echo more' >/dev/null; follow f9; ready begin; rm $F; follow --tail 0 f9; $D exec f9 touch /go; wait $P; $D wait f9; $D logs --tail 1 f9; rm $F",
    ),
    same(
        "$D create --log-driver $L --name created busybox true >/dev/null; $D logs created; $D logs -f created",
    ),
];

/// After those, with the first driver: what no driver has to do with, or one only.
pub(crate) const ONCE: &[Row] = &[
    // lines of many pieces, whose ends the driver local of 20.10 loses
    same("$D logs long | md5sum"),
    same("$D logs long | wc"),
    same("$D logs --tail 1 long | wc"),
    same("$D logs --tail 3 long | wc"),
    // numbers and times
    same("$D container logs lines"),
    same("$D logs --tail -5 lines"),
    same("$D logs --tail '' lines"),
    same("$D logs --tail 1.5 lines"),
    same("$D logs --tail nonsense lines"),
    same("$D logs --tail 99999999999999999999 lines"),
    same("for t in 1h 10m 1h30m 90000ms 1.5h 8760h; do $D logs --since $t runs; done"),
    same("for t in 1h 10m 1h30m 90000ms 1.5h 8760h; do $D logs --until $t runs; done"),
    same(
        "for t in 2001-01-01 2001-01-01T00 2001-01-01T10:20 2001-01-01T10:20:30; do $D logs --since $t runs; done",
    ),
    same("for t in 2001-01-01T10:20:30.5 2001-01-01T10:20:30Z 2001-01-01Z; do $D logs --since $t runs; done"),
    same(
        "for t in 2101-01-01T10:20:30+01:00 2101-01-01+02:00 2101-01-01T10:20Z; do $D logs --since $t runs; done",
    ),
    same("for t in 2101-01-01 2101-01-01T00 2101-01-01T10:20:30.123456789; do $D logs --until $t runs; done"),
    same("for t in 0 1 1.5 1.999999999 4102444800 4102444800.000000001; do $D logs --since $t runs; done"),
    same("for t in 1 1.5 4102444800; do $D logs --until $t runs; done"),
    same("$D logs --until 0 runs"),
    same(
        "for t in nonsense 2001-13-01 25:00 1x 2001-01-01T99:00:00 ''; do $D logs --since \"$t\" runs; done",
    ),
    same("for t in nonsense 2001-02-30 -1h 1d ''; do $D logs --until \"$t\" runs; done"),
    // what can't be read, and what is refused
    same("$D run --name none --log-driver none busybox echo x"),
    same("$D logs none"),
    same("$D logs -f none"),
    same("$D logs --tail 0 none"),
    same("$D logs nosuch"),
    same("$D logs -f nosuch"),
    same("$D logs"),
    same("$D logs a b"),
    same("$D logs --nosuch lines"),
    same("$D logs --since"),
    worded("run --log-opt nosuch=1 busybox true"),
    worded("run --log-opt max-size=nonsense busybox true"),
    worded("run --log-opt max-size=-1 busybox true"),
    worded("run --log-opt max-file=0 busybox true"),
    worded("run --log-opt max-file=nonsense busybox true"),
    worded("run --log-opt max-file=1 --log-opt max-size=1k --log-opt compress=true busybox true"),
    worded("run --log-opt compress=nonsense busybox true"),
    worded("run --log-opt mode=nonsense busybox true"),
    worded("run --log-opt max-buffer-size=1m busybox true"),
    worded("run --log-opt labels-regex='(' busybox true"),
    worded("$D run --log-driver nosuch busybox true"),
    worded("$D run --log-driver none --log-opt max-size=1k busybox true"),
    same(
        "run --name lossy --log-opt mode=non-blocking --log-opt max-buffer-size=1m busybox echo lossy; $D logs lossy",
    ),
    same("run --log-opt nonsense busybox true"),
];
