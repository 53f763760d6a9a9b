//! Where a program and its interpreter go in a new address space, and what the loader has to do for it.

use std::ffi::CStr;

use rustix::io::Errno;

use super::super::elf::{Image, Segment};
use super::super::stub::{RECORD, Step};
use super::stack::{self, Vectors};

/// A new address space with nothing in it but a stack, the loader and the kernel's code.
pub struct Room {
    /// A power of two.
    end: u64,
    /// The lowest of what the kernel has put where mappings go.
    lowest: u64,
    pub page: u64,
}

impl Room {
    pub fn of(stack: u64, vectors: &Vectors, page: u64) -> Room {
        let known = [stack::ENTRY, stack::KERNEL_CODE].map(|key| vectors.value(key).unwrap_or(stack));
        let lowest = known.into_iter().min().unwrap_or(stack).min(stack);
        Room { end: stack.checked_next_power_of_two().unwrap_or(1 << 63), lowest: lowest & !(page - 1), page }
    }

    /// How far a program is moved from the addresses in its file.
    ///
    /// The kernel lets the heap (brk) of a loader begin at two thirds of the address space or up to 1 GiB above, and so it may
    /// grow for a third. Programs go below, as far apart as the kernel would put them.
    pub fn program(&self, image: &Image, random: u64) -> u64 {
        if image.fixed {
            return 0;
        }
        let (start, end) = image.span();
        let highest = self.end / 3 * 2 - self.end / 512 - (end - start);
        let wanted = highest - random % (self.end / 128);
        wanted.wrapping_sub(start) & !(image.alignment - 1)
    }

    /// As for the program. Interpreters go below the loader, where mappings go.
    pub fn interpreter(&self, image: &Image) -> u64 {
        /// More than what the kernel puts before its code.
        const GAP: u64 = 16 << 20;
        if image.fixed {
            return 0;
        }
        let (start, end) = image.span();
        let wanted = self.lowest.saturating_sub(GAP + (end - start));
        wanted.wrapping_sub(start) & !(image.alignment - 1)
    }
}

pub fn random() -> Result<[u64; 1], Errno> {
    let mut bytes = [0; 8];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if count == bytes.len() { Ok([u64::from_ne_bytes(bytes)]) } else { Err(Errno::IO) }
}

/// Maps what an image wants from the descriptor `number`, moved by `bias`.
///
/// No mapping takes the place of another but for a page that two segments share, which is the later one's as with the
/// kernel: a program at the addresses of something else dies. MAP_FIXED_NOREPLACE is older (Linux 4.17) than notification.
pub fn map(image: &Image, bias: u64, number: i32, page: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut covered = 0;
    for segment in &image.segments {
        let start = segment.address & !(page - 1);
        let shared = start < covered;
        let file_end = segment.address + segment.file_size;
        let zero_start = if segment.file_size > 0 { up(file_end, page) } else { start };
        let end = up(segment.address + segment.memory_size, page);
        if segment.file_size > 0 {
            let offset = segment.offset - (segment.address - start);
            let length = file_end - start;
            steps.push(mapping(bias, start, length, protection(segment), shared, Some((number, offset))));
            let tail = zero_start - file_end;
            // As the kernel: a segment that cannot be written keeps what the file has there.
            if segment.memory_size > segment.file_size && segment.write && tail > 0 {
                steps.push(Step::Zero { address: file_end.wrapping_add(bias), length: tail });
            }
        }
        if end > zero_start {
            let protection = (protection(segment) & EXECUTE) | READ | WRITE;
            steps.push(mapping(bias, zero_start, end - zero_start, protection, shared && zero_start == start, None));
        }
        covered = end;
    }
    steps
}

const READ: u64 = libc::PROT_READ as u64;
const WRITE: u64 = libc::PROT_WRITE as u64;
const EXECUTE: u64 = libc::PROT_EXEC as u64;

fn protection(segment: &Segment) -> u64 {
    let of = |has: bool, what: u64| if has { what } else { 0 };
    of(segment.read, READ) | of(segment.write, WRITE) | of(segment.execute, EXECUTE)
}

fn mapping(bias: u64, at: u64, length: u64, protection: u64, over: bool, file: Option<(i32, u64)>) -> Step {
    let mut flags = libc::MAP_PRIVATE | if over { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
    if file.is_none() {
        flags |= libc::MAP_ANONYMOUS;
    }
    let (number, offset) = file.unwrap_or((-1, 0));
    let arguments = [at.wrapping_add(bias), length, protection, flags as u64, number as u64, offset];
    Step::Call(libc::SYS_mmap as u64, arguments)
}

fn up(address: u64, page: u64) -> u64 {
    (address + (page - 1)) & !(page - 1)
}

pub fn close(number: i32) -> Step {
    Step::Call(libc::SYS_close as u64, [number as u64, 0, 0, 0, 0, 0])
}

/// What a program wants that has code on its stack. A security module may refuse it; the program may never need it.
pub fn executable_stack(stack: u64, page: u64) -> Step {
    let protection = READ | WRITE | EXECUTE | libc::PROT_GROWSDOWN as u64;
    Step::Try(libc::SYS_mprotect as u64, [stack & !(page - 1), page, protection, 0, 0, 0])
}

/// The loader's table, with the stack pointer in the last step: its address, below the stack, and all from there to the end
/// of `content`, which is what the stack begins with.
pub fn table(mut steps: Vec<Step>, name: &CStr, jump: Step, content: Vec<u8>) -> (u64, Vec<u8>) {
    let Step::Jump { stack, .. } = jump else { unreachable!("the last step is given as a jump") };
    const NAME: usize = 16;
    // The word below the stack is the loader's own.
    let name_at = stack - 2 * NAME as u64;
    steps.push(Step::Try(libc::SYS_prctl as u64, [libc::PR_SET_NAME as u64, name_at, 0, 0, 0, 0]));
    steps.push(jump);
    let start = name_at - steps.len() as u64 * RECORD;
    let mut bytes: Vec<u8> = steps.iter().flat_map(Step::record).flat_map(u64::to_le_bytes).collect();
    let name = name.to_bytes();
    bytes.extend(&name[..name.len().min(NAME - 1)]);
    bytes.resize((stack - start) as usize, 0);
    bytes.extend(content);
    (start, bytes)
}
