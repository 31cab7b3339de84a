//! The kernel's side in tests: classic BPF over `struct seccomp_data`.

/// What the kernel gives to a filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) arch: u32,
    pub(crate) args: [u64; 6],
}

/// Runs a program; says what it returned and how many instructions that took.
///
/// Panics where the kernel's checker would refuse the program.
pub(crate) fn run(program: &[u8], call: Call) -> (u32, usize) {
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&call.number.to_le_bytes());
    data[4..8].copy_from_slice(&call.arch.to_le_bytes());
    for (at, arg) in call.args.iter().enumerate() {
        data[16 + 8 * at..24 + 8 * at].copy_from_slice(&arg.to_le_bytes());
    }
    let (instructions, rest) = program.as_chunks::<8>();
    assert!(rest.is_empty() && instructions.len() <= 4096);
    let (mut at, mut steps, mut accumulator) = (0, 0, 0_u32);
    loop {
        let [c0, c1, if_true, if_false, value @ ..] = instructions[at];
        let value = u32::from_le_bytes(value);
        steps += 1;
        at += 1;
        let jump = |holds| usize::from(if holds { if_true } else { if_false });
        match u16::from_le_bytes([c0, c1]) {
            0x06 => return (value, steps),
            0x20 => {
                let from = value as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => at += jump(accumulator == value),
            0x25 => at += jump(accumulator > value),
            0x35 => at += jump(accumulator >= value),
            other => panic!("instruction {other:#x}"),
        }
    }
}
