//! The file that the calling process executes, exchanged while it runs.
#![allow(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{Elf64_Phdr, c_void};

use crate::{Error, Result};

/// Makes `file` the file that the calling process executes, in place of the one that it was started
/// from: what `/proc/self/exe` leads to, and what its code is mapped from (prctl(2), `PR_SET_MM_MAP`).
/// The kernel refuses as long as any part of the old file is mapped.
///
/// `file` must have the very same content, open for reading: another mount of the same file, say. The
/// calling process must have one thread, and `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE` in its user
/// namespace. On an error it still executes the old file.
pub fn exchange(file: BorrowedFd<'_>) -> Result<()> {
    let failed = |what: &str, error: std::io::Error| Error::new("exchange", what, error);
    let mut map = MemoryMap::of_self().map_err(|error| failed("what /proc/self/stat tells", error))?;
    let program = Program::of_self().map_err(|error| failed("the program's own headers", error))?;
    program.map_again(file).map_err(|error| failed("what is mapped of the program", error))?;
    map.executable = file.as_raw_fd() as u32;
    // SAFETY: `map` lives during the call and its size is passed; the addresses in it are those that
    // the process has, and the kernel checks them.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP as libc::c_ulong,
            ptr::from_ref(&map),
            size_of::<MemoryMap>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(failed("the executed file", std::io::Error::last_os_error())) }
}

/// `struct prctl_mm_map` (linux/prctl.h).
#[repr(C)]
#[derive(Default)]
struct MemoryMap {
    code: [u64; 2],
    data: [u64; 2],
    /// Where the heap begins and ends.
    brk: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    auxiliary: u64,
    auxiliary_size: u32,
    executable: u32,
}

impl MemoryMap {
    /// What the process has now (proc_pid_stat(5), from field 26 on).
    fn of_self() -> std::io::Result<Self> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let stat = crate::file::read("/proc/self/stat")?;
        let stat = str::from_utf8(&stat).map_err(|_| invalid())?;
        // The name in parentheses may contain anything; the state after it is field 3.
        let (_, fields) = stat.rsplit_once(") ").ok_or_else(invalid)?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| -> std::io::Result<u64> {
            fields.get(number - 3).and_then(|field| field.parse().ok()).ok_or_else(invalid)
        };
        // SAFETY: no memory is passed; 0 is no place for the heap's end: it stays where it is.
        let brk = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
        Ok(Self {
            code: [field(26)?, field(27)?],
            data: [field(45)?, field(46)?],
            brk: [field(47)?, brk],
            stack: field(28)?,
            arguments: [field(48)?, field(49)?],
            environment: [field(50)?, field(51)?],
            ..Self::default()
        })
    }
}

/// The program in memory: its headers, and what has to be added to their addresses.
struct Program<'a> {
    headers: &'a [Elf64_Phdr],
    base: usize,
}

/// The kernel maps whole pages.
const PAGE: usize = 4096;

impl Program<'static> {
    fn of_self() -> std::io::Result<Self> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        // SAFETY: the kernel says where the headers of the program are and how many; they are mapped as
        // long as it runs, and nobody writes to them.
        let headers = unsafe {
            let address = libc::getauxval(libc::AT_PHDR) as *const Elf64_Phdr;
            let count = libc::getauxval(libc::AT_PHNUM) as usize;
            if address.is_null()
                || libc::getauxval(libc::AT_PHENT) as usize != size_of::<Elf64_Phdr>()
                || libc::getauxval(libc::AT_PAGESZ) as usize != PAGE
            {
                return Err(invalid());
            }
            std::slice::from_raw_parts(address, count)
        };
        let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR).ok_or_else(invalid)?;
        let base = (headers.as_ptr() as usize).wrapping_sub(own.p_vaddr as usize);
        Ok(Self { headers, base })
    }

    /// The pages that a part of the file is mapped to: where they begin, and their length.
    fn place(&self, header: &Elf64_Phdr) -> (usize, usize) {
        let begin = self.base.wrapping_add(header.p_vaddr as usize) & !(PAGE - 1);
        let end = self.base.wrapping_add((header.p_vaddr + header.p_filesz) as usize);
        (begin, end.next_multiple_of(PAGE) - begin)
    }

    /// Maps all that is mapped of the program's file from `file`, and what was written to since from
    /// no file at all.
    fn map_again(&self, file: BorrowedFd<'_>) -> std::io::Result<()> {
        let loaded = self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let loaded: Vec<_> = loaded.map(|header| (header, self.place(header))).collect();
        // No page is of two parts, of which one would undo the other.
        let is_shared = |pair: &[(_, (usize, usize))]| match pair {
            [(_, (begin, length)), (_, (next, _))] => begin + length > *next,
            _ => false,
        };
        if loaded.windows(2).any(is_shared) {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        for (header, (begin, length)) in loaded {
            if header.p_flags & libc::PF_W == 0 {
                let offset = header.p_offset as usize & !(PAGE - 1);
                map_file(begin, length, header.p_flags, file, offset)?;
            } else if length > 0 {
                copy(begin, length)?;
            }
        }
        // What the loader has made read-only once all addresses were in it.
        for header in self.headers.iter().filter(|header| header.p_type == libc::PT_GNU_RELRO) {
            let begin = self.base.wrapping_add(header.p_vaddr as usize) & !(PAGE - 1);
            let end = self.base.wrapping_add((header.p_vaddr + header.p_memsz) as usize) & !(PAGE - 1);
            // SAFETY: it was read-only already before it was copied.
            if unsafe { libc::mprotect(begin as *mut c_void, end - begin, libc::PROT_READ) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

fn map_file(
    begin: usize,
    length: usize,
    flags: u32,
    file: BorrowedFd<'_>,
    offset: usize,
) -> std::io::Result<()> {
    let readable = if flags & libc::PF_R == 0 { 0 } else { libc::PROT_READ };
    let executable = if flags & libc::PF_X == 0 { 0 } else { libc::PROT_EXEC };
    // SAFETY: the same bytes with the same rights take the place of what is there, in one step: the
    // code that runs and the constants that are pointed to stay what they are.
    let mapped = unsafe {
        libc::mmap(
            begin as *mut c_void,
            length,
            readable | executable,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            file.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    if mapped == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts a copy that is of no file in the place of memory.
fn copy(begin: usize, length: usize) -> std::io::Result<()> {
    // SAFETY: new memory is asked for. All of it is filled with what is at `begin`, which can be read,
    // and then takes its place. There is one thread, and nothing of what it does between the copy and
    // the move writes to a static of the program: errno, of a thread, is elsewhere, and written on
    // errors only.
    unsafe {
        let new = libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        );
        if new == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        ptr::copy_nonoverlapping(begin as *const u8, new.cast::<u8>(), length);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        if libc::mremap(new, length, length, flags, begin as *mut c_void) == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
