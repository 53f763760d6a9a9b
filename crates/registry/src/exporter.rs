//! Pushing images: blobs in the background while a build goes on, manifest last.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use http::Method;
use net::Body;
use oci::{Descriptor, Digest, Reference};
use store::{Direction, Encoded, Exporter, Image, Layer, StoreError, Transfer, TransferState};

use crate::challenge::Scopes;
use crate::client::{Call, Place, locked};
use crate::failure::{Failure, FailureKind};
use crate::upload::{Upload, mount_source};
use crate::{Registry, Shared};

/// Pushes to one reference.
pub struct RegistryExporter {
    registry: Registry,
    reference: Reference,
    by_digest: bool,
}

impl RegistryExporter {
    pub(crate) fn new(registry: Registry, reference: Reference) -> RegistryExporter {
        RegistryExporter { registry, reference, by_digest: false }
    }

    /// Pushes the manifest under its digest and moves no tag.
    pub fn by_digest(mut self) -> RegistryExporter {
        self.by_digest = true;
        self
    }

    fn place(&self) -> Place {
        Place::new(&self.reference.registry, &self.reference.repository)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.registry.shared
    }

    fn put_manifest(&self, encoded: &Encoded) -> Result<(), StoreError> {
        let place = self.place();
        let target = match (&self.reference.tag, &self.reference.digest) {
            _ if self.by_digest => encoded.manifest_descriptor.digest.to_string(),
            (None, Some(digest)) => digest.to_string(),
            _ => self.reference.tag_or_latest().to_owned(),
        };
        let tell = |state| {
            self.shared().observer.transfer(&Transfer {
                direction: Direction::Push,
                what: "manifest".to_owned(),
                place: place.to_string(),
                done_bytes: if state == TransferState::Done { encoded.manifest_descriptor.size } else { 0 },
                total_bytes: Some(encoded.manifest_descriptor.size),
                state,
            });
        };
        let told = |reason: &str| tell(TransferState::Retry(reason.to_owned()));
        let call = Call::path(Method::PUT, format!("manifests/{target}"), Scopes::push(&place.repository))
            .header("content-type", encoded.manifest_descriptor.media_type.clone())
            .body(Body::Bytes(Bytes::from(encoded.manifest.clone())))
            .on_retry(&told);
        let answer = self.shared().client.send(&place, &call).map_err(|f| self.failed(f))?;
        if !answer.response.is_success() {
            return Err(self.failed(self.shared().client.refused(&place, answer)));
        }
        if let Some(stored) = answer.response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok())
            && stored.algorithm() == "sha256"
            && stored != encoded.manifest_descriptor.digest
        {
            let reason =
                format!("the registry stored digest `{stored}` instead of `{}`", encoded.manifest_descriptor.digest);
            return Err(self.failed(Failure::new(FailureKind::WrongDigest, reason, answer.request)));
        }
        tell(TransferState::Done);
        Ok(())
    }

    fn failed(&self, failure: Failure) -> StoreError {
        failure.during("push", self.reference.familiar())
    }
}

impl Exporter for RegistryExporter {
    /// Queues the layer; it goes up in the background. What goes wrong is told by [`Exporter::export`].
    fn prepare(&self, layer: &Layer) -> Result<(), StoreError> {
        self.shared().queue(&self.place(), layer);
        Ok(())
    }

    fn export(&self, image: &Image) -> Result<Digest, StoreError> {
        let encoded = image.encode();
        if let Some(wanted) = self.reference.digest.as_ref().filter(|d| **d != encoded.manifest_descriptor.digest) {
            return Err(StoreError::WrongDigest {
                expected: wanted.clone(),
                actual: encoded.manifest_descriptor.digest,
            });
        }
        let place = self.place();
        let mut jobs: Vec<Arc<Job>> = image.layers.iter().map(|layer| self.shared().queue(&place, layer)).collect();
        jobs.push(self.shared().queue_bytes(&place, &encoded.config_descriptor, &encoded.config));
        // Waits for all before telling of one: nothing is left running that the caller believes to be over.
        let outcomes: Vec<Result<(), StoreError>> = jobs.iter().map(|job| job.wait()).collect();
        outcomes
            .into_iter()
            .collect::<Result<(), StoreError>>()
            .inspect_err(|_| self.shared().uploads.forget_failures())?;
        self.put_manifest(&encoded)?;
        Ok(encoded.manifest_descriptor.digest)
    }

    fn describe(&self) -> String {
        self.reference.familiar()
    }
}

/// The uploads of one process: what is waiting, what is going on, what is done.
pub(crate) struct Uploads {
    most_workers: usize,
    state: Mutex<UploadsState>,
}

#[derive(Default)]
struct UploadsState {
    jobs: HashMap<(Place, Digest), Arc<Job>>,
    waiting: VecDeque<Arc<Job>>,
    workers: usize,
    /// Repositories by registry and blob: where it can be mounted from.
    homes: HashMap<(String, Digest), Vec<String>>,
}

/// One blob for one repository.
struct Job {
    place: Place,
    blob: Descriptor,
    content: Content,
    mount_from: Option<String>,
    outcome: Mutex<Option<Result<(), Arc<StoreError>>>>,
    finished: Condvar,
}

enum Content {
    Layer(Box<Layer>),
    Bytes(Bytes),
}

impl Uploads {
    pub(crate) fn new(most_workers: usize) -> Uploads {
        Uploads { most_workers: most_workers.max(1), state: Mutex::default() }
    }

    /// Lets failed uploads be tried again by the next export.
    fn forget_failures(&self) {
        locked(&self.state).jobs.retain(|_, job| !job.has_failed());
    }
}

impl Shared {
    fn queue(self: &Arc<Shared>, place: &Place, layer: &Layer) -> Arc<Job> {
        let content = Content::Layer(Box::new(layer.clone()));
        self.queue_job(place, &layer.descriptor, content, mount_source(layer, place))
    }

    fn queue_bytes(self: &Arc<Shared>, place: &Place, blob: &Descriptor, bytes: &[u8]) -> Arc<Job> {
        self.queue_job(place, blob, Content::Bytes(Bytes::copy_from_slice(bytes)), None)
    }

    /// The job for `blob` in `place`: a new one, unless there is one.
    fn queue_job(
        self: &Arc<Shared>,
        place: &Place,
        blob: &Descriptor,
        content: Content,
        mount_from: Option<String>,
    ) -> Arc<Job> {
        let mut state = locked(&self.uploads.state);
        let key = (place.clone(), blob.digest.clone());
        if let Some(job) = state.jobs.get(&key) {
            return job.clone();
        }
        let job = Arc::new(Job {
            place: place.clone(),
            blob: blob.clone(),
            content,
            mount_from,
            outcome: Mutex::new(None),
            finished: Condvar::new(),
        });
        state.jobs.insert(key, job.clone());
        state.waiting.push_back(job.clone());
        if state.workers < self.uploads.most_workers {
            let shared = self.clone();
            let started = spawn::thread_now("upload", move || shared.work());
            if started.is_ok() {
                state.workers += 1;
            }
        }
        let nobody = state.workers == 0;
        drop(state);
        if nobody {
            // No thread to be had: the work is done here, now.
            self.work_here();
        }
        job
    }

    /// Uploads what waits until nothing does.
    fn work(self: Arc<Shared>) {
        loop {
            let mut state = locked(&self.uploads.state);
            let Some(job) = state.waiting.pop_front() else {
                state.workers -= 1;
                return;
            };
            drop(state);
            self.do_job(&job);
        }
    }

    fn work_here(&self) {
        while let Some(job) = {
            let mut state = locked(&self.uploads.state);
            state.waiting.pop_front()
        } {
            self.do_job(&job);
        }
    }

    fn do_job(&self, job: &Job) {
        // Whoever waits must be told, even if this thread meets a bug of ours.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.upload(job)));
        let outcome = done.unwrap_or_else(|_| {
            Err(StoreError::Invalid {
                what: format!("upload of `{}`", job.blob.digest),
                reason: "it panicked".to_owned(),
            })
        });
        job.finish(outcome);
    }

    fn upload(&self, job: &Job) -> Result<(), StoreError> {
        if self.client.net.cancelled() {
            return Err(StoreError::Cancelled);
        }
        let open = || job.content.open(&job.blob);
        let sources = self.mount_sources(job);
        Upload { shared: self, place: &job.place, blob: &job.blob, open: &open, sources: &sources }.run()?;
        let key = (job.place.registry.clone(), job.blob.digest.clone());
        locked(&self.uploads.state).homes.entry(key).or_default().push(job.place.repository.clone());
        Ok(())
    }

    /// Where it came from, then where we put it ourselves.
    fn mount_sources(&self, job: &Job) -> Vec<String> {
        let key = (job.place.registry.clone(), job.blob.digest.clone());
        let ours = locked(&self.uploads.state).homes.get(&key).and_then(|homes| homes.first()).cloned();
        let mut sources: Vec<String> = job.mount_from.iter().cloned().chain(ours).collect();
        sources.dedup();
        sources
    }
}

impl Content {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        match self {
            Content::Layer(layer) => layer.content.open(blob),
            Content::Bytes(bytes) => Ok(Box::new(std::io::Cursor::new(bytes.clone()))),
        }
    }
}

impl Job {
    fn finish(&self, outcome: Result<(), StoreError>) {
        *locked(&self.outcome) = Some(outcome.map_err(Arc::new));
        self.finished.notify_all();
    }

    fn wait(&self) -> Result<(), StoreError> {
        let mut outcome = locked(&self.outcome);
        loop {
            match &*outcome {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => return Err(again(error)),
                None => outcome = self.finished.wait(outcome).unwrap_or_else(|poisoned| poisoned.into_inner()),
            }
        }
    }

    fn has_failed(&self) -> bool {
        matches!(&*locked(&self.outcome), Some(Err(_)))
    }
}

/// `error` for one more who waits for the same blob.
fn again(error: &Arc<StoreError>) -> StoreError {
    match &**error {
        StoreError::Cancelled => StoreError::Cancelled,
        StoreError::Remote { message, hint, source } => StoreError::Remote {
            message: message.clone(),
            hint: hint.clone(),
            source: source.as_ref().and_then(|s| s.downcast_ref::<Failure>()).map(|f| Box::new(f.clone()) as _),
        },
        StoreError::WrongDigest { expected, actual } => {
            StoreError::WrongDigest { expected: expected.clone(), actual: actual.clone() }
        }
        StoreError::WrongSize { digest, expected, actual } => {
            StoreError::WrongSize { digest: digest.clone(), expected: *expected, actual: *actual }
        }
        other => StoreError::Remote { message: chain(other), hint: None, source: None },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(|e| e.to_string()).collect::<Vec<_>>().join(": ")
}
