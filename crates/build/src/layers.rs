//! Layers on their way: from a spooled tar to a blob to the exporters, while the next step runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::Sender;
use oci::{Descriptor, Digest};
use store::{BlobSink as _, BlobSource, Exporter, Layer, LayerCompression, Layout, StoreError};

use crate::{BuildError, Event, Observer, Request};

/// A layer that is there, or will be.
#[derive(Clone)]
pub enum Handle {
    Ready(Box<Layer>),
    Pending(Arc<Pending>),
}

impl Handle {
    /// Waits for the layer.
    pub fn wait(&self) -> Result<Layer, BuildError> {
        match self {
            Handle::Ready(layer) => Ok((**layer).clone()),
            Handle::Pending(pending) => pending.wait(),
        }
    }
}

/// A slot that a worker fills once.
#[derive(Default)]
pub struct Pending {
    slot: Mutex<Option<Result<Layer, StoreError>>>,
    filled: Condvar,
    /// Its worker panicked: nobody will fill it.
    lost: AtomicBool,
}

/// The worker's end of a slot.
struct Promise(Arc<Pending>);

impl Promise {
    fn fill(&self, result: Result<Layer, StoreError>) {
        *self.0.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.0.filled.notify_all();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let _slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.lost.store(true, Ordering::Relaxed);
        self.0.filled.notify_all();
    }
}

impl Pending {
    fn wait(&self) -> Result<Layer, BuildError> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match slot.take() {
                // The panic of the worker goes on in who needs its work.
                None if self.lost.load(Ordering::Relaxed) => panic!("a worker that writes layers panicked"),
                None => slot = self.filled.wait(slot).unwrap_or_else(PoisonError::into_inner),
                Some(Ok(layer)) => {
                    *slot = Some(Ok(layer.clone()));
                    return Ok(layer);
                }
                // The first to ask gets the cause; the build ends with it.
                Some(Err(source)) => {
                    *slot = Some(Err(StoreError::Cancelled));
                    return Err(BuildError::Store {
                        action: "could not write a layer".to_owned(),
                        place: None,
                        source,
                    });
                }
            }
        }
    }
}

enum Job {
    Write { number: u64, spool: PathBuf, promise: Promise },
    Offer(Box<Layer>),
}

/// Compresses and offers layers in the background. What nobody waited for when it is dropped is abandoned.
pub struct Pool {
    jobs: Option<Sender<Job>>,
    workers: Vec<std::thread::JoinHandle<()>>,
    shared: Arc<Shared>,
    spools: PathBuf,
    next_spool: AtomicU64,
    next_layer: AtomicU64,
    bases: Mutex<HashMap<Digest, Layer>>,
}

struct Shared {
    layout: Arc<Layout>,
    exporters: Vec<Arc<dyn Exporter>>,
    compression: LayerCompression,
    cancelled: Arc<AtomicBool>,
    /// Nobody wants the rest: the build has ended.
    abandoned: AtomicBool,
    observer: Arc<dyn Observer>,
}

impl Pool {
    pub fn start(request: &Request) -> Result<Pool, BuildError> {
        let failed =
            |source| BuildError::Store { action: "could not make the blob store".to_owned(), place: None, source };
        let layout = Arc::new(Layout::create(&request.control.work.join("blobs")).map_err(failed)?);
        let spools = request.control.work.join("spool");
        std::fs::create_dir_all(&spools).map_err(BuildError::io(format!("could not make `{}`", spools.display())))?;
        let shared = Arc::new(Shared {
            layout,
            exporters: request.exporters().cloned().collect(),
            compression: LayerCompression {
                kind: request.spec.compression,
                level: request.spec.compression_level,
                threads: request.control.jobs,
            },
            cancelled: request.control.cancelled.clone(),
            abandoned: AtomicBool::new(false),
            observer: request.control.observer.clone(),
        });
        let (jobs, queue) = crossbeam_channel::unbounded::<Job>();
        // One layer at a time is compressed by all threads; a second worker overlaps reading, offering and small layers.
        let work = || {
            let (queue, shared) = (queue.clone(), shared.clone());
            move || queue.iter().for_each(|job| shared.work(job))
        };
        let first = spawn::thread("layers", &|| request.is_cancelled(), work())
            .map_err(BuildError::io("could not start a thread that writes layers"))?;
        // The second can be done without.
        let workers = std::iter::once(first).chain(spawn::thread_now("layers", work())).collect();
        Ok(Pool {
            jobs: Some(jobs),
            workers,
            shared,
            spools,
            next_spool: AtomicU64::new(0),
            next_layer: AtomicU64::new(0),
            bases: Mutex::new(HashMap::new()),
        })
    }

    /// A new file to write an uncompressed layer to.
    pub fn spool(&self) -> PathBuf {
        self.spools.join(format!("{}.tar", self.next_spool.fetch_add(1, Ordering::Relaxed)))
    }

    /// Turns a spooled layer tar into a blob; the spool is removed.
    pub fn submit(&self, spool: PathBuf) -> Handle {
        let pending = Arc::new(Pending::default());
        let number = self.next_layer.fetch_add(1, Ordering::Relaxed);
        self.send(Job::Write { number, spool, promise: Promise(pending.clone()) });
        Handle::Pending(pending)
    }

    /// Has layers of a base, which the result has as well, given to the exporters ahead of time.
    pub fn offer(&self, layers: &[Layer]) {
        for layer in layers {
            self.send(Job::Offer(Box::new(self.base(layer))));
        }
    }

    /// A base image's layer as the build uses it: fetched at most once, whoever asks, and only when somebody does.
    pub fn base(&self, layer: &Layer) -> Layer {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        let known = bases.entry(layer.descriptor.digest.clone()).or_insert_with(|| {
            let content =
                Once { layout: self.shared.layout.clone(), origin: layer.content.clone(), fetching: Mutex::new(()) };
            let content = Interruptible { content: Arc::new(content), cancelled: self.shared.cancelled.clone() };
            Layer { content: Arc::new(content), ..layer.clone() }
        });
        known.clone()
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Where every worker has panicked the job is dropped, and who waits for it is told.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
        self.jobs = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.abandoned.load(Ordering::Relaxed)
    }

    fn work(&self, job: Job) {
        match job {
            Job::Offer(_) if self.stopped() => {}
            Job::Offer(layer) => self.offer(&layer),
            Job::Write { number, spool, promise } => {
                let written = self.write(number, &spool);
                let _ = std::fs::remove_file(&spool);
                if let Ok(layer) = &written {
                    self.offer(layer);
                }
                promise.fill(written);
            }
        }
    }

    fn write(&self, number: u64, spool: &PathBuf) -> Result<Layer, StoreError> {
        let begun = Instant::now();
        let io = |source| StoreError::Io { action: "could not read spooled layer", path: spool.clone(), source };
        let file = File::open(spool).map_err(io)?;
        let size_bytes = file.metadata().map_err(io)?.len();
        self.observer.event(&Event::LayerStarted { number, size_bytes });
        let mut tar = BufReader::with_capacity(1 << 20, file);
        let mut layer = self.layout.write_layer(&mut tar, self.compression, &|| self.stopped())?;
        layer.content = Arc::new(Interruptible { content: layer.content, cancelled: self.cancelled.clone() });
        let digest = layer.descriptor.digest.to_string();
        let (size_bytes, elapsed) = (layer.descriptor.size, begun.elapsed());
        self.observer.event(&Event::Layer { number, digest: &digest, size_bytes, elapsed });
        Ok(layer)
    }

    /// Gives a layer to every exporter ahead of time. A failure shows again, and is reported, when the image is exported.
    fn offer(&self, layer: &Layer) {
        for exporter in &self.exporters {
            if let Err(error) = exporter.prepare(layer)
                && !self.stopped()
            {
                let message = format!("{}: {error}; trying again at the end", exporter.describe());
                self.observer.event(&Event::Warning { message });
            }
        }
    }
}

/// A blob that is kept in the local layout the first time it is read.
struct Once {
    layout: Arc<Layout>,
    origin: Arc<dyn BlobSource>,
    fetching: Mutex<()>,
}

impl BlobSource for Once {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let _one_at_a_time = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.layout.contains(blob)? {
            self.layout.put(blob, &mut self.origin.open(blob)?)?;
        }
        self.layout.open(blob)
    }
}

/// Blobs that end with an error once the build is cancelled: exporters copy gigabytes, and know nothing of that.
struct Interruptible {
    content: Arc<dyn BlobSource>,
    cancelled: Arc<AtomicBool>,
}

impl BlobSource for Interruptible {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let inner = self.content.open(blob)?;
        Ok(Box::new(InterruptibleRead { inner, cancelled: self.cancelled.clone() }))
    }
}

struct InterruptibleRead {
    inner: Box<dyn Read + Send>,
    cancelled: Arc<AtomicBool>,
}

impl Read for InterruptibleRead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(StoreError::Cancelled.into_read());
        }
        self.inner.read(buffer)
    }
}
