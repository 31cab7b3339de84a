//! Numbers of system calls and architectures.

use std::str::FromStr as _;

use ponton_oci::runtime::Arch;
use syscalls::{aarch64, arm, x86, x86_64};

/// This bit is set in the numbers of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// System calls that x32 has under other numbers than x86_64.
const X32: [(&str, u32); 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// The architecture that this program was built for.
pub fn native() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 }
}

/// The architectures whose programs also run on a machine of this one.
pub(super) fn relatives(native: Arch) -> &'static [Arch] {
    match native {
        Arch::X86_64 => &[Arch::X86, Arch::X32],
        Arch::Aarch64 => &[Arch::Arm],
        _ => &[],
    }
}

/// What the kernel calls the architecture in `struct seccomp_data` (`AUDIT_ARCH_*`).
pub(super) fn audit_arch(arch: Arch) -> Option<u32> {
    match arch {
        Arch::X86_64 | Arch::X32 => Some(0xc000_003e),
        Arch::X86 => Some(0x4000_0003),
        Arch::Aarch64 => Some(0xc000_00b7),
        Arch::Arm => Some(0x4000_0028),
        _ => None,
    }
}

/// Whether arguments have 32 bits.
pub(super) fn is_32_bit(arch: Arch) -> bool {
    matches!(arch, Arch::X86 | Arch::Arm)
}

/// The number of a system call, if the architecture has it.
pub(super) fn number(arch: Arch, name: &str) -> Option<u32> {
    let number = match arch {
        Arch::X86_64 => x86_64::Sysno::from_str(name).ok().map(|sysno| sysno.id()),
        Arch::X86 => x86::Sysno::from_str(name).ok().map(|sysno| sysno.id()),
        Arch::Aarch64 => {
            // The table has the name of the generic header, everyone else that of the manual.
            let name = if name == "newfstatat" { "fstatat" } else { name };
            aarch64::Sysno::from_str(name).ok().map(|sysno| sysno.id())
        }
        Arch::Arm => match name {
            // ARM's own, which have no place in the common table.
            "breakpoint" => Some(0xf_0001),
            "cacheflush" => Some(0xf_0002),
            "usr26" => Some(0xf_0003),
            "usr32" => Some(0xf_0004),
            "set_tls" => Some(0xf_0005),
            _ => arm::Sysno::from_str(name).ok().map(|sysno| sysno.id()),
        },
        Arch::X32 => {
            let own = X32.iter().find(|(own, _)| *own == name).map(|(_, number)| *number);
            let shared = || number(Arch::X86_64, name);
            return own.or_else(shared).map(|number| number | X32_BIT);
        }
        _ => None,
    };
    number.and_then(|number| u32::try_from(number).ok())
}
