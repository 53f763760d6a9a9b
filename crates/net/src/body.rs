//! Bodies between blocking readers and the runtime, through a few buffers.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::stream;
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::Url;

use crate::error::Kind;
use crate::redirect::{self, MAX_REDIRECTS};
use crate::request::{Body, Open, Request, Response};
use crate::{Net, NetError};

/// Bytes per piece of an outgoing body; at most [`PIECES`] wait, so an upload takes about half a megabyte.
const PIECE_BYTES: usize = 128 * 1024;
const PIECES: usize = 2;

/// One request on its way: which, to where.
#[derive(Clone, Copy)]
struct Trip<'a> {
    method: &'a Method,
    url: &'a Url,
}

impl Net {
    /// One attempt, with its redirects.
    pub(crate) fn follow(&self, request: &Request<'_>) -> Result<Response, NetError> {
        let mut url = Url::parse(&request.url).map_err(|e| NetError::url(&request.url, e))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(NetError::url(&request.url, "only http and https addresses can be fetched"));
        }
        let mut headers = request.headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let trip = Trip { method: &request.method, url: &url };
            let response = self.once(trip, &headers, request)?;
            let Some(next) = redirect::target(&response, &request.method, &url)? else { return Ok(response) };
            redirect::strip(&mut headers, &url, &next);
            url = next;
        }
        Err(NetError::request(&request.method, &url, Kind::Redirects))
    }

    fn once(&self, trip: Trip<'_>, headers: &HeaderMap, request: &Request<'_>) -> Result<Response, NetError> {
        if self.cancelled() {
            return Err(NetError::Cancelled);
        }
        let client = self.client(trip.url, request.http1)?;
        let mut builder = client.request(trip.method.clone(), trip.url.clone()).headers(headers.clone());
        if request.body.is_nothing() && sends_bodies(trip.method) {
            // Without it proxies answer 411: the library says how long a body is only when there is one.
            builder = builder.header(CONTENT_LENGTH, HeaderValue::from(0));
        }
        let response = match &request.body {
            Body::Empty => self.answer(trip, builder.send(), self.settings().answer_timeout)?,
            Body::Bytes(bytes) => {
                self.answer(trip, builder.body(bytes.clone()).send(), self.settings().commit_timeout)?
            }
            Body::Stream { length, open } => self.stream(trip, builder, *length, *open)?,
        };
        if let Some(proxy) =
            self.proxy_for(trip.url).filter(|_| trip.url.scheme() == "http" && response.status() == 407)
        {
            return Err(NetError::proxy_login(trip.method, trip.url, proxy));
        }
        let response_headers = response.headers().clone();
        let status = response.status().as_u16();
        let body = Arriving {
            net: self.clone(),
            method: trip.method.clone(),
            url: trip.url.clone(),
            response: Some(response),
            piece: Bytes::new(),
        };
        let arrived =
            Response { status, headers: response_headers, final_url: trip.url.to_string(), body: Box::new(body) };
        Ok(if trip.method == Method::HEAD { arrived } else { arrived.decoded() })
    }

    fn failed(&self, trip: Trip<'_>, error: reqwest::Error) -> NetError {
        NetError::from_reqwest(trip.method, trip.url, self.proxy_for(trip.url), error)
    }

    fn proxy_for(&self, url: &Url) -> Option<&Url> {
        self.inner.routes.proxy_for(url)
    }

    /// Waits for the head of the answer.
    fn answer<F>(&self, trip: Trip<'_>, sent: F, limit: Duration) -> Result<reqwest::Response, NetError>
    where
        F: Future<Output = Result<reqwest::Response, reqwest::Error>>,
    {
        match self.block_on(async { timeout(limit, sent).await })? {
            Err(_) => Err(NetError::request(trip.method, trip.url, Kind::Timeout)),
            Ok(Err(error)) => Err(self.failed(trip, error)),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// Sends what `open` gives, read here, in the calling thread, while the runtime sends. An answer that comes before the
    /// body is through (a 401 on a large upload) ends the reading.
    fn stream(
        &self,
        trip: Trip<'_>,
        builder: reqwest::RequestBuilder,
        length: Option<u64>,
        open: Open<'_>,
    ) -> Result<reqwest::Response, NetError> {
        let mut source = open().map_err(NetError::Source)?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let pieces =
            stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) });
        let mut builder = builder.body(reqwest::Body::wrap_stream(pieces));
        if let Some(length) = length {
            builder = builder.header(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut sending = Sending { task: self.runtime()?.spawn(builder.send()) };
        match self.pump(trip, &mut *source, sender, &mut sending)? {
            Some(early) => self.joined(trip, early),
            None => {
                let waited =
                    self.block_on(async { timeout(self.settings().commit_timeout, &mut sending.task).await })?;
                self.joined(trip, waited.map_err(|_| NetError::request(trip.method, trip.url, Kind::Timeout))?)
            }
        }
    }

    fn joined(&self, trip: Trip<'_>, over: Joined) -> Result<reqwest::Response, NetError> {
        match over {
            Ok(outcome) => outcome.map_err(|e| self.failed(trip, e)),
            Err(_) => Err(NetError::request(trip.method, trip.url, Kind::Other)),
        }
    }

    /// Moves `source` into `sender` until its end (none) or until `sending` is over (what it gave).
    fn pump(
        &self,
        trip: Trip<'_>,
        source: &mut dyn Read,
        sender: mpsc::Sender<io::Result<Bytes>>,
        sending: &mut Sending,
    ) -> Result<Option<Joined>, NetError> {
        loop {
            let piece = next_piece(source).map_err(NetError::Source)?;
            if piece.is_empty() {
                return Ok(None);
            }
            let task = &mut sending.task;
            let moved = self.block_on(async {
                tokio::select! {
                    biased;
                    over = &mut *task => Some(Some(over)),
                    room = timeout(self.settings().idle_timeout, sender.send(Ok(piece))) => match room {
                        Err(_) => None,
                        Ok(Ok(())) => Some(None),
                        // Nobody takes more: the answer or the failure is about to come.
                        Ok(Err(_)) => Some(Some(task.await)),
                    },
                }
            })?;
            match moved {
                None => return Err(NetError::request(trip.method, trip.url, Kind::Timeout)),
                Some(None) => {}
                Some(Some(over)) => return Ok(Some(over)),
            }
        }
    }
}

type Joined = Result<Result<reqwest::Response, reqwest::Error>, tokio::task::JoinError>;

/// A request being sent; given up when dropped.
struct Sending {
    task: JoinHandle<Result<reqwest::Response, reqwest::Error>>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a request with `method` has a body, be it an empty one (RFC 9110, 8.6).
fn sends_bodies(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Up to [`PIECE_BYTES`]; less only at the end.
fn next_piece(source: &mut dyn Read) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    source.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(Bytes::from(piece))
}

/// A body as it arrives.
struct Arriving {
    net: Net,
    method: Method,
    url: Url,
    /// None after the end or an error: what follows an error is not the body.
    response: Option<reqwest::Response>,
    piece: Bytes,
}

impl Arriving {
    fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        let Some(response) = &mut self.response else { return Ok(None) };
        let idle = self.net.settings().idle_timeout;
        match self.net.block_on(async { timeout(idle, response.chunk()).await })? {
            Err(_) => Err(NetError::request(&self.method, &self.url, Kind::Timeout)),
            Ok(outcome) => outcome.map_err(|e| self.net.failed(Trip { method: &self.method, url: &self.url }, e)),
        }
    }
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && self.response.is_some() {
            match self.next() {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => self.response = None,
                Err(error) => {
                    self.response = None;
                    return Err(error.into_io());
                }
            }
        }
        let count = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
