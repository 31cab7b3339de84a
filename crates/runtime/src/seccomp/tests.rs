use std::collections::BTreeSet;

use ponton_oci::runtime::{Action, Operator, SeccompArg, SeccompSyscall};

use super::arch::{X32_BIT, audit_arch, number};
use super::interpreter::{Call, run};
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

const OPERATORS: [Operator; 7] = [
    Operator::NotEqual,
    Operator::LessThan,
    Operator::LessEqual,
    Operator::Equal,
    Operator::GreaterEqual,
    Operator::GreaterThan,
    Operator::MaskedEqual,
];

fn target(capabilities: &[String]) -> Target<'_> {
    Target { capabilities, kernel: (5, 15) }
}

fn default_program(capabilities: &[&str], native: Arch) -> Vec<u8> {
    let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
    let mut policy = default::profile().policy(target(&capabilities)).unwrap();
    policy.architectures = vec![native];
    policy.architectures.extend(arch::relatives(native));
    compile(&policy, native).unwrap()
}

fn call(arch: Arch, name: &str, args: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let number = number(arch, name).unwrap_or_else(|| panic!("{arch:?} has no {name}"));
    Call { number, arch: audit_arch(arch).unwrap(), args: all }
}

fn answer(program: &[u8], arch: Arch, name: &str, args: &[u64]) -> u32 {
    run(program, call(arch, name, args)).0
}

fn rule(name: &str, action: Action, args: &[SeccompArg]) -> SeccompSyscall {
    SeccompSyscall { names: vec![name.to_owned()], action, errno_ret: None, args: args.to_vec() }
}

fn refusing(syscalls: Vec<SeccompSyscall>) -> Seccomp {
    Seccomp { default_action: Action::Errno, syscalls, ..Seccomp::default() }
}

#[test]
fn the_default_allows_what_programs_need_and_refuses_the_rest() {
    let program = default_program(&["CAP_CHOWN"], Arch::X86_64);
    let answer = |name, args: &[u64]| answer(&program, Arch::X86_64, name, args);
    for name in ["read", "write", "openat", "execve", "futex", "mmap", "ptrace", "arch_prctl"] {
        assert_eq!(answer(name, &[]), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "setns",
        "unshare",
        "bpf",
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "io_uring_enter",
        "userfaultfd",
        "kexec_load",
        "init_module",
        "reboot",
        "perf_event_open",
        "open_by_handle_at",
        "chroot",
        "swapon",
        "settimeofday",
        "acct",
        "pivot_root",
        "fsopen",
        "move_mount",
        "syslog",
        "iopl",
        "kcmp",
        "quotactl",
        "sethostname",
    ] {
        assert_eq!(answer(name, &[]), EPERM, "{name}");
    }
    assert_eq!(answer("clone3", &[]), ENOSYS);
    for (flags, expected) in [
        (0x0100_0011_u64, ALLOW),
        (0x003d_0f00, ALLOW),
        (0x1000_0000, EPERM),
        (0x0002_0000, EPERM),
        (0x4000_0000, EPERM),
        (0x0200_0000, EPERM),
    ] {
        assert_eq!(answer("clone", &[flags]), expected, "{flags:#x}");
    }
    for (personality, expected) in
        [(0, ALLOW), (8, ALLOW), (0x20008, ALLOW), (0xffff_ffff, ALLOW), (0x0040_0000, EPERM)]
    {
        assert_eq!(answer("personality", &[personality]), expected, "{personality:#x}");
    }
}

#[test]
fn the_default_allows_no_socket_that_leads_out() {
    let program = default_program(&[], Arch::X86_64);
    let refused: Vec<u64> =
        (0..64).filter(|family| answer(&program, Arch::X86_64, "socket", &[*family]) != ALLOW).collect();
    let mut expected = vec![12, 19, 20, 23, 25, 34, 37, 38, 40];
    expected.extend(46..64);
    assert_eq!(refused, expected);
    // The kernel looks at 32 bits of the family, the filter at 64: what is above is refused.
    assert_eq!(answer(&program, Arch::X86_64, "socket", &[1 << 32 | 2]), EPERM);
    assert_eq!(answer(&program, Arch::X86, "socket", &[40]), EPERM);
    assert_eq!(answer(&program, Arch::X86, "socket", &[2]), ALLOW);
    assert_eq!(answer(&program, Arch::X32, "socket", &[40]), EPERM);
}

#[test]
fn capabilities_open_what_they_are_for() {
    for (capability, name) in [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_ADMIN", "unshare"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_TIME", "settimeofday"),
        ("CAP_SYS_NICE", "mbind"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ] {
        let program = default_program(&[capability], Arch::X86_64);
        assert_eq!(answer(&program, Arch::X86_64, name, &[]), ALLOW, "{capability} {name}");
        let program = default_program(&["CAP_CHOWN"], Arch::X86_64);
        assert_ne!(answer(&program, Arch::X86_64, name, &[]), ALLOW, "{name}");
    }
    let program = default_program(&["CAP_SYS_ADMIN"], Arch::X86_64);
    assert_eq!(answer(&program, Arch::X86_64, "clone", &[0x1000_0000]), ALLOW);
}

#[test]
fn every_architecture_has_its_own_numbers() {
    let program = default_program(&[], Arch::X86_64);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        assert_eq!(answer(&program, arch, "execve", &[]), ALLOW, "{arch:?}");
        assert_eq!(answer(&program, arch, "mount", &[]), EPERM, "{arch:?}");
        assert_eq!(answer(&program, arch, "clone", &[0x1000_0000]), EPERM, "{arch:?}");
    }
    assert_eq!(number(Arch::X32, "execve"), Some(X32_BIT + 520));
    let arm = default_program(&[], Arch::Aarch64);
    for arch in [Arch::Aarch64, Arch::Arm] {
        assert_eq!(answer(&arm, arch, "execve", &[]), ALLOW, "{arch:?}");
        assert_eq!(answer(&arm, arch, "mount", &[]), EPERM, "{arch:?}");
    }
    assert_eq!(answer(&arm, Arch::X86_64, "execve", &[]), KILL);
    assert_eq!(answer(&program, Arch::Aarch64, "execve", &[]), KILL);
    let native_only = compile(&refusing(vec![rule("read", Action::Allow, &[])]), Arch::X86_64).unwrap();
    assert_eq!(answer(&native_only, Arch::X86_64, "read", &[]), ALLOW);
    assert_eq!(answer(&native_only, Arch::X86, "read", &[]), KILL);
    assert_eq!(answer(&native_only, Arch::X32, "read", &[]), KILL);
}

#[test]
fn all_names_of_the_default_are_known_somewhere() {
    let names: BTreeSet<String> =
        default::profile().syscalls.into_iter().flat_map(|rule| rule.names).collect();
    let arches = [Arch::X86_64, Arch::X86, Arch::Arm, Arch::Aarch64];
    let unknown: Vec<&String> =
        names.iter().filter(|name| !arches.iter().any(|arch| number(*arch, name).is_some())).collect();
    // Of RISC-V, and another name of arm_sync_file_range.
    assert_eq!(unknown, ["riscv_hwprobe", "sync_file_range2"]);
}

#[test]
fn every_number_gets_the_answer_that_the_policy_gives_it() {
    for native in [Arch::X86_64, Arch::Aarch64] {
        let policy =
            Seccomp { architectures: vec![native], ..default::profile().policy(target(&[])).unwrap() };
        let program = compile(&policy, native).unwrap();
        let allowed: BTreeSet<u32> = policy
            .syscalls
            .iter()
            .filter(|rule| rule.action == Action::Allow && rule.args.is_empty())
            .flat_map(|rule| rule.names.iter().filter_map(|name| number(native, name)))
            .collect();
        let newest = policy
            .syscalls
            .iter()
            .flat_map(|rule| rule.names.iter().filter_map(|name| number(native, name)))
            .max()
            .unwrap();
        let special = ["socket", "personality", "clone", "clone3"].map(|name| number(native, name));
        for number in (0..1000).chain([X32_BIT - 1]) {
            if special.contains(&Some(number)) {
                continue;
            }
            let call = Call { number, arch: audit_arch(native).unwrap(), args: [0; 6] };
            let expected = if allowed.contains(&number) {
                ALLOW
            } else if number > newest {
                ENOSYS
            } else {
                EPERM
            };
            assert_eq!(run(&program, call).0, expected, "{native:?} {number}");
        }
    }
}

#[test]
fn the_default_is_short_and_quick() {
    let program = default_program(&[], Arch::X86_64);
    assert!(program.len() / INSTRUCTION_SIZE < 1200, "{}", program.len() / INSTRUCTION_SIZE);
    for name in ["read", "write", "futex", "openat", "getpid", "epoll_pwait2"] {
        let (_, steps) = run(&program, call(Arch::X86_64, name, &[]));
        assert!(steps <= 14, "{name}: {steps}");
    }
}

#[test]
fn comparisons_are_of_64_bits_unsigned() {
    let interesting = [
        0_u64,
        1,
        2,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX,
    ];
    for op in OPERATORS {
        for value in interesting {
            for value_two in [0, 1, 0x1_0000_0000] {
                let arg = SeccompArg { index: 2, value, value_two, op };
                let policy = refusing(vec![rule("read", Action::Allow, &[arg])]);
                let program = compile(&policy, Arch::X86_64).unwrap();
                for given in interesting {
                    let holds = match op {
                        Operator::NotEqual => given != value,
                        Operator::LessThan => given < value,
                        Operator::LessEqual => given <= value,
                        Operator::Equal => given == value,
                        Operator::GreaterEqual => given >= value,
                        Operator::GreaterThan => given > value,
                        Operator::MaskedEqual => given & value == value_two,
                    };
                    let expected = if holds { ALLOW } else { EPERM };
                    let got = answer(&program, Arch::X86_64, "read", &[0, 0, given]);
                    assert_eq!(got, expected, "{given:#x} {op:?} {value:#x} {value_two:#x}");
                }
            }
        }
    }
}

#[test]
fn rules_are_joined_as_runc_joins_them() {
    let equal = |index, value| SeccompArg { index, value, value_two: 0, op: Operator::Equal };
    let policy = refusing(vec![
        rule("read", Action::Allow, &[equal(0, 1), equal(1, 2)]),
        rule("read", Action::Log, &[equal(0, 3)]),
        rule("write", Action::Allow, &[equal(0, 1), equal(0, 2)]),
        rule("close", Action::Errno, &[equal(0, 1)]),
        rule("close", Action::Allow, &[]),
        rule("nosuch", Action::Allow, &[]),
    ]);
    let program = compile(&policy, Arch::X86_64).unwrap();
    let answer = |name, args: &[u64]| answer(&program, Arch::X86_64, name, args);
    assert_eq!(answer("read", &[1, 2]), ALLOW);
    assert_eq!(answer("read", &[1, 3]), EPERM);
    assert_eq!(answer("read", &[3, 2]), 0x7ffc_0000);
    assert_eq!(answer("write", &[1]), ALLOW);
    assert_eq!(answer("write", &[2]), ALLOW);
    assert_eq!(answer("write", &[3]), EPERM);
    assert_eq!(answer("close", &[1]), ALLOW);
}

#[test]
fn actions_are_the_kernels() {
    for (action, errno, expected) in [
        (Action::Kill, None, 0),
        (Action::KillThread, None, 0),
        (Action::KillProcess, None, 0x8000_0000),
        (Action::Trap, None, 0x0003_0000),
        (Action::Errno, None, EPERM),
        (Action::Errno, Some(38), ENOSYS),
        (Action::Trace, Some(7), 0x7ff0_0007),
        (Action::Log, None, 0x7ffc_0000),
        (Action::Notify, None, 0x7fc0_0000),
    ] {
        let policy = Seccomp {
            default_action: Action::Allow,
            syscalls: vec![SeccompSyscall { errno_ret: errno, ..rule("read", action, &[]) }],
            ..Seccomp::default()
        };
        let program = compile(&policy, Arch::X86_64).unwrap();
        assert_eq!(answer(&program, Arch::X86_64, "read", &[]), expected, "{action:?}");
        assert_eq!(answer(&program, Arch::X86_64, "write", &[]), ALLOW);
        let beyond = Call { number: 100_000, ..call(Arch::X86_64, "write", &[]) };
        assert_eq!(run(&program, beyond).0, ALLOW);
    }
}

#[test]
fn long_jumps_arrive() {
    // Every second system call has rules of its own, so that the program is long.
    let args = |value| {
        (0..6)
            .map(|index| SeccompArg { index, value, value_two: 0, op: Operator::GreaterEqual })
            .collect::<Vec<_>>()
    };
    let names: Vec<&str> = (0..80)
        .step_by(2)
        .filter_map(|number| syscalls::x86_64::Sysno::new(number).map(|sysno| sysno.name()))
        .collect();
    let rules = names.iter().zip(1..).map(|(name, at)| rule(name, Action::Allow, &args(at << 33)));
    let program = compile(&refusing(rules.collect()), Arch::X86_64).unwrap();
    assert!(program.len() / INSTRUCTION_SIZE > 1000);
    for (name, at) in names.iter().zip(1_u64..) {
        assert_eq!(answer(&program, Arch::X86_64, name, &[at << 33; 6]), ALLOW, "{name}");
        assert_eq!(answer(&program, Arch::X86_64, name, &[(at << 33) - 1; 6]), EPERM, "{name}");
    }
    assert_eq!(answer(&program, Arch::X86_64, "write", &[u64::MAX; 6]), EPERM);
}

#[test]
fn what_cannot_be_compiled_is_refused() {
    let arg = SeccompArg { index: 6, ..SeccompArg::default() };
    let policy = refusing(vec![rule("read", Action::Allow, &[arg])]);
    assert!(matches!(compile(&policy, Arch::X86_64), Err(Error::ArgumentIndex { index: 6, .. })));
    let policy = Seccomp { default_errno_ret: Some(70_000), ..refusing(Vec::new()) };
    assert!(matches!(compile(&policy, Arch::X86_64), Err(Error::ErrorNumber(70_000))));
    assert!(matches!(compile(&refusing(Vec::new()), Arch::S390X), Err(Error::UnsupportedArch(_))));
    let policy = Seccomp { flags: vec!["X".to_owned()], ..Seccomp::default() };
    assert!(matches!(flags(&policy), Err(Error::Flag(_))));
}

#[test]
fn profiles_are_read_as_docker_reads_them() {
    let json = br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":null,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                   {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
        "syscalls":[
          {"name":"chmod","action":"SCMP_ACT_ERRNO","args":null,"includes":null},
          {"names":["mount"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["bpf"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["acct"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"99.0"}},
          {"names":["sync"],"action":"SCMP_ACT_ERRNO","includes":{"arches":["s390x"]}}]}"#;
    let profile = Profile::from_slice(json).unwrap();
    let names = |capabilities: &[String]| -> Vec<String> {
        let policy = profile.policy(target(capabilities)).unwrap();
        policy.syscalls.into_iter().flat_map(|rule| rule.names).collect()
    };
    assert_eq!(names(&[]), ["chmod", "mount"]);
    assert_eq!(names(&["CAP_SYS_ADMIN".to_owned()]), ["chmod", "bpf"]);
    let both = br#"{"syscalls":[{"name":"a","names":["b"]}]}"#;
    let both = Profile::from_slice(both).unwrap().policy(target(&[]));
    assert!(matches!(both, Err(ProfileError::NamesTwice)));
    let invalid = br#"{"syscalls":[{"includes":{"minKernel":"5"}}]}"#;
    assert!(matches!(Profile::from_slice(invalid), Err(ProfileError::Json(_))));
}

#[test]
fn programs_are_compiled_once() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("seccomp");
    let policy = refusing(vec![rule("read", Action::Allow, &[])]);
    let path = cache(&directory, &policy).unwrap();
    assert_eq!(fs::read(&path).unwrap(), compile(&policy, native()).unwrap());
    let made = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(cache(&directory, &policy).unwrap(), path);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
    fs::write(&path, [0; 7]).unwrap();
    cache(&directory, &policy).unwrap();
    assert_eq!(fs::read(&path).unwrap(), compile(&policy, native()).unwrap());
    let other = refusing(vec![rule("write", Action::Allow, &[])]);
    assert_ne!(cache(&directory, &other).unwrap(), path);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
}

/// The kernel takes the program and does what it says.
#[test]
fn the_kernel_enforces_it() {
    let capabilities = ["CAP_CHOWN".to_owned()];
    let policy = default::profile().policy(target(&capabilities)).unwrap();
    let program = compile(&policy, native()).unwrap();
    // A filter is its thread's alone, and gone with it.
    let results = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        ponton_sys::seccomp::Filter::from_bytes(&program).unwrap().load(0).unwrap();
        let socket = |family| {
            rustix::net::socket(
                rustix::net::AddressFamily::from_raw(family),
                rustix::net::SocketType::STREAM,
                None,
            )
            .map(drop)
        };
        let hostname = rustix::system::sethostname(b"never");
        (socket(1), socket(40), hostname, fs::read("/proc/self/status").is_ok())
    })
    .join()
    .unwrap();
    let refused = Err(rustix::io::Errno::PERM);
    assert_eq!(results, (Ok(()), refused, refused, true));
}
