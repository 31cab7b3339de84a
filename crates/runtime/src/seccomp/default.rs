//! The default policy: Docker's, as of its version 29.
//!
//! Everything is refused with EPERM but what is listed here. What is missing is missing on purpose:
//! kernel keyrings (not in namespaces), io_uring (a way around this policy), userfaultfd, module
//! loading, kexec, swap, clock setting, and sockets of families that lead to the host or are
//! nothing but attack surface (VSOCK, ALG).
//!
//! What seccomp cannot see is behind pointers: 32-bit x86 programs can make sockets of any family
//! by `socketcall`, as under Docker.

use ponton_oci::runtime::{Action, Arch, Operator, SeccompArg};

use super::profile::{ArchMap, Conditions, Profile, Rule};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Allowed to every container, by topic. Names that end in 32, 64 or `_time64` are those of 32-bit
/// architectures.
const ALLOWED: &[&str] = &[
    // Files and directories.
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3
     faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown
     fchown32 fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
     ftruncate ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown lchown32 link linkat
     _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open
     openat openat2 readahead readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs
     statfs64 statx symlink symlinkat sync sync_file_range syncfs truncate truncate64 umask unlink
     unlinkat utime utimensat utimensat_time64 utimes cachestat listmount statmount",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat
     llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Reading, writing, waiting for that.
    "pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readv sendfile sendfile64 splice tee
     vmsplice write writev pipe pipe2 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
     epoll_pwait2 epoll_wait epoll_wait_old poll ppoll ppoll_time64 pselect6 pselect6_time64 select
     _newselect eventfd eventfd2 signalfd signalfd4 fanotify_mark inotify_add_watch inotify_init
     inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
     io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall
     mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
     pkey_mprotect process_mrelease remap_file_pages",
    // Processes and threads.
    "execve execveat exit exit_group fork getpgid getpgrp getpid getppid getsid gettid
     get_robust_list get_thread_area pidfd_open pidfd_send_signal prctl restart_syscall rseq
     riscv_hwprobe setpgid setsid set_robust_list set_thread_area set_tid_address uretprobe vfork
     wait4 waitid waitpid futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake",
    // Identity, privileges, and what can only lower them.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
     getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid
     setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32
     setresuid setresuid32 setreuid setreuid32 setuid setuid32 landlock_add_rule
     landlock_create_ruleset landlock_restrict_self seccomp",
    // Scheduling and limits.
    "getcpu getpriority getrlimit getrusage prlimit64 sched_getaffinity sched_getattr sched_getparam
     sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
     sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
     sched_yield setpriority setrlimit ugetrlimit",
    // Signals.
    "kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
     tgkill tkill",
    // Sockets; `socket` itself is below.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
     recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // Time. The kernel lets only CAP_SYS_TIME set what adjtimex and clock_adjtime can set.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep
     setitimer time times timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
     timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
     timerfd_settime64",
    // System V's and POSIX's message queues, semaphores and shared memory.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
     semtimedop_time64 shmat shmctl shmdt shmget",
    // The system.
    "getrandom sysinfo uname",
];

/// Allowed to those that have the capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
         umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Allowed on machines of an architecture, in Docker's names.
const BY_MACHINE: &[(&str, &str)] = &[
    ("arm64", "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
    ("amd64", "arch_prctl modify_ldt"),
];

/// Tracing of one's own processes is safe since this kernel, which made seccomp apply to tracers.
const PTRACE_KERNEL: (u32, u32) = (4, 8);
const PTRACE: &str = "process_vm_readv process_vm_writev ptrace";

/// The socket families below this one are allowed: UNIX, INET, INET6, BRIDGE, X25 and others.
const FAMILIES_BELOW: u64 = 12;
/// And these: NETBEUI, SECURITY, KEY, NETLINK, PACKET, ASH, RDS, SNA, PPPOX, LLC, IB, MPLS, CAN,
/// TIPC, BLUETOOTH, IUCV, RXRPC, PHONET, IEEE802154, NFC, KCM, QIPCRTR, SMC, XDP, MCTP. The gaps
/// are families that the kernel has lost, ALG (38) and VSOCK (40).
const FAMILIES: &[u64] =
    &[16, 17, 13, 14, 15, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// PER_LINUX, PER_LINUX32, both also with UNAME26, and the query that changes nothing.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The profile that containers get when they ask for no other.
pub fn profile() -> Profile {
    let mut syscalls: Vec<Rule> = ALLOWED.iter().map(|names| allow(names)).collect();
    syscalls.extend(
        BY_CAPABILITY
            .iter()
            .map(|(capability, names)| Rule { includes: capability_is(capability), ..allow(names) }),
    );
    syscalls.extend(BY_MACHINE.iter().map(|(machine, names)| Rule {
        includes: Conditions { arches: vec![(*machine).to_owned()], ..Conditions::default() },
        ..allow(names)
    }));
    syscalls.push(Rule {
        includes: Conditions { min_kernel: Some(PTRACE_KERNEL), ..Conditions::default() },
        ..allow(PTRACE)
    });
    syscalls.push(allow_if("socket", Operator::LessThan, FAMILIES_BELOW, 0));
    for family in FAMILIES {
        syscalls.push(allow_if("socket", Operator::Equal, *family, 0));
    }
    for personality in PERSONALITIES {
        syscalls.push(allow_if("personality", Operator::Equal, personality, 0));
    }
    syscalls.push(Rule {
        excludes: capability_is("CAP_SYS_ADMIN"),
        ..allow_if("clone", Operator::MaskedEqual, NEW_NAMESPACES, 0)
    });
    // The flags of clone3 are behind a pointer; with ENOSYS the C library falls back to clone.
    syscalls.push(Rule {
        action: Action::Errno,
        errno_ret: Some(ENOSYS),
        excludes: capability_is("CAP_SYS_ADMIN"),
        ..allow("clone3")
    });
    Profile {
        default_action: Action::Errno,
        default_errno_ret: Some(EPERM),
        arch_map: vec![
            ArchMap { architecture: Arch::X86_64, sub_architectures: vec![Arch::X86, Arch::X32] },
            ArchMap { architecture: Arch::Aarch64, sub_architectures: vec![Arch::Arm] },
        ],
        syscalls,
        ..Profile::default()
    }
}

fn allow(names: &str) -> Rule {
    Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action: Action::Allow,
        ..Rule::default()
    }
}

fn allow_if(name: &str, op: Operator, value: u64, value_two: u64) -> Rule {
    Rule { args: vec![SeccompArg { index: 0, value, value_two, op }], ..allow(name) }
}

fn capability_is(capability: &str) -> Conditions {
    Conditions { caps: vec![capability.to_owned()], ..Conditions::default() }
}
