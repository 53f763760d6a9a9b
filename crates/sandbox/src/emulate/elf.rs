//! Reading the headers of a program: what has to be mapped where, and which interpreter it wants.
//!
//! Every number in a program is a stranger's. The rules are those of Linux `fs/binfmt_elf.c`; where the kernel finds out only
//! after the old program is gone, the answer here comes before: `ENOEXEC`. Nothing is mapped and nothing executed here.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::abi::Abi;

/// `e_machine` of this machine's own programs, of the ELF specifications of the processors.
#[cfg(target_arch = "x86_64")]
pub const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
pub const MACHINE: u16 = 183;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const MACHINE: u16 = 0;

/// No address space of a program is larger: 47 bits on x86-64, 48 on aarch64 (larger ones have to be asked for).
#[cfg(target_arch = "x86_64")]
const ADDRESSES_END: u64 = 1 << 47;
#[cfg(not(target_arch = "x86_64"))]
const ADDRESSES_END: u64 = 1 << 48;

/// `e_machine` of i386 programs; the second is for the i486 and never became usual.
const MACHINES_I386: [u16; 2] = [3, 6];
/// The last page but one of 32 bits (`asm/page_64_types.h` IA32_PAGE_OFFSET).
const ADDRESSES_END_I386: u64 = 0xffff_e000;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Of programs of 32 bits.
const HEADER_32: usize = 52;
const PROGRAM_HEADER_32: usize = 32;
/// The kernel's limit of all program headers together.
const MAX_PROGRAM_HEADERS: usize = 65536;
/// Programs have two to ten. The limit bounds the table that is made of them.
const MAX_SEGMENTS: usize = 128;
/// From the first byte in memory to the last. It has to fit beside the other things of an address space.
const MAX_SPAN: u64 = 1 << 38;
/// Larger ones are a mistake: the largest pages have 1 GiB.
const MAX_ALIGNMENT: u64 = 1 << 30;

const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const STACK: u32 = 0x6474_e551;

/// A part of the program in memory. Addresses are as the file has them: where it really is, is chosen later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub address: u64,
    /// `address` and `offset` are the same within a page.
    pub offset: u64,
    pub file_size: u64,
    /// At least `file_size`; what is beyond is zero.
    pub memory_size: u64,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

/// What the headers of a program say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    pub abi: Abi,
    /// It runs only at the addresses that it names (ET_EXEC).
    pub fixed: bool,
    pub entry: u64,
    /// Where the program headers are in memory, if they are in a segment.
    pub headers: Option<u64>,
    pub header_count: u16,
    /// In ascending order; they have no byte in common. At least one.
    pub segments: Vec<Segment>,
    /// The path in PT_INTERP.
    pub interpreter: Option<CString>,
    pub executable_stack: bool,
    /// A power of two, at least a page: what the distance to the addresses of the file is a multiple of.
    pub alignment: u64,
}

impl Image {
    /// Bytes of a program header.
    pub fn header_size(&self) -> usize {
        program_header(self.abi)
    }

    /// First byte and the one behind the last.
    pub fn span(&self) -> (u64, u64) {
        let start = self.segments.first().map_or(0, |segment| segment.address);
        let end = self.segments.last().map_or(0, |segment| segment.address + segment.memory_size);
        (start, end)
    }
}

/// Reads the headers of a program that is open to read.
///
/// # Errors
/// `ENOEXEC` when it is no program of this machine; those of reading.
pub fn open(file: BorrowedFd<'_>) -> Result<Image, Errno> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).map_err(|_| Errno::NOEXEC)?;
    parse(&mut |buffer, at| rustix::io::pread(file, buffer, at), size, rustix::param::page_size() as u64)
}

fn program_header(abi: Abi) -> usize {
    match abi {
        Abi::Own => PROGRAM_HEADER,
        Abi::I386 => PROGRAM_HEADER_32,
    }
}

fn addresses_end(abi: Abi) -> u64 {
    match abi {
        Abi::Own => ADDRESSES_END,
        Abi::I386 => ADDRESSES_END_I386,
    }
}

/// As pread(2): may give less than was asked for.
pub type Read<'r> = &'r mut dyn FnMut(&mut [u8], u64) -> Result<usize, Errno>;

/// Reads the headers of a program of `size` bytes for pages of `page` bytes.
///
/// # Errors
/// `ENOEXEC` when it is no program of this machine; those of `read`.
pub fn parse(read: Read<'_>, size: u64, page: u64) -> Result<Image, Errno> {
    let mut start = [0; HEADER + 16 * PROGRAM_HEADER];
    let count = fill(read, &mut start, 0)?;
    let start = &start[..count];
    let header = Header::of(start)?;
    let size_of_one = program_header(header.abi);
    let length = header.count * size_of_one;
    // They nearly always follow the header: then it was one read.
    let direct = usize::try_from(header.offset).ok().and_then(|at| start.get(at..at.checked_add(length)?));
    let mut elsewhere = Vec::new();
    let headers = match direct {
        Some(headers) => headers,
        None => {
            elsewhere.resize(length, 0);
            exactly(read, &mut elsewhere, header.offset)?;
            &elsewhere
        }
    };
    let read_one = match header.abi {
        Abi::Own => ProgramHeader::of,
        Abi::I386 => ProgramHeader::of_32,
    };
    let headers: Vec<ProgramHeader> = headers.chunks_exact(size_of_one).map(read_one).collect();
    let segments = segments(&headers, size, page, addresses_end(header.abi))?;
    let stack = headers.iter().rev().find(|header| header.kind == STACK);
    Ok(Image {
        abi: header.abi,
        fixed: header.fixed,
        entry: header.entry,
        headers: in_memory(&segments, header.offset),
        header_count: header.count as u16,
        interpreter: interpreter(read, &headers)?,
        // Without a word about it a program of i386 may have code anywhere, and its stack is where it has some.
        executable_stack: stack.map_or(header.abi == Abi::I386, |stack| stack.flags & 1 != 0),
        alignment: alignment(&headers, page)?,
        segments,
    })
}

struct Header {
    abi: Abi,
    fixed: bool,
    entry: u64,
    /// Of the program headers.
    offset: u64,
    count: usize,
}

impl Header {
    fn of(bytes: &[u8]) -> Result<Header, Errno> {
        // The lowest byte first.
        let abi = match bytes.get(..6) {
            Some(b"\x7fELF\x02\x01") if bytes.len() >= HEADER => Abi::Own,
            Some(b"\x7fELF\x01\x01") if bytes.len() >= HEADER_32 && Abi::I386.is_here() => Abi::I386,
            _ => return Err(Errno::NOEXEC),
        };
        let fixed = match half(bytes, 16) {
            2 => true,
            3 => false,
            _ => return Err(Errno::NOEXEC),
        };
        let machine = half(bytes, 18);
        let (known, entry, offset, size, count) = match abi {
            Abi::Own => (machine == MACHINE, long(bytes, 24), long(bytes, 32), half(bytes, 54), half(bytes, 56)),
            Abi::I386 => (
                MACHINES_I386.contains(&machine),
                word(bytes, 24).into(),
                word(bytes, 28).into(),
                half(bytes, 42),
                half(bytes, 44),
            ),
        };
        let (size, count) = (usize::from(size), usize::from(count));
        let usable = known
            && size == program_header(abi)
            && (1..=MAX_PROGRAM_HEADERS / size).contains(&count)
            && entry < addresses_end(abi);
        if usable { Ok(Header { abi, fixed, entry, offset, count }) } else { Err(Errno::NOEXEC) }
    }
}

struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    alignment: u64,
}

impl ProgramHeader {
    fn of(bytes: &[u8]) -> ProgramHeader {
        ProgramHeader {
            kind: word(bytes, 0),
            flags: word(bytes, 4),
            offset: long(bytes, 8),
            address: long(bytes, 16),
            file_size: long(bytes, 32),
            memory_size: long(bytes, 40),
            alignment: long(bytes, 48),
        }
    }

    fn of_32(bytes: &[u8]) -> ProgramHeader {
        let word = |at| u64::from(word(bytes, at));
        ProgramHeader {
            kind: word(0) as u32,
            flags: word(24) as u32,
            offset: word(4),
            address: word(8),
            file_size: word(16),
            memory_size: word(20),
            alignment: word(28),
        }
    }

    /// A segment that lies in the file and in the address space, and whose pages are whole pages of the file.
    fn segment(&self, size: u64, page: u64, addresses_end: u64) -> Option<Segment> {
        let in_file = self.offset.checked_add(self.file_size)? <= size || self.file_size == 0;
        let in_memory = self.address.checked_add(self.memory_size)? <= addresses_end;
        let aligned = self.address % page == self.offset % page || self.file_size == 0;
        (in_file && in_memory && aligned && self.file_size <= self.memory_size).then_some(Segment {
            address: self.address,
            offset: self.offset,
            file_size: self.file_size,
            memory_size: self.memory_size,
            read: self.flags & 4 != 0,
            write: self.flags & 2 != 0,
            execute: self.flags & 1 != 0,
        })
    }
}

fn segments(headers: &[ProgramHeader], size: u64, page: u64, addresses_end: u64) -> Result<Vec<Segment>, Errno> {
    let mut all: Vec<Segment> = Vec::new();
    for header in headers.iter().filter(|header| header.kind == LOAD && header.memory_size > 0) {
        let segment = header.segment(size, page, addresses_end).ok_or(Errno::NOEXEC)?;
        let overlaps = all.last().is_some_and(|last| segment.address < last.address + last.memory_size);
        if overlaps || all.len() == MAX_SEGMENTS {
            return Err(Errno::NOEXEC);
        }
        all.push(segment);
    }
    let (first, last) = (all.first().ok_or(Errno::NOEXEC)?, all.last().ok_or(Errno::NOEXEC)?);
    if last.address + last.memory_size - first.address > MAX_SPAN {
        return Err(Errno::NOEXEC);
    }
    Ok(all)
}

/// Where something of the file is in memory.
fn in_memory(segments: &[Segment], offset: u64) -> Option<u64> {
    let holds = |segment: &&Segment| (segment.offset..segment.offset + segment.file_size).contains(&offset);
    segments.iter().find(holds).map(|segment| segment.address + (offset - segment.offset))
}

/// As the kernel, the numbers that are no power of two are not looked at.
fn alignment(headers: &[ProgramHeader], page: u64) -> Result<u64, Errno> {
    let wanted = headers.iter().filter(|header| header.kind == LOAD && header.alignment.is_power_of_two());
    let most = wanted.map(|header| header.alignment).max().unwrap_or(page).max(page);
    if most <= MAX_ALIGNMENT { Ok(most) } else { Err(Errno::NOEXEC) }
}

/// The first PT_INTERP counts.
fn interpreter(read: Read<'_>, headers: &[ProgramHeader]) -> Result<Option<CString>, Errno> {
    let Some(header) = headers.iter().find(|header| header.kind == INTERPRETER) else {
        return Ok(None);
    };
    if !(2..=libc::PATH_MAX as u64).contains(&header.file_size) {
        return Err(Errno::NOEXEC);
    }
    let mut path = vec![0; header.file_size as usize];
    exactly(read, &mut path, header.offset)?;
    // The kernel wants the last byte to be NUL, and takes what is before the first.
    if path.last() != Some(&0) {
        return Err(Errno::NOEXEC);
    }
    path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(0));
    CString::new(path).map(Some).map_err(|_| Errno::NOEXEC)
}

fn exactly(read: Read<'_>, buffer: &mut [u8], at: u64) -> Result<(), Errno> {
    if fill(read, buffer, at)? == buffer.len() { Ok(()) } else { Err(Errno::NOEXEC) }
}

/// Reads until the buffer is full or the file ends.
fn fill(read: Read<'_>, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut count = 0;
    while count < buffer.len() {
        let from = at.checked_add(count as u64).filter(|from| *from <= i64::MAX as u64).ok_or(Errno::NOEXEC)?;
        match read(&mut buffer[count..], from)? {
            0 => break,
            some => count += some,
        }
    }
    Ok(count)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// kind, flags, offset, address, file size, memory size, alignment
    type Line = (u32, u32, u64, u64, u64, u64, u64);

    fn file(kind: u16, machine: u16, lines: &[Line]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(HEADER, 0);
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x1040u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&(PROGRAM_HEADER as u16).to_le_bytes());
        bytes[56..58].copy_from_slice(&(lines.len() as u16).to_le_bytes());
        for (kind, flags, offset, address, file_size, memory_size, alignment) in lines {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            for number in [offset, address, address, file_size, memory_size, alignment] {
                bytes.extend(number.to_le_bytes());
            }
        }
        bytes
    }

    fn read_of(bytes: &[u8]) -> impl FnMut(&mut [u8], u64) -> Result<usize, Errno> + '_ {
        |buffer, at| {
            let rest = bytes.get(at as usize..).unwrap_or_default();
            // Short reads, to see that they are gone on with.
            let count = buffer.len().min(rest.len()).min(100);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    fn parsed(bytes: &[u8], size: u64) -> Result<Image, Errno> {
        parse(&mut read_of(bytes), size, PAGE)
    }

    #[test]
    fn headers_say_what_is_mapped() {
        let lines = [
            (6, 4, 0x40, 0x40, 0xa8, 0xa8, 8),
            (LOAD, 4, 0, 0, 0x600, 0x600, 0x1000),
            (LOAD, 6, 0xdf0, 0x20_1df0, 0x100, 0x9000, 0x20_0000),
            (STACK, 7, 0, 0, 0, 0, 16),
        ];
        let image = parsed(&file(3, MACHINE, &lines), 0x1000).expect("a program");
        assert!(!image.fixed && image.executable_stack);
        assert_eq!((image.entry, image.headers, image.header_count), (0x1040, Some(0x40), 4));
        assert_eq!((image.span(), image.alignment), ((0, 0x20_adf0), 0x20_0000));
        let data = &image.segments[1];
        assert_eq!((data.file_size, data.memory_size), (0x100, 0x9000));
        assert_eq!((data.read, data.write, data.execute), (true, true, false));
        assert_eq!(image.interpreter, None);
    }

    #[test]
    fn interpreters_end_with_nul() {
        for (path, wanted) in [
            (&b"/lib/ld.so\0"[..], Ok(Some(c"/lib/ld.so"))),
            (b"/lib/ld.so\0tail\0", Ok(Some(c"/lib/ld.so"))),
            (b"/lib/ld.so", Err(Errno::NOEXEC)),
            (b"\0", Err(Errno::NOEXEC)),
        ] {
            let length = path.len() as u64;
            let at = (HEADER + 2 * PROGRAM_HEADER) as u64;
            let lines = [(LOAD, 5, 0, 0, 0x10, 0x10, 1), (INTERPRETER, 4, at, at, length, length, 1)];
            let mut bytes = file(3, MACHINE, &lines);
            bytes.extend(path);
            let found = parsed(&bytes, bytes.len() as u64).map(|image| image.interpreter);
            assert_eq!(found, wanted.map(|path| path.map(CString::from)), "{path:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_program_is_refused() {
        let good: Line = (LOAD, 5, 0, 0x1000, 0x200, 0x200, 0x1000);
        let cases: [(&str, &[Line]); 14] = [
            ("nothing to load", &[(6, 4, 0, 0, 0, 0, 0)]),
            ("no headers", &[]),
            ("behind the end of the file", &[(LOAD, 5, 0, 0, 0x1001, 0x1001, 0x1000)]),
            ("offset that wraps", &[(LOAD, 5, u64::MAX - 0xfff, 0, 0x2000, 0x2000, 0x1000)]),
            ("address that wraps", &[(LOAD, 5, 0, u64::MAX - 0xfff, 0x200, 0x2000, 0x1000)]),
            ("address of the kernel", &[(LOAD, 5, 0, ADDRESSES_END - 0x1000, 0x200, 0x1001, 0x1000)]),
            ("more in the file than in memory", &[(LOAD, 5, 0, 0, 0x200, 0x1ff, 0x1000)]),
            ("page of no page of the file", &[(LOAD, 5, 1, 0, 0x200, 0x200, 0x1000)]),
            ("huge", &[(LOAD, 6, 0, 0, 0, MAX_SPAN + 1, 0x1000)]),
            ("far apart", &[good, (LOAD, 6, 0, 0x2000 + MAX_SPAN, 0, 1, 0x1000)]),
            ("overlapping", &[good, (LOAD, 6, 0x100, 0x1100, 0x10, 0x10, 0x1000)]),
            ("descending", &[good, (LOAD, 6, 0, 0, 0x10, 0x10, 0x1000)]),
            ("aligned to everything", &[(LOAD, 5, 0, 0, 0x200, 0x200, 1 << 62)]),
            ("interpreter behind the end", &[good, (INTERPRETER, 4, 0x5000, 0, 16, 16, 1)]),
        ];
        for (what, lines) in cases {
            assert_eq!(parsed(&file(2, MACHINE, lines), 0x1000), Err(Errno::NOEXEC), "{what}");
        }
        assert!(parsed(&file(2, MACHINE, &[good]), 0x1000).is_ok());
        for (kind, machine) in [(1, MACHINE), (4, MACHINE), (2, 3), (2, 40)] {
            assert_eq!(parsed(&file(kind, machine, &[good]), 0x1000), Err(Errno::NOEXEC), "{kind} {machine}");
        }
        let whole = file(2, MACHINE, &[good]);
        for length in 0..whole.len() {
            assert_eq!(parsed(&whole[..length], 0x1000), Err(Errno::NOEXEC), "{length} bytes");
        }
    }

    #[test]
    fn no_byte_of_the_headers_makes_it_panic() {
        let good: Line = (LOAD, 5, 0, 0x1000, 0x200, 0x200, 0x1000);
        let whole = file(3, MACHINE, &[good, (INTERPRETER, 4, 0, 0, 16, 16, 1), (STACK, 6, 0, 0, 0, 0, 0)]);
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _ = parsed(&changed, 0x1000);
            }
        }
    }
}
