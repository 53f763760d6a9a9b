//! Memory does not grow with a layer. Alone in its program, because the peak is the process's.

mod common;

use std::io::{self, Read};

use common::Scratch;
use oci::Compression;
use zuwai_store::LayerCompression;

const STREAM_BYTES: u64 = 1 << 28;

#[test]
fn a_large_layer_is_written_and_read_in_a_few_mebibytes() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    for (kind, threads, most_mib) in [(Compression::Gzip, 4, 24), (Compression::Zstd, 2, 40)] {
        // Resets the peak to what is resident now. Where it cannot be written, the ceilings hold for both together.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let before = resident_peak_kib();
        let mut plain = Repeated { block: common::noise(777_777, 1), at: 0 }.take(STREAM_BYTES);
        let layer =
            layout.write_layer(&mut plain, LayerCompression { kind, level: Some(1), threads }, &|| false).unwrap();
        let read = io::copy(&mut layer.uncompressed().unwrap(), &mut io::sink()).unwrap();
        assert_eq!(read, STREAM_BYTES);
        let grown = resident_peak_kib() - before;
        assert!(grown < most_mib * 1024, "{kind:?} with {threads} threads: {grown} KiB");
    }
}

struct Repeated {
    block: Vec<u8>,
    at: usize,
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.block[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at = (self.at + count) % self.block.len();
        Ok(count)
    }
}

fn resident_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
