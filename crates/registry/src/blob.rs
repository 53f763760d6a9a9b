//! Blobs as streams that survive cuts and end only with the bytes that were asked for.

use std::io::{self, Read};
use std::sync::Arc;

use http::Method;
use net::Response;
use oci::{Descriptor, Hasher};
use store::{BlobSource, Direction, StoreError, Transfer, TransferState};

use crate::Shared;
use crate::challenge::Scopes;
use crate::client::{Answer, Call, Place};
use crate::failure::{Failure, FailureKind, beside};

/// Progress is told about once per so many bytes.
pub(crate) const PROGRESS_BYTES: u64 = 512 * 1024;

/// The blobs of a repository, at the places that have it, best first.
pub(crate) struct RemoteBlobs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) places: Vec<Place>,
}

impl BlobSource for RemoteBlobs {
    /// Asks the first place that has the blob. The reader goes on where it was after a cut, and fails at its end when the
    /// bytes were not those of `blob`: what was read until then must not be trusted before.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let mut failures = Vec::new();
        for place in &self.places {
            match self.shared.download(place, blob) {
                Ok(download) => return Ok(Box::new(download)),
                Err(failure) if failure.kind == FailureKind::Cancelled => return Err(StoreError::Cancelled),
                Err(failure) => failures.push(failure.during("pull blob", format!("{place}@{}", blob.digest))),
            }
        }
        let mut failures = failures.into_iter();
        let nowhere = StoreError::Missing { digest: blob.digest.clone(), place: "no registry".to_owned() };
        let first = failures.next().unwrap_or(nowhere);
        Err(beside(first, failures.map(|failure| failure.to_string()).collect()))
    }
}

impl Shared {
    pub(crate) fn tell(&self, direction: Direction, place: &Place, blob: &Descriptor, done: u64, state: TransferState) {
        self.observer.transfer(&Transfer {
            direction,
            what: blob.digest.to_string(),
            place: place.to_string(),
            done_bytes: done,
            total_bytes: Some(blob.size),
            state,
        });
    }

    fn download(self: &Arc<Shared>, place: &Place, blob: &Descriptor) -> Result<Download, Failure> {
        let body = self.blob_from(place, blob, 0)?;
        self.tell(Direction::Pull, place, blob, 0, TransferState::Started);
        Ok(Download {
            shared: self.clone(),
            place: place.clone(),
            blob: blob.clone(),
            body: Some(body),
            hasher: Some(Hasher::like(&blob.digest)),
            done: 0,
            told: 0,
            cuts: 0,
        })
    }

    /// The blob's bytes from `offset` on.
    fn blob_from(&self, place: &Place, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Failure> {
        let told =
            |reason: &str| self.tell(Direction::Pull, place, blob, offset, TransferState::Retry(reason.to_owned()));
        let mut call =
            Call::path(Method::GET, format!("blobs/{}", blob.digest), Scopes::pull(&place.repository)).on_retry(&told);
        if offset > 0 {
            call = call.header("range", format!("bytes={offset}-"));
        }
        let answer = self.client.send(place, &call)?;
        match answer.response.status {
            200 => skip(answer, offset),
            206 if starts_at(&answer.response, offset) => Ok(answer.response.body),
            206 => Err(Failure::new(
                FailureKind::Unexpected,
                "the registry sent another part of the blob than asked",
                answer.request,
            )),
            404 => {
                let failure = self.client.refused(place, answer);
                Err(Failure { kind: FailureKind::BlobNotFound, ..failure })
            }
            _ => Err(self.client.refused(place, answer)),
        }
    }
}

/// For a server that ignores `Range`: reads over what we have.
fn skip(answer: Answer, offset: u64) -> Result<Box<dyn Read + Send>, Failure> {
    let mut body = answer.response.body;
    let skipped = io::copy(&mut (&mut body).take(offset), &mut io::sink());
    match skipped {
        Ok(count) if count == offset => Ok(body),
        Ok(_) => Err(Failure::new(FailureKind::Truncated, "the blob ended early", answer.request)),
        Err(error) => Err(from_io(&error, &answer.request)),
    }
}

/// Whether the `Content-Range` (`bytes 5-9/10`) begins at `offset`. RFC 9110, section 14.4. Without one it is what was asked
/// for, and the digest will tell.
fn starts_at(response: &Response, offset: u64) -> bool {
    let Some(range) = response.header("content-range") else { return true };
    let range = range.trim().strip_prefix("bytes").map(|range| range.trim_start_matches([' ', '=']));
    range.and_then(|r| r.split_once('-')).is_some_and(|(first, _)| first.trim().parse() == Ok(offset))
}

pub(crate) fn from_io(error: &io::Error, request: &str) -> Failure {
    match net::cause_of(error) {
        Some(cause) => Failure::from_net(cause),
        None => Failure::new(FailureKind::Network, error.to_string(), request),
    }
}

/// A blob on its way here.
struct Download {
    shared: Arc<Shared>,
    place: Place,
    blob: Descriptor,
    /// None between a cut and the next attempt, and at the end.
    body: Option<Box<dyn Read + Send>>,
    /// None after the end.
    hasher: Option<Hasher>,
    done: u64,
    told: u64,
    /// Cuts since the last byte arrived.
    cuts: u32,
}

impl Read for Download {
    /// Errors hold a [`StoreError`]: see [`StoreError::from_read`].
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || self.hasher.is_none() {
            return Ok(0);
        }
        loop {
            match self.read_some(into) {
                Ok(0) if self.done == self.blob.size => {
                    return self.finish().map_err(StoreError::into_read).map(|()| 0);
                }
                Ok(0) => self.cut(Failure::new(FailureKind::Truncated, "the blob ended early", "")),
                Ok(count) => return self.take(&into[..count]).map_err(StoreError::into_read).map(|()| count),
                Err(failure) => self.cut(failure),
            }
            .map_err(StoreError::into_read)?;
        }
    }
}

impl Download {
    fn read_some(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        let body = match &mut self.body {
            Some(body) => body,
            None => self.body.insert(self.shared.blob_from(&self.place, &self.blob, self.done)?),
        };
        body.read(into).map_err(|error| from_io(&error, ""))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.done += bytes.len() as u64;
        self.cuts = 0;
        if self.done > self.blob.size {
            return Err(self.wrong_size());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if self.done - self.told >= PROGRESS_BYTES {
            self.told = self.done;
            self.tell(TransferState::Progress);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.body = None;
        if let Some(actual) = self.hasher.take().map(Hasher::finish)
            && actual != self.blob.digest
        {
            return Err(StoreError::WrongDigest { expected: self.blob.digest.clone(), actual });
        }
        self.tell(TransferState::Done);
        Ok(())
    }

    /// Gets ready to go on after `failure`, when that is still worth it.
    fn cut(&mut self, failure: Failure) -> Result<(), StoreError> {
        // What `blob_from` gave up on has been tried often enough.
        let opening = self.body.take().is_none();
        if opening || !failure.is_transient() || self.cuts >= self.shared.client.net.settings().retries {
            return Err(match failure.kind {
                FailureKind::Truncated => self.wrong_size(),
                _ => failure.during("pull blob", format!("{}@{}", self.place, self.blob.digest)),
            });
        }
        self.tell(TransferState::Retry(failure.reason));
        self.shared.client.net.back_off(self.cuts).map_err(|_| StoreError::Cancelled)?;
        self.cuts += 1;
        Ok(())
    }

    fn wrong_size(&self) -> StoreError {
        StoreError::WrongSize { digest: self.blob.digest.clone(), expected: self.blob.size, actual: self.done }
    }

    fn tell(&self, state: TransferState) {
        self.shared.tell(Direction::Pull, &self.place, &self.blob, self.done, state);
    }
}
