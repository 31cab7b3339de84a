#!/bin/sh
# Stands in for CRIU where that does not work on the kernel. It saves how far a container has counted, and starts its
# program again from there, with what its command line says: streams, network, root, mounts and control group.
#
#   calls      its command lines
#   unusable   `criu check` fails
#   broken     saving and restoring fail
#   hold       saving waits until this is gone; `held` says that it does
here=$(dirname "$0")
echo "$*" >>"$here/calls"

command=$1
shift
images= tree= log= root= pidfile= leave= netns= cgroups= mounts=
while [ $# -gt 0 ]; do
    case $1 in
    --images-dir) images=$2; shift ;;
    --tree) tree=$2; shift ;;
    --log-file) log=$2; shift ;;
    --root) root=$2; shift ;;
    --pidfile) pidfile=$2; shift ;;
    --leave-running) leave=yes ;;
    --cgroup-root) cgroups="$cgroups $2"; shift ;;
    --inherit-fd)
        case $2 in *:extRootNetNS) netns=${2#fd[}; netns=${netns%%]*} ;; esac
        shift ;;
    --external)
        case $2 in mnt*) mounts="$mounts ${2#mnt}" ;; esac
        shift ;;
    esac
    shift
done

fail() {
    printf '(00.1) begun\n(00.2) Error (stand-in.c:1): the cause\n(00.3) a\n(00.4) b\n(00.5) c\n(00.6) Error: FAILED.\n' >"$log"
    exit 1
}

case $command in
check)
    [ ! -e "$here/unusable" ] || { echo "Error (stand-in.c:2): nothing works" >&2; exit 1; }
    ;;
dump)
    echo half >"$images/inventory.img"
    [ ! -e "$here/broken" ] || fail
    while [ -e "$here/hold" ]; do echo >"$here/held"; sleep 0.02; done
    cp "/proc/$tree/root/data/count" "$images/count" || fail
    [ -n "$leave" ] || kill -9 "$tree"
    ;;
restore)
    [ ! -e "$here/broken" ] || fail
    export root pidfile cgroups mounts count="$(cat "$images/count")"
    # It becomes the child of who has called us: its parent is killed before it goes on.
    exec 9<&0
    mkfifo "$pidfile.go"
    exec 7<>"$pidfile.go"
    rm "$pidfile.go"
    network="unshare --net"
    [ -z "$netns" ] || network="nsenter --net=/proc/self/fd/$netns"
    $network unshare --mount --pid --fork sh -ec '
        read -r pid rest </proc/self/stat
        for group in $cgroups; do
            for directory in "/sys/fs/cgroup/${group%%:*}${group#*:}" "/sys/fs/cgroup$group"; do
                [ ! -d "$directory" ] || echo 0 >"$directory/cgroup.procs"
            done
        done
        for mount in $mounts; do
            target=${mount#[}; target=${target%%]*}; source=${mount#*]:}
            # Others are below what CRIU would mount.
            [ "$source" = /dev/null ] || [ ! -e "$root$target" ] || mount --bind "$source" "$root$target"
        done
        mount -t proc proc "$root/proc"
        cd "$root"
        pivot_root . .
        /bin/busybox umount -l .
        # Where the old root was, the file is not seen any more: it is told by a descriptor.
        echo "$pid" >&8
        exec 8>&-
        read -r go <&7
        exec 7>&-
        exec /bin/busybox sh /data/program "$count"
    ' <&9 9<&- 8>"$pidfile" &
    while [ ! -s "$pidfile" ] && kill -0 $!; do sleep 0.02; done
    [ -s "$pidfile" ] || fail
    exec 2>/dev/null
    kill -9 $!
    wait $!
    echo >&7
    exit 0
    ;;
esac
