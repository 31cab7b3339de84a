//! Device rules on v2: a program that the kernel asks (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! It answers as the list of v1 does: of the rules that match the last one decides, and everything
//! is allowed at first.

use std::os::fd::AsFd;
use std::path::Path;

use ponton_oci::runtime::{DeviceRule, DeviceType};
use ponton_sys::bpf::{self, Instruction};
use ponton_sys::{Error, Result};
use rustix::fs::{Mode, OFlags};

/// Lets only the devices that `rules` allow be used in the group `directory`.
pub(crate) fn attach(directory: &Path, rules: &[DeviceRule]) -> Result<()> {
    let program = bpf::load_device_program(&compile(rules))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group =
        rustix::fs::open(directory, flags, Mode::empty()).map_err(Error::of("open", directory.display()))?;
    bpf::attach_device_program(program.as_fd(), group.as_fd())
}

/// Registers: the answer, what the kernel asks about, and a scratch register.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 1;

/// linux/bpf.h: `BPF_DEVCG_DEV_*` and `BPF_DEVCG_ACC_*`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

fn load(to: u8, offset: i16) -> Instruction {
    instruction(0x61, to, CONTEXT, offset, 0)
}

fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

fn and(to: u8, bits: i32) -> Instruction {
    instruction(0x57, to, 0, 0, bits)
}

fn shift_right(to: u8, bits: i32) -> Instruction {
    instruction(0x77, to, 0, 0, bits)
}

/// 32-bit compares; their jumps are filled in by [`compile_rule`].
fn unless_equal(register: u8, value: i32) -> Instruction {
    instruction(0x56, register, 0, 0, value)
}

fn if_equal(register: u8, value: i32) -> Instruction {
    instruction(0x16, register, 0, 0, value)
}

fn unless_same(one: u8, other: u8) -> Instruction {
    instruction(0x5e, one, other, 0, 0)
}

fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(0xb7, ANSWER, 0, 0, i32::from(allow)), instruction(0x95, 0, 0, 0, 0)]
}

fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { access_type, major, minor }; the access is in its upper half.
    let mut program = vec![
        load(TYPE, 0),
        load(MAJOR, 4),
        load(MINOR, 8),
        copy(ACCESS, TYPE),
        shift_right(ACCESS, 16),
        and(TYPE, 0xffff),
    ];
    for rule in rules.iter().rev() {
        let code = compile_rule(rule);
        let decides_all = !code.iter().any(|instruction| is_jump(*instruction));
        program.extend(code);
        // The kernel refuses code that cannot be reached.
        if decides_all {
            return program;
        }
    }
    program.extend(answer(true));
    program
}

fn is_jump(instruction: Instruction) -> bool {
    matches!(instruction.code, 0x56 | 0x16 | 0x5e)
}

/// Compares that each jump past the rule, then its answer.
fn compile_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let mut code = Vec::new();
    match rule.r#type {
        DeviceType::B => code.push(unless_equal(TYPE, BLOCK)),
        DeviceType::C | DeviceType::U => code.push(unless_equal(TYPE, CHARACTER)),
        DeviceType::A | DeviceType::P => {}
    }
    let access = access_bits(&rule.access);
    if access != MKNOD | READ | WRITE {
        code.extend([copy(SCRATCH, ACCESS), and(SCRATCH, access)]);
        // All that is asked for must be allowed; any of it may be denied.
        code.push(if rule.allow { unless_same(SCRATCH, ACCESS) } else { if_equal(SCRATCH, 0) });
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number.filter(|number| *number >= 0) {
            code.push(unless_equal(register, number as i32));
        }
    }
    code.extend(answer(rule.allow));
    let length = code.len();
    for (index, instruction) in code.iter_mut().enumerate() {
        if is_jump(*instruction) {
            instruction.offset = (length - index - 1) as i16;
        }
    }
    code
}

fn access_bits(access: &str) -> i32 {
    let bit = |character| match character {
        'm' => MKNOD,
        'r' => READ,
        'w' => WRITE,
        _ => 0,
    };
    let bits = access.chars().map(bit).fold(0, |bits, bit| bits | bit);
    if bits == 0 { MKNOD | READ | WRITE } else { bits }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use ponton_sys::clone::{Clone, clone3};
    use ponton_sys::{pidfd, process};

    use super::*;
    use crate::layout::{Layout, Version};

    fn rule(allow: bool, minor: Option<i64>, access: &str) -> DeviceRule {
        let (r#type, major) = if minor.is_some() { (DeviceType::C, Some(1)) } else { (DeviceType::A, None) };
        DeviceRule { allow, r#type, major, minor, access: access.into() }
    }

    /// Which of /dev/null for reading, /dev/null for writing and /dev/zero for reading can be opened
    /// by a process in a v2 group with these rules.
    fn opened_under(rules: &[DeviceRule]) -> Option<i32> {
        let table = fs::read_to_string("/proc/mounts").unwrap();
        let mount = table.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (mount, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup2").then(|| mount.to_owned())
        })?;
        let directory = Path::new(&mount).join(format!("ponton-test-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        attach(&directory, rules).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let group = rustix::fs::open(&directory, flags, Mode::empty()).unwrap();
        let exit = match clone3(0, Some(group.as_fd())).unwrap() {
            Clone::Child => {
                let can = |path: &std::ffi::CStr, flags| rustix::fs::open(path, flags, Mode::empty()).is_ok();
                let answers = [
                    can(c"/dev/null", OFlags::RDONLY),
                    can(c"/dev/null", OFlags::WRONLY),
                    can(c"/dev/zero", OFlags::RDONLY),
                ];
                process::exit_now(answers.iter().fold(0, |code, answer| code << 1 | i32::from(*answer)))
            }
            Clone::Parent { pidfd, .. } => pidfd::wait(pidfd.as_fd()).unwrap(),
        };
        fs::remove_dir(&directory).unwrap();
        Some(exit.code())
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let layout = Layout::detect().unwrap();
        let has_v2 = layout.hierarchies.iter().any(|hierarchy| hierarchy.version == Version::V2);
        let deny_all = rule(false, None, "rwm");
        let cases = [
            (vec![], 0b111),
            (vec![deny_all.clone()], 0b000),
            (vec![deny_all.clone(), rule(true, Some(3), "rwm")], 0b110),
            (vec![deny_all.clone(), rule(true, Some(3), "r")], 0b100),
            (vec![rule(false, Some(3), "w")], 0b101),
            (vec![rule(true, Some(3), "rwm"), deny_all], 0b000),
        ];
        for (rules, expected) in cases {
            let answer = opened_under(&rules);
            assert!(answer == Some(expected) || (answer.is_none() && !has_v2), "{rules:?}: {answer:?}");
        }
    }
}
