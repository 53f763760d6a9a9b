//! Measures the writing of layers: `cargo run --release --example compress -- FILE [gzip|zstd|none] [LEVEL] [THREADS]`.
//!
//! Prints megabytes (10^6) of plain bytes per second of wall and of processor time, the stored size, and the peak of
//! resident memory.

#![expect(clippy::print_stdout, reason = "a measurement prints its result")]

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use oci::Compression;
use zuwai_store::{LayerCompression, Layout};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which file?")?;
    let kind = match arguments.next().as_deref() {
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("none") => Compression::None,
        Some(other) => return Err(format!("unknown compression `{other}`").into()),
    };
    let level = arguments.next().map(|level| level.parse()).transpose()?;
    let threads = arguments.next().map_or(Ok(1), |threads| threads.parse())?;
    let directory = tempfile::tempdir()?;
    let layout = Layout::create(directory.path())?;
    let plain_bytes = std::fs::metadata(&path)?.len() as f64;

    let start = Instant::now();
    let layer = layout.write_layer(&mut File::open(&path)?, LayerCompression { kind, level, threads }, &|| false)?;
    let (wall, processor) = (start.elapsed().as_secs_f64(), processor_seconds());
    println!(
        "write  {kind:?} level {level:?} threads {threads}: {:.0} MB/s wall, {:.0} MB/s processor, {:.1} MB stored, peak {} KiB",
        plain_bytes / 1e6 / wall,
        plain_bytes / 1e6 / processor,
        layer.descriptor.size as f64 / 1e6,
        peak_kib()?,
    );
    let start = Instant::now();
    std::io::copy(&mut layer.uncompressed()?, &mut std::io::sink())?;
    println!("read   {:.0} MB/s wall", plain_bytes / 1e6 / start.elapsed().as_secs_f64());
    Ok(())
}

fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
