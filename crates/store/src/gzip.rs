//! One gzip member, deflated in parallel. The bytes depend on the level and the data alone: not on the number of threads,
//! nor on how the data were cut into writes.
//!
//! The plain bytes are cut every [`BLOCK_BYTES`]. Each block is deflated on its own with the last 32 KiB before it as
//! dictionary and ends at a byte boundary (sync flush), so that the pieces in order are one deflate stream, as in pigz. A
//! single member, because readers that stop at the first one exist (soci-snapshotter, Rust's plain `GzDecoder`).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use flate2::{Compress, FlushCompress, Status};

/// Small enough that many threads stay within a small budget (two buffers of this size each), large enough that cutting
/// costs nothing: 5 bytes each.
const BLOCK_BYTES: usize = 512 * 1024;
/// Deflate's window.
const DICTIONARY_BYTES: usize = 32 * 1024;

/// A [`Write`] that ends by [`ParallelGzip::finish`]; dropping it instead abandons the stream.
pub(crate) struct ParallelGzip<W> {
    out: W,
    /// Being filled.
    block: Block,
    checksum: crc32fast::Hasher,
    size_bytes: u64,
    pool: Pool,
    /// With the threads, oldest first.
    waiting: VecDeque<Receiver<Deflated>>,
    /// Buffers for the next blocks.
    spare: Vec<Block>,
}

type Deflated = io::Result<Block>;

struct Block {
    plain: Vec<u8>,
    /// The plain bytes before `plain`.
    dictionary: Vec<u8>,
    deflated: Vec<u8>,
    last: bool,
}

impl Block {
    /// With all its memory, so that no other thread allocates any for it: an allocator that has a heap per thread would
    /// hold a multiple of it.
    fn new() -> Block {
        Block {
            plain: Vec::with_capacity(BLOCK_BYTES),
            dictionary: Vec::with_capacity(DICTIONARY_BYTES),
            deflated: Vec::with_capacity(most_deflated(BLOCK_BYTES)),
            last: false,
        }
    }
}

/// More than deflate's worst case (5 bytes per 16 KiB; 9 bits per byte at level 1).
const fn most_deflated(plain_bytes: usize) -> usize {
    plain_bytes + plain_bytes / 8 + 4096
}

impl<W: Write> ParallelGzip<W> {
    /// `level` is 0 to 9. At most `threads` threads are made, when there is work for them; with 1, none.
    pub(crate) fn new(mut out: W, level: u32, threads: usize) -> io::Result<ParallelGzip<W>> {
        // RFC 1952, 2.3: no name, no time, operating system «unknown»; extra flags 2 for the best level, 4 for the fastest.
        let extra = match level {
            9 => 2,
            1 => 4,
            _ => 0,
        };
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, 255])?;
        Ok(ParallelGzip {
            out,
            block: Block::new(),
            checksum: crc32fast::Hasher::new(),
            size_bytes: 0,
            pool: Pool::new(level, threads),
            waiting: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.block.last = true;
        self.submit()?;
        while !self.waiting.is_empty() {
            self.write_oldest()?;
        }
        let mut trailer = [0; 8];
        trailer[..4].copy_from_slice(&self.checksum.finalize().to_le_bytes());
        // RFC 1952: the size modulo 2^32.
        trailer[4..].copy_from_slice(&(self.size_bytes as u32).to_le_bytes());
        self.out.write_all(&trailer)?;
        Ok(self.out)
    }

    /// Hands the block over and begins the next.
    fn submit(&mut self) -> io::Result<()> {
        let mut next = self.spare.pop().unwrap_or_else(Block::new);
        next.plain.clear();
        next.dictionary.clear();
        let tail = self.block.plain.len().saturating_sub(DICTIONARY_BYTES);
        next.dictionary.extend_from_slice(&self.block.plain[tail..]);
        let block = std::mem::replace(&mut self.block, next);
        let (done, result) = bounded(1);
        self.pool.deflate(Job { block, done }, self.waiting.len());
        self.waiting.push_back(result);
        while self.waiting.len() > self.pool.most_waiting() {
            self.write_oldest()?;
        }
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(result) = self.waiting.pop_front() else { return Ok(()) };
        let block = result.recv().map_err(|_| io::Error::other("a compression thread ended early"))??;
        self.out.write_all(&block.deflated)?;
        self.spare.push(block);
        Ok(())
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let plain = &mut self.block.plain;
        let count = bytes.len().min(BLOCK_BYTES - plain.len());
        let taken = &bytes[..count];
        self.checksum.update(taken);
        self.size_bytes += count as u64;
        plain.extend_from_slice(taken);
        if plain.len() == BLOCK_BYTES {
            self.submit()?;
        }
        Ok(count)
    }

    /// Does nothing: where the stream is flushed must not depend on the caller.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Job {
    block: Block,
    done: Sender<Deflated>,
}

impl Job {
    fn run(mut self, level: flate2::Compression) {
        let result = deflate(level, &mut self.block).map(|()| self.block);
        // The receiver is gone when the stream was abandoned.
        let _ = self.done.send(result);
    }
}

/// Threads that deflate, made when needed. A thread that cannot be made (a limit on processes) is done without.
struct Pool {
    threads: usize,
    level: flate2::Compression,
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    fn new(level: u32, threads: usize) -> Pool {
        let (jobs, queue) = unbounded();
        let level = flate2::Compression::new(level);
        Pool { threads: threads.max(1), level, jobs, queue, workers: Vec::new() }
    }

    /// Deflates here, or hands over to a thread; `waiting` jobs are with the threads already.
    fn deflate(&mut self, job: Job, waiting: usize) {
        let here = self.threads == 1 || (job.block.last && waiting == 0);
        if !here && self.workers.len() < self.threads {
            self.add_worker();
        }
        if here || self.workers.is_empty() {
            job.run(self.level);
        } else {
            // Cannot fail: `self.queue` keeps the channel open.
            let _ = self.jobs.send(job);
        }
    }

    /// One more than can be worked on, so that no thread waits for the next block to be filled.
    fn most_waiting(&self) -> usize {
        if self.workers.is_empty() { 0 } else { self.workers.len() + 1 }
    }

    fn add_worker(&mut self) {
        let (queue, level) = (self.queue.clone(), self.level);
        let work = move || queue.iter().for_each(|job: Job| job.run(level));
        match spawn::thread_now("gzip", work) {
            Ok(worker) => self.workers.push(worker),
            Err(_) => self.threads = self.workers.len().max(1),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        while self.queue.try_recv().is_ok() {}
        self.jobs = bounded(0).0;
        for worker in self.workers.drain(..) {
            // A panic in a worker has been seen as a missing result already.
            let _ = worker.join();
        }
    }
}

/// Makes raw deflate data of the block that ends at a byte boundary, or ends the stream when it is the last.
///
/// With a new compressor each time. A used one, though reset, keeps the bytes in its window, and zlib-rs (0.6, as zlib-ng)
/// hashes one byte beyond the dictionary's end: the result would depend on which block the compressor had before, that is,
/// on the threads' timing.
fn deflate(level: flate2::Compression, block: &mut Block) -> io::Result<()> {
    let Block { plain, dictionary, deflated, last } = block;
    let mut compress = Compress::new(level, false);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    // There is room for one call to do it all: a second call could repeat the flush marker, and where it is needed must
    // not depend on the allocator.
    deflated.clear();
    deflated.reserve(most_deflated(plain.len()));
    let flush = if *last { FlushCompress::Finish } else { FlushCompress::Sync };
    let status = compress.compress_vec(plain, deflated, flush).map_err(io::Error::other)?;
    let complete = if *last { status == Status::StreamEnd } else { deflated.len() < deflated.capacity() };
    if !complete || compress.total_in() != plain.len() as u64 {
        return Err(io::Error::other("a block did not fit its worst case"));
    }
    Ok(())
}
