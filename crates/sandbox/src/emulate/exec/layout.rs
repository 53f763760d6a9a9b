//! Where a program and its interpreter go in a new address space, and what the loader has to do for it.

use std::ffi::CStr;

use rustix::io::Errno;

use super::super::abi::Abi;
use super::super::elf::{Image, Segment};
use super::super::stub::{RECORD, Step};
use super::stack::{self, Vectors};

/// A new address space with nothing in it but a stack, the loader and the kernel's code.
pub struct Room {
    /// A power of two.
    end: u64,
    /// The lowest of what the kernel has put where mappings go.
    lowest: u64,
    /// Nothing in it is where it is by chance: the caller wants its addresses to be the same every time (`setarch -R`).
    settled: bool,
    pub page: u64,
}

impl Room {
    pub fn of(stack: u64, vectors: &Vectors, page: u64) -> Room {
        let known = [stack::ENTRY, stack::KERNEL_CODE].map(|key| vectors.value(key).unwrap_or(stack));
        let lowest = known.into_iter().min().unwrap_or(stack).min(stack);
        let end = stack.checked_next_power_of_two().unwrap_or(1 << 63);
        // A stack ends with the last page of the address space, or the one before, else. Of 32 bits two pages are left.
        let left = if vectors.abi() == Abi::I386 { 2 * page } else { page };
        let settled = end.saturating_sub(stack_end(stack, vectors, page)) <= left;
        Room { end, lowest: lowest & !(page - 1), settled, page }
    }

    /// How far a program is moved from the addresses in its file.
    ///
    /// The kernel lets the heap (brk) of a loader begin at two thirds of the address space or up to 1 GiB above, and so it may
    /// grow for a third. Programs go below, as far apart as the kernel would put them. Of 32 bits it begins 16 to 48 MiB
    /// above a third, which is where mappings may begin as well.
    pub fn program(&self, image: &Image, random: u64) -> u64 {
        if image.fixed {
            return 0;
        }
        let (start, end) = image.span();
        let highest = match image.abi {
            Abi::Own => self.end / 3 * 2 - self.end / 512,
            Abi::I386 => self.end / 16 * 5,
        };
        let below = if self.settled { 0 } else { random % (self.end / 128) };
        // No room is address 0, where nothing can be mapped.
        let wanted = highest.saturating_sub(end - start).saturating_sub(below);
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
pub fn executable_stack(stack: u64, vectors: &Vectors, page: u64) -> Step {
    let protection = READ | WRITE | EXECUTE | libc::PROT_GROWSDOWN as u64;
    let start = stack & !(page - 1);
    let length = stack_end(stack, vectors, page) - start;
    Step::Try(libc::SYS_mprotect as u64, [start, length, protection, 0, 0, 0])
}

/// The name under which the loader was executed is in the last page of a stack. Another process may have written there.
fn stack_end(stack: u64, vectors: &Vectors, page: u64) -> u64 {
    /// Ten times what the kernel takes for arguments.
    const MOST: u64 = 64 << 20;
    up(vectors.value(stack::PATH).unwrap_or(stack).clamp(stack, stack + MOST) + 1, page)
}

/// The loader's table, with the stack pointer in the last step: its address, below the stack, and all from there to the end
/// of `content`, which is what the stack begins with.
pub fn table(abi: Abi, mut steps: Vec<Step>, name: &CStr, jump: Step, content: Vec<u8>) -> (u64, Vec<u8>) {
    let Step::Jump { stack, .. } = jump else { unreachable!("the last step is given as a jump") };
    const NAME: usize = 16;
    // The word below the stack is the loader's own.
    let name_at = stack - 2 * NAME as u64;
    steps.push(Step::Try(libc::SYS_prctl as u64, [libc::PR_SET_NAME as u64, name_at, 0, 0, 0, 0]));
    steps.push(jump);
    let start = name_at - (steps.len() * RECORD * abi.word()) as u64;
    let mut bytes: Vec<u8> = steps.iter().flat_map(|step| step.bytes(abi)).collect();
    let name = name.to_bytes();
    bytes.extend(&name[..name.len().min(NAME - 1)]);
    bytes.resize((stack - start) as usize, 0);
    bytes.extend(content);
    (start, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const NUMBER: i32 = 5;

    /// Address, offset, size in the file and in memory, and whether it can be written.
    type Line = (u64, u64, u64, u64, bool);
    /// Address, length, whether it may lie over another, and the offset in the file.
    type Mapped = (u64, u64, bool, Option<u64>);
    /// With what is mapped and what is zeroed.
    type Case<'a> = (&'a str, &'a [Line], &'a [Mapped], &'a [(u64, u64)]);

    fn image(fixed: bool, alignment: u64, segments: &[Line]) -> Image {
        let segment = |&(address, offset, file_size, memory_size, write): &Line| Segment {
            address,
            offset,
            file_size,
            memory_size,
            read: true,
            write,
            execute: !write,
        };
        let segments = segments.iter().map(segment).collect();
        let interpreter = None;
        let (entry, headers, header_count, executable_stack) = (0x40, None, 2, false);
        Image { abi: Abi::Own, fixed, entry, headers, header_count, segments, interpreter, executable_stack, alignment }
    }

    fn mapped(steps: &[Step]) -> Vec<Mapped> {
        let one = |step: &Step| match *step {
            Step::Call(_, [at, length, _, flags, number, offset]) => {
                let over = flags & libc::MAP_FIXED_NOREPLACE as u64 != libc::MAP_FIXED_NOREPLACE as u64;
                Some((at, length, over, (number == NUMBER as u64).then_some(offset)))
            }
            _ => None,
        };
        steps.iter().filter_map(one).collect()
    }

    #[test]
    fn segments_are_mapped_as_the_kernel_maps_them() {
        let cases: [Case<'_>; 5] = [
            ("code", &[(0x1000, 0, 0x1234, 0x1234, false)], &[(0x1000, 0x1234, false, Some(0))], &[]),
            (
                "data with zeroes behind",
                &[(0x3df0, 0x2df0, 0x300, 0x5000, true)],
                &[(0x3000, 0x10f0, false, Some(0x2000)), (0x5000, 0x4000, false, None)],
                &[(0x40f0, 0xf10)],
            ),
            (
                "zeroes in the last page only",
                &[(0x3000, 0, 0x300, 0x400, true)],
                &[(0x3000, 0x300, false, Some(0))],
                &[(0x3300, 0xd00)],
            ),
            ("nothing of the file", &[(0x3800, 0, 0, 0x1000, true)], &[(0x3000, 0x2000, false, None)], &[]),
            (
                "a page in common",
                &[(0, 0, 0x1800, 0x1800, false), (0x1900, 0x1900, 0x100, 0x100, true)],
                &[(0, 0x1800, false, Some(0)), (0x1000, 0xa00, true, Some(0x1000))],
                &[],
            ),
        ];
        for (what, segments, wanted, zeroed) in cases {
            let steps = map(&image(true, PAGE, segments), 0, NUMBER, PAGE);
            assert_eq!(mapped(&steps), wanted, "{what}");
            let zero = |step: &Step| match *step {
                Step::Zero { address, length } => Some((address, length)),
                _ => None,
            };
            assert_eq!(steps.iter().filter_map(zero).collect::<Vec<_>>(), zeroed, "{what}");
        }
    }

    #[test]
    fn programs_are_put_where_nothing_else_is() {
        let room = Room { end: 1 << 47, lowest: 0x7fff_0000_0000, settled: false, page: PAGE };
        // Where the kernel puts the heap of a loader.
        let heap = (1u64 << 47) / 3 * 2;
        for alignment in [PAGE, 2 << 20, 1 << 30] {
            for (start, size) in [(0, 0x1000), (0x3000, 1 << 38), (0x30_0000_3000, 0x1000)] {
                let image = image(false, alignment, &[(start, 0, 0, size, true)]);
                for random in [0, 1, 0x1234_5678, u64::MAX] {
                    let bias = room.program(&image, random);
                    let at = start.wrapping_add(bias);
                    assert_eq!(bias % alignment, 0);
                    assert!(at > 0x5000_0000_0000 && at + size < heap - (1 << 37), "{at:x} {alignment:x}");
                }
                let at = start.wrapping_add(room.interpreter(&image));
                assert!(at + size < room.lowest && at > 0x7f00_0000_0000, "{at:x} {alignment:x}");
            }
        }
        let fixed = image(true, PAGE, &[(0x40_0000, 0, 1, 1, false)]);
        assert_eq!((room.program(&fixed, 7), room.interpreter(&fixed)), (0, 0));
    }

    #[test]
    fn tables_end_below_the_stack() {
        const STACK: u64 = 0x7ffc_0000_1230;
        let jump = Step::Jump { stack: STACK, entry: 0x42 };
        let (start, bytes) = table(Abi::Own, vec![close(3)], c"a-name-that-is-too-long", jump, b"content".to_vec());
        assert_eq!(start % 16, 0);
        let word = |at: usize| u64::from_le_bytes(bytes[at * 8..][..8].try_into().expect("eight"));
        assert_eq!((word(0), word(1), word(2)), (0, libc::SYS_close as u64, 3));
        assert_eq!(word(9), libc::SYS_prctl as u64);
        let name = (word(11) - start) as usize;
        assert_eq!(bytes[name..name + 16], *b"a-name-that-is-\0");
        assert_eq!((word(16), word(17), word(18)), (3, STACK, 0x42));
        assert_eq!(bytes[(STACK - start) as usize..], *b"content");
    }
}
