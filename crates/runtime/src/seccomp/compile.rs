//! From a policy to a program of classic BPF (seccomp(2), the kernel's
//! Documentation/networking/filter.rst).
//!
//! A program first finds the architecture, then the system call by binary search over ranges of
//! numbers with the same answer, and looks at arguments only where a rule asks for that. It is put
//! together from its end to its beginning, because jumps go forward only: whoever jumps knows how
//! far.

use std::collections::BTreeMap;

use ponton_oci::runtime::{Action, Arch, Operator, Seccomp, SeccompArg, SeccompSyscall};

use super::arch::{self, X32_BIT};
use super::{Error, INSTRUCTION_SIZE, INSTRUCTIONS_MAX};

/// `struct seccomp_data`: where the number, the architecture and the first argument are.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Compiles a policy for a machine of this architecture, to `struct sock_filter`s as they are in
/// its memory.
///
/// As with libseccomp under runc:
/// - names that an architecture does not have, and architectures that the machine cannot run, are
///   passed over; the machine's own one is always there;
/// - of the rules for one system call, one without arguments wins; else the first that holds;
/// - comparisons of one rule must all hold, except where two are of the same argument: then each
///   comparison is a rule of its own;
/// - a call by an architecture that the policy does not name kills the thread;
/// - a system call newer than all that the policy names gets ENOSYS where the default is a refusal,
///   so that programs fall back to older ones.
pub fn compile(policy: &Seccomp, native: Arch) -> Result<Vec<u8>, Error> {
    let default = verdict(policy.default_action, policy.default_errno_ret)?;
    if let Some(index) = policy.syscalls.iter().position(|rule| rule.names.is_empty()) {
        return Err(Error::NoNames(index));
    }
    let Some(native_audit) = arch::audit_arch(native) else {
        return Err(Error::UnsupportedArch(native));
    };
    let tables = |arch| Table::new(policy, arch, default);
    let mut program = Program::default();

    let mut search = program.table(&tables(native)?);
    if native == Arch::X86_64 {
        let has_x32 = policy.architectures.contains(&Arch::X32);
        let x32 = if has_x32 { program.table(&tables(Arch::X32)?) } else { program.verdict(KILL_THREAD) };
        // -1 is what a tracer writes to skip a call; it is no number of x32.
        let high = program.branch(JUMP_EQUAL, u32::MAX, search, x32);
        search = program.branch(JUMP_GREATER_EQUAL, X32_BIT, high, search);
    }
    let mut entries = vec![(native_audit, program.load(NUMBER, search))];
    for &relative in arch::relatives(native) {
        if relative == Arch::X32 || !policy.architectures.contains(&relative) {
            continue;
        }
        if let Some(audit) = arch::audit_arch(relative) {
            let search = program.table(&tables(relative)?);
            entries.push((audit, program.load(NUMBER, search)));
        }
    }
    let mut next = program.verdict(KILL_THREAD);
    for (audit, entry) in entries.into_iter().rev() {
        next = program.branch(JUMP_EQUAL, audit, entry, next);
    }
    program.load(ARCH, next);
    program.into_bytes()
}

/// The kernel's return value of an action.
fn verdict(action: Action, errno: Option<u32>) -> Result<u32, Error> {
    if let (Some(errno), false) = (errno, matches!(action, Action::Errno | Action::Trace)) {
        return Err(Error::ErrorNumberUnused { action, errno });
    }
    let data = errno.unwrap_or(EPERM);
    if data > 0xffff {
        return Err(Error::ErrorNumber(data));
    }
    Ok(match action {
        Action::Kill | Action::KillThread => KILL_THREAD,
        Action::KillProcess => KILL_PROCESS,
        Action::Trap => TRAP,
        Action::Errno => ERRNO | data,
        Action::Trace => TRACE | data,
        Action::Allow => ALLOW,
        Action::Log => LOG,
        Action::Notify => NOTIFY,
    })
}

/// What is done with one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Verdict(u32),
    /// The first rule whose comparisons all hold, else the default.
    Rules(Vec<(Vec<SeccompArg>, u32)>),
}

/// The answers of one architecture: the last whose number is not above the call's.
struct Table {
    ranges: Vec<(u32, Answer)>,
    default: u32,
    is_32_bit: bool,
}

impl Table {
    fn new(policy: &Seccomp, arch: Arch, default: u32) -> Result<Self, Error> {
        let mut answers: BTreeMap<u32, Answer> = BTreeMap::new();
        for rule in &policy.syscalls {
            let verdict = verdict(rule.action, rule.errno_ret)?;
            for name in &rule.names {
                check_arguments(rule, name)?;
                if let Some(number) = arch::number(arch, name) {
                    add_rule(&mut answers, number, rule, verdict);
                }
            }
        }
        let newest = answers.keys().next_back().copied();
        let mut ranges = vec![(0, Answer::Verdict(default))];
        for (number, answer) in answers {
            push_range(&mut ranges, number, answer);
            push_range(&mut ranges, number + 1, Answer::Verdict(default));
        }
        let refuses =
            !matches!(policy.default_action, Action::Allow | Action::Log | Action::Trace | Action::Notify);
        if let (true, Some(newest)) = (refuses, newest) {
            push_range(&mut ranges, newest + 1, Answer::Verdict(ERRNO | ENOSYS));
        }
        Ok(Self { ranges, default, is_32_bit: arch::is_32_bit(arch) })
    }
}

fn check_arguments(rule: &SeccompSyscall, name: &str) -> Result<(), Error> {
    match rule.args.iter().find(|arg| arg.index > 5) {
        Some(arg) => Err(Error::ArgumentIndex { syscall: name.to_owned(), index: arg.index }),
        None => Ok(()),
    }
}

fn add_rule(answers: &mut BTreeMap<u32, Answer>, number: u32, rule: &SeccompSyscall, verdict: u32) {
    if rule.args.is_empty() {
        if !matches!(answers.get(&number), Some(Answer::Verdict(_))) {
            answers.insert(number, Answer::Verdict(verdict));
        }
        return;
    }
    let answer = answers.entry(number).or_insert_with(|| Answer::Rules(Vec::new()));
    let Answer::Rules(rules) = answer else { return };
    let repeats =
        (1..rule.args.len()).any(|at| rule.args[..at].iter().any(|arg| arg.index == rule.args[at].index));
    if repeats {
        rules.extend(rule.args.iter().map(|arg| (vec![*arg], verdict)));
    } else {
        rules.push((rule.args.clone(), verdict));
    }
}

/// Begins a range at a number, instead of one that begins there already.
fn push_range(ranges: &mut Vec<(u32, Answer)>, start: u32, answer: Answer) {
    if ranges.last().is_some_and(|(last, _)| *last == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, last)| *last != answer) {
        ranges.push((start, answer));
    }
}

#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// An instruction's place, counted from the program's end.
#[derive(Clone, Copy)]
struct Place(usize);

/// A program, the last instruction first.
#[derive(Default)]
struct Program {
    reversed: Vec<Instruction>,
    verdicts: BTreeMap<u32, Place>,
}

impl Program {
    /// A conditional jump cannot skip more than 255; what comes between choosing a place and the
    /// jump to it is less than the rest.
    const NEAR: usize = 240;

    fn push(&mut self, code: u16, if_true: u8, if_false: u8, value: u32) -> Place {
        self.reversed.push(Instruction { code, if_true, if_false, value });
        Place(self.reversed.len() - 1)
    }

    /// How many instructions the next one to be put before the others skips to get there.
    fn distance(&self, to: Place) -> usize {
        self.reversed.len() - 1 - to.0
    }

    /// A place with the same effect that a conditional jump reaches.
    fn near(&mut self, to: Place) -> Place {
        let distance = self.distance(to);
        if distance <= Self::NEAR {
            return to;
        }
        let Instruction { code, value, .. } = self.reversed[to.0];
        if code == RETURN { self.push(RETURN, 0, 0, value) } else { self.push(JUMP, 0, 0, distance as u32) }
    }

    fn verdict(&mut self, value: u32) -> Place {
        if let Some(&place) = self.verdicts.get(&value)
            && self.distance(place) <= Self::NEAR / 2
        {
            return place;
        }
        let place = self.push(RETURN, 0, 0, value);
        self.verdicts.insert(value, place);
        place
    }

    /// Compares what was loaded with a value.
    fn branch(&mut self, code: u16, value: u32, if_true: Place, if_false: Place) -> Place {
        let if_true = self.near(if_true);
        let if_false = self.near(if_false);
        let (if_true, if_false) = (self.distance(if_true) as u8, self.distance(if_false) as u8);
        self.push(code, if_true, if_false, value)
    }

    /// Loads 32 bits of `struct seccomp_data`, and goes on at `next`.
    fn load(&mut self, offset: u32, next: Place) -> Place {
        self.fall_through(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Takes care that the instruction put before the others goes on at `next`.
    fn fall_through(&mut self, next: Place) {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    /// Searches the number that was loaded.
    fn table(&mut self, table: &Table) -> Place {
        self.search(table, &table.ranges)
    }

    fn search(&mut self, table: &Table, ranges: &[(u32, Answer)]) -> Place {
        match ranges {
            [] => self.verdict(table.default),
            [(_, Answer::Verdict(value))] => self.verdict(*value),
            [(_, Answer::Rules(rules))] => self.rules(table, rules),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high[0].0;
                let high = self.search(table, high);
                let low = self.search(table, low);
                self.branch(JUMP_GREATER_EQUAL, start, high, low)
            }
        }
    }

    fn rules(&mut self, table: &Table, rules: &[(Vec<SeccompArg>, u32)]) -> Place {
        let mut otherwise = self.verdict(table.default);
        for (comparisons, value) in rules.iter().rev() {
            let mut holds = self.verdict(*value);
            for comparison in comparisons.iter().rev() {
                holds = self.comparison(*comparison, table.is_32_bit, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    /// Compares an argument, as two halves because BPF's words have 32 bits.
    fn comparison(&mut self, arg: SeccompArg, is_32_bit: bool, holds: Place, fails: Place) -> Place {
        let offset = ARGUMENTS + 8 * arg.index;
        let (mask, value) = match arg.op {
            Operator::MaskedEqual => (arg.value, arg.value_two),
            _ => (u64::MAX, arg.value),
        };
        // Where the comparison is of the opposite, the outcomes change places.
        let (code, if_true, if_false) = match arg.op {
            Operator::Equal | Operator::MaskedEqual => (JUMP_EQUAL, holds, fails),
            Operator::NotEqual => (JUMP_EQUAL, fails, holds),
            Operator::GreaterThan => (JUMP_GREATER, holds, fails),
            Operator::LessEqual => (JUMP_GREATER, fails, holds),
            Operator::GreaterEqual => (JUMP_GREATER_EQUAL, holds, fails),
            Operator::LessThan => (JUMP_GREATER_EQUAL, fails, holds),
        };
        let low = self.branch(code, value as u32, if_true, if_false);
        let low = self.mask(mask as u32, low);
        let low = self.load(offset, low);
        let (mask, value) = ((mask >> 32) as u32, (value >> 32) as u32);
        if is_32_bit || (mask == 0 && value == 0) {
            return low;
        }
        let mut high = self.branch(JUMP_EQUAL, value, low, if_false);
        if code != JUMP_EQUAL {
            high = self.branch(JUMP_GREATER, value, if_true, high);
        }
        let high = self.mask(mask, high);
        self.load(offset + 4, high)
    }

    fn mask(&mut self, mask: u32, next: Place) -> Place {
        if mask == u32::MAX {
            return next;
        }
        self.fall_through(next);
        self.push(AND, 0, 0, mask)
    }

    fn into_bytes(self) -> Result<Vec<u8>, Error> {
        if self.reversed.len() > INSTRUCTIONS_MAX {
            return Err(Error::TooLong(self.reversed.len()));
        }
        let mut bytes = Vec::with_capacity(self.reversed.len() * INSTRUCTION_SIZE);
        for instruction in self.reversed.iter().rev() {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.if_true, instruction.if_false]);
            bytes.extend(instruction.value.to_ne_bytes());
        }
        Ok(bytes)
    }
}
