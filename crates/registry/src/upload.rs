//! One blob into one repository: is it there, can it be mounted, else upload it.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Method;
use net::{Body, Response};
use oci::Descriptor;
use store::{Direction, Layer, StoreError, Transfer, TransferObserver, TransferState};

use crate::Shared;
use crate::blob::PROGRESS_BYTES;
use crate::challenge::Scopes;
use crate::client::{Answer, Call, Client, Place, Target, locked};
use crate::failure::{Failure, FailureKind};

/// GHCR takes no larger chunk with a `Content-Range`.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Below what proxies let through by default (nginx: 1 MiB).
const SMALL_CHUNK_BYTES: u64 = 512 * 1024;

/// Opens what is to be uploaded, from its beginning.
pub(crate) type OpenBlob<'a> = &'a dyn Fn() -> Result<Box<dyn Read + Send>, StoreError>;

/// How a blob came to be in its repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    Exists,
    Mounted,
    Uploaded,
}

/// A blob on its way to a repository.
pub(crate) struct Upload<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) place: &'a Place,
    pub(crate) blob: &'a Descriptor,
    pub(crate) open: OpenBlob<'a>,
    /// Repositories of the same registry that have the blob.
    pub(crate) sources: &'a [String],
}

/// An upload session: where the next request goes.
struct Session {
    location: String,
    /// The least the registry takes in one chunk (`OCI-Chunk-Min-Length`).
    min_chunk: u64,
}

/// What beginning an upload led to.
enum Begun {
    Mounted,
    Session(Session),
}

pub(crate) fn check_permission(client: &Client, place: &Place) -> Result<(), Failure> {
    let scopes = Scopes::push(&place.repository);
    let answer = client.send(place, &start_call(scopes.clone(), "blobs/uploads/"))?;
    match answer.response.status {
        200..300 => {}
        _ => return Err(client.refused(place, answer)),
    }
    if let Ok(location) = location(&answer) {
        // Registries drop what is not finished sooner or later; one that wants another permission for it is no matter.
        let cancel = Call::new(Method::DELETE, Target::Url(location), scopes).once().takes_401_for_an_answer();
        let _ = client.send(place, &cancel);
    }
    Ok(())
}

fn start_call(scopes: Scopes, path: &str) -> Call<'static> {
    // Some registries want the length of the empty body said (RFC 9110, section 8.6).
    Call::path(Method::POST, path, scopes).header("content-length", "0")
}

impl Upload<'_> {
    pub(crate) fn run(&self) -> Result<Arrival, StoreError> {
        let arrival = self.arrive()?;
        self.tell(
            self.blob.size,
            match arrival {
                Arrival::Exists => TransferState::Exists,
                Arrival::Mounted => TransferState::Mounted,
                Arrival::Uploaded => TransferState::Done,
            },
        );
        Ok(arrival)
    }

    fn arrive(&self) -> Result<Arrival, StoreError> {
        if self.exists().map_err(|f| self.failed(f))? {
            return Ok(Arrival::Exists);
        }
        let mut session = match self.begin().map_err(|f| self.failed(f))? {
            Begun::Mounted => return Ok(Arrival::Mounted),
            Begun::Session(session) => Some(session),
        };
        self.tell(0, TransferState::Started);
        let mut attempt = 0;
        loop {
            let outcome = self.transfer(session.take());
            let retries = self.shared.client.net.settings().retries;
            match outcome {
                Ok(()) => return Ok(Arrival::Uploaded),
                Err(Failed::Failure(failure)) if attempt < retries && may_repeat(&failure) => {
                    self.tell(0, TransferState::Retry(failure.reason.clone()));
                    self.shared.client.net.back_off(attempt).map_err(|_| StoreError::Cancelled)?;
                    attempt += 1;
                }
                Err(Failed::Failure(failure)) => return Err(self.failed(failure)),
                Err(Failed::Source(error)) => return Err(error),
            }
        }
    }

    fn exists(&self) -> Result<bool, Failure> {
        let told = |reason: &str| self.tell(0, TransferState::Retry(reason.to_owned()));
        let call = Call::path(Method::HEAD, format!("blobs/{}", self.blob.digest), self.scopes()).on_retry(&told);
        let answer = match self.shared.client.send(self.place, &call) {
            Ok(answer) => answer,
            // A login that may push and not pull: the upload will tell.
            Err(failure) if failure.kind == FailureKind::Unauthorized => return Ok(false),
            Err(failure) => return Err(failure),
        };
        match answer.response.status {
            200..300 => Ok(true),
            // Likewise, or a registry without `HEAD`.
            400..500 if !answer.response.is_transient() => Ok(false),
            _ => Err(self.shared.client.refused(self.place, answer)),
        }
    }

    fn begin(&self) -> Result<Begun, Failure> {
        for source in self.sources {
            let scopes = self.scopes().and(source, &["pull"]);
            let path = format!("blobs/uploads/?mount={}&from={source}", self.blob.digest);
            // Not being allowed to mount is no reason not to upload.
            let Ok(answer) = self.shared.client.send(self.place, &start_call(scopes, &path)) else { continue };
            match answer.response.status {
                201 => return Ok(Begun::Mounted),
                202 => return Ok(Begun::Session(session(&answer)?)),
                _ => {}
            }
        }
        self.start().map(Begun::Session)
    }

    fn start(&self) -> Result<Session, Failure> {
        let answer = self.shared.client.send(self.place, &start_call(self.scopes(), "blobs/uploads/"))?;
        match answer.response.status {
            200..300 => session(&answer),
            _ => Err(self.shared.client.refused(self.place, answer)),
        }
    }

    /// Sends the blob in `session` (a new one if none), in one stream; goes on after a cut when the registry knows how far
    /// it came; falls back to chunks where the registry does not take so much at once.
    fn transfer(&self, session: Option<Session>) -> Result<(), Failed> {
        let mut session = session.map_or_else(|| self.start(), Ok)?;
        match self.patch_all(&mut session) {
            Ok(()) => self.commit(&session),
            Err(Failed::Failure(failure)) if matches!(failure.status, Some(413 | 416)) => self.transfer_in_chunks(),
            Err(Failed::Failure(failure)) if has_no_patch(&failure) => self.transfer_at_once(),
            Err(Failed::Failure(failure)) if failure.is_transient() => self.resume(session, failure),
            Err(error) => Err(error),
        }
    }

    /// Sends the blob with the request that ends the upload: distribution-spec 1.1, «POST then PUT», which is all that some
    /// registries have and all that containerd does.
    fn transfer_at_once(&self) -> Result<(), Failed> {
        let session = self.start()?;
        let broken = Broken::default();
        let open = || self.part(0, self.blob.size, &broken);
        let sent = self.put(&session, Body::Stream { length: Some(self.blob.size), open: &open });
        match locked(&broken.0).take() {
            Some(error) => Err(Failed::Source(error)),
            None => sent,
        }
    }

    fn patch_all(&self, session: &mut Session) -> Result<(), Failed> {
        self.patch(session, 0, self.blob.size, false)
    }

    /// Sends `length` bytes of the blob from `offset` on, with or without saying which they are.
    ///
    /// Without `Content-Range`, one streamed request of any length is allowed everywhere we know of; with it there are limits.
    fn patch(&self, session: &mut Session, offset: u64, length: u64, ranged: bool) -> Result<(), Failed> {
        let broken = Broken::default();
        let open = || self.part(offset, length, &broken);
        let body = Body::Stream { length: Some(length), open: &open };
        let mut call = Call::new(Method::PATCH, Target::Url(session.location.clone()), self.scopes())
            .header("content-type", "application/octet-stream")
            .body(body)
            .once();
        if ranged {
            call = call.header("content-range", format!("{offset}-{}", offset + length.max(1) - 1));
        }
        let sent = self.shared.client.send(self.place, &call);
        drop(call);
        if let Some(error) = locked(&broken.0).take() {
            return Err(Failed::Source(error));
        }
        let answer = sent?;
        // ECR says 201, others 204.
        if !answer.response.is_success() {
            return Err(self.shared.client.refused(self.place, answer).into());
        }
        if let Ok(next) = location(&answer) {
            session.location = next;
        }
        Ok(())
    }

    /// The blob's bytes from `offset` on, `length` of them, telling of their progress. What goes wrong is left in `broken`.
    fn part(&self, offset: u64, length: u64, broken: &Broken) -> io::Result<Box<dyn Read + Send>> {
        let mut source = (self.open)().map_err(|error| broken.keep(error))?;
        let skipped = io::copy(&mut (&mut source).take(offset), &mut io::sink());
        let skipped = skipped.map_err(|error| broken.keep(StoreError::from_read(error)))?;
        let outgoing = Outgoing {
            source: source.take(length),
            observer: self.shared.observer.clone(),
            place: self.place.clone(),
            blob: self.blob.clone(),
            done: skipped,
            end: offset + length,
            told: offset,
            broken: broken.clone(),
        };
        if skipped < offset {
            return Err(outgoing.ended_early());
        }
        Ok(Box::new(outgoing))
    }

    /// After a cut: asks how much arrived and sends the rest. distribution-spec 1.1, «Pushing a blob in chunks».
    fn resume(&self, mut session: Session, cut: Failure) -> Result<(), Failed> {
        let Some(received) = self.received(&mut session).filter(|&count| count < self.blob.size) else {
            return Err(cut.into());
        };
        self.tell(received, TransferState::Retry(cut.reason.clone()));
        self.patch(&mut session, received, self.blob.size - received, true)?;
        self.commit(&session)
    }

    /// How many bytes the registry has of this session; none when it does not know the session any more.
    fn received(&self, session: &mut Session) -> Option<u64> {
        let call = Call::new(Method::GET, Target::Url(session.location.clone()), self.scopes());
        let answer = self.shared.client.send(self.place, &call).ok()?;
        if !answer.response.is_success() {
            return None;
        }
        if let Ok(next) = location(&answer) {
            session.location = next;
        }
        received_bytes(answer.response.header("range")?)
    }

    fn transfer_in_chunks(&self) -> Result<(), Failed> {
        let mut last = None;
        for size in [CHUNK_BYTES, SMALL_CHUNK_BYTES] {
            let mut session = self.start()?;
            match self.patch_in_chunks(&mut session, size) {
                Ok(()) => return self.commit(&session),
                Err(Failed::Failure(failure)) if failure.status == Some(413) => last = Some(failure),
                Err(error) => return Err(error),
            }
        }
        Err(last
            .map_or_else(|| Failure::new(FailureKind::TooLarge, "no chunk is small enough", "").into(), Failed::from))
    }

    fn patch_in_chunks(&self, session: &mut Session, size: u64) -> Result<(), Failed> {
        let size = size.max(session.min_chunk);
        let mut offset = 0;
        while offset < self.blob.size {
            let length = size.min(self.blob.size - offset);
            self.patch(session, offset, length, true)?;
            offset += length;
        }
        Ok(())
    }

    fn commit(&self, session: &Session) -> Result<(), Failed> {
        self.put(session, Body::Bytes(Bytes::new()))
    }

    /// Ends the upload, with `body` as the last of the blob.
    fn put(&self, session: &Session, body: Body<'_>) -> Result<(), Failed> {
        let separator = if session.location.contains('?') { '&' } else { '?' };
        let target = Target::Url(format!("{}{separator}digest={}", session.location, self.blob.digest));
        let call =
            Call::new(Method::PUT, target, self.scopes()).header("content-type", "application/octet-stream").body(body);
        let answer = self.shared.client.send(self.place, &call)?;
        match answer.response.is_success() {
            true => Ok(()),
            false => Err(self.shared.client.refused(self.place, answer).into()),
        }
    }

    fn scopes(&self) -> Scopes {
        Scopes::push(&self.place.repository)
    }

    fn tell(&self, done: u64, state: TransferState) {
        self.shared.tell(Direction::Push, self.place, self.blob, done, state);
    }

    fn failed(&self, failure: Failure) -> StoreError {
        failure.during("push blob", format!("{}@{}", self.place, self.blob.digest))
    }
}

/// Whether beginning again with a new session may help. A wrong digest may come from a resumption that the registry counted
/// differently than it did; an unknown upload from one that was lost.
fn may_repeat(failure: &Failure) -> bool {
    failure.is_transient()
        || failure.kind == FailureKind::WrongDigest
        || matches!(failure.code.as_deref(), Some("BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID"))
        || matches!(failure.status, Some(404 | 416))
}

/// Whether the registry takes no PATCH at all, rather than not this one.
fn has_no_patch(failure: &Failure) -> bool {
    match failure.status {
        Some(405 | 501) => true,
        Some(404) => failure.code.as_deref().is_none_or(|code| code == "UNSUPPORTED"),
        _ => failure.code.as_deref() == Some("UNSUPPORTED"),
    }
}

/// How many bytes a `Range` speaks of: `0-99` is a hundred; `0-0` is what distribution says of none, others say `0--1`.
fn received_bytes(range: &str) -> Option<u64> {
    let (first, last) = range.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0" && last > 0).then(|| last.saturating_add(1))
}

/// Why sending a blob stopped: the registry or the way there, or what was to be sent.
enum Failed {
    Failure(Failure),
    Source(StoreError),
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        Failed::Failure(failure)
    }
}

fn session(answer: &Answer) -> Result<Session, Failure> {
    let min_chunk = answer.response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
    Ok(Session { location: location(answer)?, min_chunk: min_chunk.unwrap_or(0) })
}

/// The `Location`, absolute.
fn location(answer: &Answer) -> Result<String, Failure> {
    let bad = |reason| Failure::new(FailureKind::Unexpected, reason, &answer.request);
    let given = header(&answer.response).ok_or_else(|| bad("the registry did not say where to upload to"))?;
    let base = url::Url::parse(&answer.response.final_url).map_err(|_| bad("the request's address is not valid"))?;
    let mut target = base.join(given).map_err(|_| bad("the registry gave an invalid address to upload to"))?;
    // The digest is added to the query, which has to be the end then.
    target.set_fragment(None);
    Ok(target.to_string())
}

fn header(response: &Response) -> Option<&str> {
    response.header("location").filter(|text| !text.is_empty())
}

/// What went wrong with a blob that was being sent: the HTTP client would only say that it did.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<Option<StoreError>>>);

impl Broken {
    fn keep(&self, error: StoreError) -> io::Error {
        *locked(&self.0) = Some(error);
        io::Error::other("the blob could not be read")
    }
}

/// Tells of the bytes that are read from it, and ends neither early nor late.
struct Outgoing<R> {
    source: io::Take<R>,
    observer: Arc<dyn TransferObserver>,
    place: Place,
    blob: Descriptor,
    done: u64,
    /// Where in the blob this part ends.
    end: u64,
    told: u64,
    broken: Broken,
}

impl<R: Read> Read for Outgoing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = match self.source.read(into) {
            Ok(0) if self.done < self.end && !into.is_empty() => return Err(self.ended_early()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.broken.keep(StoreError::from_read(error))),
        };
        self.done += count as u64;
        if self.done - self.told >= PROGRESS_BYTES {
            self.told = self.done;
            self.observer.transfer(&Transfer {
                direction: Direction::Push,
                what: self.blob.digest.to_string(),
                place: self.place.to_string(),
                done_bytes: self.done,
                total_bytes: Some(self.blob.size),
                state: TransferState::Progress,
            });
        }
        Ok(count)
    }
}

impl<R> Outgoing<R> {
    fn ended_early(&self) -> io::Error {
        let (digest, expected) = (self.blob.digest.clone(), self.blob.size);
        self.broken.keep(StoreError::WrongSize { digest, expected, actual: self.done })
    }
}

/// Where `layer` can be mounted from for `place`: the repository it came from, when that is on the same registry.
pub(crate) fn mount_source(layer: &Layer, place: &Place) -> Option<String> {
    let origin = layer.origin.as_ref()?;
    (origin.registry == place.registry && origin.repository != place.repository).then(|| origin.repository.clone())
}

#[cfg(test)]
mod tests {
    use super::received_bytes;

    #[test]
    fn ranges_of_uploads() {
        let cases = [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("bytes 0-99", Some(100)),
            (" 0 - 99 ", Some(100)),
            ("0-0", None),
            ("0--1", None),
            ("bytes=0--1", None),
            ("-1", None),
            ("5-99", None),
            ("99", None),
            ("0-", None),
            ("", None),
            ("0-x", None),
            ("0-18446744073709551615", Some(u64::MAX)),
        ];
        for (range, expected) in cases {
            assert_eq!(received_bytes(range), expected, "{range}");
        }
    }
}
