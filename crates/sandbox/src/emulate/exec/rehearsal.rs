//! Reading a program and laying it out without anybody to execute it: for fuzzing, and for the tests.

use rustix::io::Errno;

use super::super::abi::Abi;
use super::super::elf::{self, Image};
use super::super::stub::Step;
use super::layout::{self, Room};
use super::stack::Vectors;
use super::tracee::Gone;

const PAGE: u64 = 4096;

/// Does with a program whose file begins with `start` and has `size` bytes what is done before it runs.
///
/// # Errors
/// `ENOEXEC` for what is no program.
///
/// # Panics
/// When a rule is broken that holds for every program: that is a mistake of ours.
pub fn rehearse(start: &[u8], size: u64) -> Result<(), Errno> {
    let mut read = |buffer: &mut [u8], at: u64| {
        let rest = usize::try_from(at).ok().and_then(|at| start.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    };
    let image = elf::parse(&mut read, size, PAGE)?;
    check(&image, size);
    let stack = match image.abi {
        Abi::Own => 0x7ffc_1234_5670,
        Abi::I386 => 0xff81_2340,
    };
    let words = [0; 64];
    let mut empty = |at: u64, buffer: &mut [u8]| {
        let rest: &[u8] = words.get((at.saturating_sub(stack)) as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok::<_, Gone>(count)
    };
    let vectors = Vectors::read(image.abi, &mut empty, stack).map_err(|Gone| Errno::IO)?;
    let room = Room::of(stack, &vectors, PAGE);
    for bias in [room.program(&image, u64::MAX), room.interpreter(&image)] {
        let steps = layout::map(&image, bias, 5, PAGE);
        steps.iter().for_each(|step| check_step(step, bias, &image, size));
        let entry = image.entry.wrapping_add(bias);
        let (table, bytes) = layout::table(image.abi, steps, c"name", Step::Jump { stack, entry }, Vec::new());
        assert_eq!(table + bytes.len() as u64, stack, "the table ends where the stack begins");
    }
    Ok(())
}

fn check(image: &Image, size: u64) {
    let mut end = 0;
    for segment in &image.segments {
        assert!(segment.address >= end && segment.memory_size > 0, "segments ascend: {segment:?}");
        assert!(segment.file_size <= segment.memory_size, "{segment:?}");
        assert!(segment.file_size == 0 || segment.offset + segment.file_size <= size, "in the file: {segment:?}");
        end = segment.address + segment.memory_size;
    }
    assert!(end > 0 && image.alignment.is_power_of_two() && image.alignment >= PAGE);
}

fn check_step(step: &Step, bias: u64, image: &Image, size: u64) {
    let (first, last) = image.span();
    let within = |address: u64, length: u64| {
        let from = address.wrapping_sub(bias);
        from >= first & !(PAGE - 1) && from + length <= (last | (PAGE - 1)) + 1
    };
    match *step {
        Step::Call(_, [address, length, _, _, number, offset]) => {
            assert!(address % PAGE == 0 && length > 0 && within(address, length), "{step:?}");
            assert!(offset % PAGE == 0 && (number != 5 || offset + length <= size), "{step:?}");
        }
        Step::Zero { address, length } => assert!(length < PAGE && within(address, length), "{step:?}"),
        Step::Try(..) | Step::Jump { .. } => panic!("{step:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::super::super::stub;
    use super::*;

    /// A row of numbers that is the same every time (xorshift64).
    struct Row(u64);

    impl Row {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end as u64) as usize
        }
    }

    fn beginning(file: &std::fs::File) -> (Vec<u8>, u64) {
        let mut bytes = vec![0; 4096];
        let count = std::os::unix::fs::FileExt::read_at(file, &mut bytes, 0).expect("read");
        bytes.truncate(count);
        (bytes, file.metadata().expect("looked at").len())
    }

    #[test]
    fn programs_with_changed_bytes_are_laid_out_or_refused() {
        const NUMBERS: [u64; 8] = [0, 1, 0xfff, 0x1000, 0x7fff_ffff, 0xffff_ffff, 0xffff_ffff_ffff_f000, u64::MAX];
        let mut row = Row(0x9e37_79b9_7f4a_7c15);
        let mut files = vec![std::fs::File::open("/proc/self/exe").expect("this program")];
        for abi in [Abi::Own, Abi::I386].into_iter().filter(|abi| abi.is_here()) {
            let loader = stub::loader(abi).expect("a loader").file.as_fd();
            files.push(loader.try_clone_to_owned().expect("another").into());
        }
        for file in &files {
            let (whole, size) = beginning(file);
            rehearse(&whole, size).expect("a program");
            let headers = whole.len().min(64 + 16 * 56);
            let mut programs = 0;
            for _ in 0..5_000 {
                let mut changed = whole.clone();
                for _ in 0..=row.below(4) {
                    let at = row.below(headers - 8);
                    let length = [1, 2, 4, 8][row.below(4)];
                    let number = if row.below(2) == 0 { NUMBERS[row.below(8)] } else { row.0 };
                    changed[at..at + length].copy_from_slice(&number.to_le_bytes()[..length]);
                }
                programs += usize::from(rehearse(&changed, size).is_ok());
            }
            assert!(programs > 50, "only {programs} were still programs: nothing has been tried");
        }
    }
}
