//! The loader that the kernel executes in the place of a program: it does what a table on its stack says, then jumps.
//!
//! Machine code that is never executed in this process. It runs without a stop: whatever it needs to know has been decided by
//! the builder. A step that changes its table or its code harms itself alone, since it does what any program may do.

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;

use super::abi::Abi;
use super::elf;

/// A table is an array of records of eight words. The first word of each says what it is.
const CALL: u64 = 0;
const TRY: u64 = 1;
const ZERO: u64 = 2;
const JUMP: u64 = 3;

/// Words of a record; how long a word is depends on the program.
pub const RECORD: usize = 8;

/// What the loader does, in order. The last one is `Jump`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A system call: its number on this machine (the program may have another one) and arguments. When it fails the program dies as by a bad address.
    Call(u64, [u64; 6]),
    /// As `Call`, but it may fail.
    Try(u64, [u64; 6]),
    Zero {
        address: u64,
        length: u64,
    },
    Jump {
        stack: u64,
        entry: u64,
    },
}

impl Step {
    /// The record as a program's loader reads it.
    pub fn bytes(&self, abi: Abi) -> Vec<u8> {
        let words = self.translated(abi).record();
        words.iter().flat_map(|word| word.to_le_bytes().into_iter().take(abi.word())).collect()
    }

    fn translated(&self, abi: Abi) -> Step {
        let number = |own: u64| u64::from(abi.number(own as libc::c_long));
        // On i386 the offset of a mapping is in pages.
        let arguments = |own: u64, mut arguments: [u64; 6]| {
            if abi == Abi::I386 && own == libc::SYS_mmap as u64 {
                arguments[5] >>= 12;
            }
            arguments
        };
        match *self {
            Step::Call(own, all) => Step::Call(number(own), arguments(own, all)),
            Step::Try(own, all) => Step::Try(number(own), arguments(own, all)),
            other => other,
        }
    }

    fn record(&self) -> [u64; RECORD] {
        match *self {
            Step::Call(number, [a, b, c, d, e, f]) => [CALL, number, a, b, c, d, e, f],
            Step::Try(number, [a, b, c, d, e, f]) => [TRY, number, a, b, c, d, e, f],
            Step::Zero { address, length } => [ZERO, address, length, 0, 0, 0, 0, 0],
            Step::Jump { stack, entry } => [JUMP, stack, entry, 0, 0, 0, 0, 0],
        }
    }
}

// The stack pointer is the table's address. A failure ends as the kernel ends a program that it cannot load any more, with
// SIGSEGV, and by an instruction: the system calls for it may be ones that wait for an answer.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .rodata.zuwai_loader, \"a\", @progbits",
    ".balign 16",
    "zuwai_loader_start:",
    "mov rbx, rsp",
    "2:",
    "mov rax, [rbx]",
    "cmp rax, 2",
    "je 4f",
    "ja 5f",
    "mov rax, [rbx + 8]",
    "mov rdi, [rbx + 16]",
    "mov rsi, [rbx + 24]",
    "mov rdx, [rbx + 32]",
    "mov r10, [rbx + 40]",
    "mov r8, [rbx + 48]",
    "mov r9, [rbx + 56]",
    "syscall",
    "cmp qword ptr [rbx], 0",
    "jne 3f",
    "cmp rax, -4095",
    "jae 6f",
    "3:",
    "add rbx, 64",
    "jmp 2b",
    "4:",
    "mov rdi, [rbx + 8]",
    "mov rcx, [rbx + 16]",
    "xor eax, eax",
    "rep stosb",
    "jmp 3b",
    "5:",
    "mov rsp, [rbx + 8]",
    "mov rax, [rbx + 16]",
    // Below the new stack, where the table ends.
    "mov [rsp - 8], rax",
    "xor eax, eax",
    "xor ebx, ebx",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor esi, esi",
    "xor edi, edi",
    "xor ebp, ebp",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "xor r12d, r12d",
    "xor r13d, r13d",
    "xor r14d, r14d",
    "xor r15d, r15d",
    "jmp qword ptr [rsp - 8]",
    "6:",
    "hlt",
    "zuwai_loader_end:",
    ".popsection",
);

// The same for i386, where every register but the stack's is an argument.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .rodata.zuwai_loader_i386, \"a\", @progbits",
    ".balign 16",
    ".code32",
    "zuwai_loader_i386_start:",
    "2:",
    "cmp dword ptr [esp], 2",
    "je 4f",
    "ja 5f",
    "mov eax, [esp + 4]",
    "mov ebx, [esp + 8]",
    "mov ecx, [esp + 12]",
    "mov edx, [esp + 16]",
    "mov esi, [esp + 20]",
    "mov edi, [esp + 24]",
    "mov ebp, [esp + 28]",
    "int 0x80",
    "cmp dword ptr [esp], 0",
    "jne 3f",
    "cmp eax, -4095",
    "jae 6f",
    "3:",
    "add esp, 32",
    "jmp 2b",
    "4:",
    "mov edi, [esp + 4]",
    "mov ecx, [esp + 8]",
    "xor eax, eax",
    "rep stosb",
    "jmp 3b",
    "5:",
    "mov eax, [esp + 8]",
    "mov esp, [esp + 4]",
    // Below the new stack, where the table ends.
    "mov [esp - 4], eax",
    "xor eax, eax",
    "xor ebx, ebx",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor esi, esi",
    "xor edi, edi",
    "xor ebp, ebp",
    "jmp dword ptr [esp - 4]",
    "6:",
    "hlt",
    "zuwai_loader_i386_end:",
    ".code64",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .rodata.zuwai_loader, \"a\", %progbits",
    ".balign 16",
    "zuwai_loader_start:",
    "mov x19, sp",
    "2:",
    "ldr x9, [x19]",
    "cmp x9, #2",
    "b.eq 4f",
    "b.hi 5f",
    "ldp x8, x0, [x19, #8]",
    "ldp x1, x2, [x19, #24]",
    "ldp x3, x4, [x19, #40]",
    "ldr x5, [x19, #56]",
    "svc #0",
    "ldr x9, [x19]",
    "cbnz x9, 3f",
    "cmn x0, #4095",
    "b.hs 7f",
    "3:",
    "add x19, x19, #64",
    "b 2b",
    "4:",
    "ldp x0, x1, [x19, #8]",
    "6:",
    "cbz x1, 3b",
    "strb wzr, [x0], #1",
    "sub x1, x1, #1",
    "b 6b",
    "5:",
    "ldp x0, x16, [x19, #8]",
    "mov sp, x0",
    "mov x0, #0",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x5, #0",
    "mov x8, #0",
    "mov x9, #0",
    "mov x19, #0",
    // The register that calls by way of linkage tables use: no program expects something in it.
    "br x16",
    "7:",
    "mov x0, #0",
    "ldr x0, [x0]",
    "zuwai_loader_end:",
    ".popsection",
);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn own_code() -> &'static [u8] {
    unsafe extern "C" {
        static zuwai_loader_start: u8;
        static zuwai_loader_end: u8;
    }
    let (start, end) = (&raw const zuwai_loader_start, &raw const zuwai_loader_end);
    // SAFETY: both are labels in one read-only section of this program, the second behind the first, and all between is code.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn own_code() -> &'static [u8] {
    &[]
}

#[cfg(target_arch = "x86_64")]
fn i386_code() -> &'static [u8] {
    unsafe extern "C" {
        static zuwai_loader_i386_start: u8;
        static zuwai_loader_i386_end: u8;
    }
    let (start, end) = (&raw const zuwai_loader_i386_start, &raw const zuwai_loader_i386_end);
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

#[cfg(not(target_arch = "x86_64"))]
fn i386_code() -> &'static [u8] {
    &[]
}

fn code(abi: Abi) -> &'static [u8] {
    match abi {
        Abi::Own => own_code(),
        Abi::I386 => i386_code(),
    }
}

/// A program with nothing but the loader, at any address.
fn program(abi: Abi) -> Vec<u8> {
    /// Pages of aarch64 have up to 64 KiB.
    const ALIGNMENT: u64 = 0x10000;
    let (class, machine, header, program_header) = match abi {
        Abi::Own => (2, elf::MACHINE, 64u16, 56u16),
        Abi::I386 => (1, 3, 52, 32),
    };
    let code = code(abi);
    let start = u64::from(header + 2 * program_header);
    let end = start + code.len() as u64;
    let mut bytes = b"\x7fELF".to_vec();
    bytes.extend([class, 1, 1]);
    bytes.resize(16, 0);
    let halves = |bytes: &mut Vec<u8>, numbers: &[u16]| bytes.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    let words = |bytes: &mut Vec<u8>, numbers: &[u64]| {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes().into_iter().take(abi.word())));
    };
    halves(&mut bytes, &[3, machine, 1, 0]);
    words(&mut bytes, &[start, header.into(), 0]);
    halves(&mut bytes, &[0, 0, header, program_header, 2, 0, 0, 0]);
    // PT_LOAD to read and execute, PT_GNU_STACK to read and write.
    for (kind, flags, size, alignment) in [(1u32, 5u32, end, ALIGNMENT), (0x6474_e551, 6, 0, 16)] {
        bytes.extend(kind.to_le_bytes());
        // The flags stand elsewhere in programs of 32 bits.
        if abi == Abi::Own {
            bytes.extend(flags.to_le_bytes());
        }
        words(&mut bytes, &[0, 0, 0, size, size]);
        if abi == Abi::I386 {
            bytes.extend(flags.to_le_bytes());
        }
        words(&mut bytes, &[alignment]);
    }
    bytes.extend(code);
    bytes
}

/// The loader as a file that can be executed.
pub struct Loader {
    /// Open to read: one that is open to write cannot be executed (`ETXTBSY`).
    pub file: OwnedFd,
    /// Device and inode, to know it by.
    pub identity: (u64, u64),
}

/// The loader of such programs. There is one for the whole process: it is never changed, and making it costs ten system
/// calls.
pub fn loader(abi: Abi) -> Result<&'static Loader, Errno> {
    static OWN: OnceLock<Result<Loader, Errno>> = OnceLock::new();
    static I386: OnceLock<Result<Loader, Errno>> = OnceLock::new();
    let made = match abi {
        Abi::Own => &OWN,
        Abi::I386 => &I386,
    };
    made.get_or_init(|| make(abi)).as_ref().map_err(|error| *error)
}

/// Whether a file is one of the loaders, by its device and inode.
pub fn is_loader(id: (u64, u64)) -> bool {
    [Abi::Own, Abi::I386].into_iter().filter_map(|abi| loader(abi).ok()).any(|loader| loader.identity == id)
}

fn make(abi: Abi) -> Result<Loader, Errno> {
    if code(abi).is_empty() {
        return Err(Errno::NOSYS);
    }
    let mut file = std::fs::File::from(memory_file()?);
    file.write_all(&program(abi)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    // The owner may open what has no write bit only with a capability, and an open that could write stops every execve.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o555))?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: takes numbers only.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let again = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let file = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    Ok(Loader { file, identity: (stat.st_dev as u64, stat.st_ino as u64) })
}

fn memory_file() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know of MFD_EXEC, and lets it be executed anyway.
    let made = memfd(flags.bits() | 0x10).or_else(|_| memfd(flags.bits()))?;
    Ok(made)
}

fn memfd(flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    let made = unsafe { libc::syscall(libc::SYS_memfd_create, c"loader".as_ptr(), flags) };
    match i32::try_from(made) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn loaders_are_programs_of_this_machine() {
        for abi in [Abi::Own, Abi::I386].into_iter().filter(|abi| abi.is_here()) {
            let loader = loader(abi).expect("a loader");
            let image = elf::open(loader.file.as_fd()).expect("a program");
            assert_eq!((image.segments.len(), image.abi), (1, abi));
            let segment = image.segments[0];
            assert!(segment.execute && !segment.write && !image.executable_stack && !image.fixed);
            assert!(image.entry < segment.memory_size && segment.memory_size < 4096);
        }
    }

    #[test]
    fn nobody_changes_the_loader() {
        let loader = loader(Abi::Own).expect("a loader");
        let again = format!("/proc/self/fd/{}", loader.file.as_raw_fd());
        // Root opens it in spite of its mode.
        if let Ok(file) = std::fs::OpenOptions::new().write(true).open(again) {
            assert!((&file).write_all(b"x").is_err() && file.set_len(0).is_err());
        }
    }

    #[test]
    fn records_have_the_form_that_the_code_reads() {
        assert_eq!(Step::Call(9, [1, 2, 3, 4, 5, 6]).record(), [0, 9, 1, 2, 3, 4, 5, 6]);
        assert_eq!(Step::Zero { address: 7, length: 8 }.record()[..3], [2, 7, 8]);
        assert_eq!(Step::Jump { stack: 7, entry: 8 }.record()[..3], [3, 7, 8]);
        assert_eq!(Step::Try(9, [0; 6]).bytes(Abi::Own).len(), RECORD * 8);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn records_of_i386_have_its_numbers() {
        let map = Step::Call(libc::SYS_mmap as u64, [0xffff_d000, 2, 3, 4, u64::MAX, 0x5000]).bytes(Abi::I386);
        let words: Vec<u32> = map.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        assert_eq!(words, [0, 192, 0xffff_d000, 2, 3, 4, u32::MAX, 5]);
    }
}
