//! Names to addresses, as glibc and Go do it, with the files of the system: `nsswitch.conf`, `hosts`, `resolv.conf`.
//!
//! The release is linked with musl, whose resolver gives a name up when one of its two questions (A and AAAA) or one search
//! domain is answered with an error, as the name servers of clusters and home routers do. So it is not asked.

mod files;
mod message;

pub use files::NameFiles;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use files::{Conf, Source};
use message::{Answer, Query, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// How much longer the other question is waited for when one of the two gave addresses that can be reached. Servers that
/// leave AAAA without an answer would cost ten seconds a connection.
const GRACE: Duration = Duration::from_millis(500);
/// Answers over UDP have 512 bytes; some servers send more unasked.
const UDP_BYTES: usize = 4096;

/// Why a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    #[error("no such host ({asked})")]
    NotFound { asked: String },
    #[error("{reason}")]
    Failed { reason: String },
    #[error("it is not a host name")]
    Invalid,
}

/// Looks names up. Cheap to clone; reads the files anew each time, since they change while a pod starts.
#[derive(Clone)]
pub(crate) struct Resolver {
    files: Arc<NameFiles>,
    /// Whose turn it is with `options rotate`.
    turn: Arc<AtomicUsize>,
}

/// Whether `name` means this machine, whatever name servers say (RFC 6761, 6.3).
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

impl Resolver {
    pub(crate) fn new(files: NameFiles) -> Resolver {
        Resolver { files: Arc::new(files), turn: Arc::default() }
    }

    /// The addresses of `name` (which may be an address, also in `[]` and with a zone), best first; their port is 0.
    pub(crate) async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, LookupError> {
        if let Some(address) = files::address(name.trim_start_matches('[').trim_end_matches(']')) {
            return Ok(vec![address]);
        }
        let sources = self.files.sources();
        if is_localhost(name) {
            let found = if sources.iter().any(|s| s.is(Source::FILES)) { self.files.hosts(name) } else { Vec::new() };
            let loopback = || [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(without_port).into();
            return Ok(sorted(if found.is_empty() { loopback() } else { found }));
        }
        let mut outcome = Err(LookupError::NotFound { asked: "nsswitch.conf names nobody to ask".to_owned() });
        for source in sources {
            outcome = if source.is(Source::FILES) {
                self.of_files(name)
            } else {
                self.of_servers(&self.files.conf(), name).await
            };
            match &outcome {
                Ok(_) => break,
                Err(LookupError::NotFound { .. }) if source.ends_when_absent => break,
                Err(_) => {}
            }
        }
        outcome.map(sorted)
    }

    fn of_files(&self, name: &str) -> Result<Vec<SocketAddr>, LookupError> {
        let found = self.files.hosts(name);
        match found.is_empty() {
            true => Err(LookupError::NotFound { asked: format!("looked into {}", self.files.hosts.display()) }),
            false => Ok(found),
        }
    }

    /// Every name that the search list makes of `name` until one has an address. One that fails does not stop the others.
    async fn of_servers(&self, conf: &Conf, name: &str) -> Result<Vec<SocketAddr>, LookupError> {
        let mut failed = None;
        let mut tried = Vec::new();
        for candidate in conf.candidates(name) {
            match self.both(conf, &candidate).await {
                Ok(found) if !found.is_empty() => return Ok(found.into_iter().map(without_port).collect()),
                Ok(_) => tried.push(candidate),
                Err(error) => failed = Some(failed.unwrap_or(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let servers: Vec<String> = conf.servers.iter().map(|server| server.ip().to_string()).collect();
        match tried.is_empty() {
            true => Err(LookupError::Invalid),
            false => Err(LookupError::NotFound {
                asked: format!("asked {} for `{}`", servers.join(", "), tried.join("`, `")),
            }),
        }
    }

    /// A and AAAA records of `name`; empty when there are none. What one of the questions gives is enough.
    async fn both(&self, conf: &Conf, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let start = if conf.rotate { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let mut four = pin!(ask(conf, start, name, Type::A));
        let mut six = pin!(ask(conf, start, name, Type::Aaaa));
        let (first, second) = if conf.one_at_a_time {
            let first = four.await;
            let second = patiently(&first, six).await;
            (first, second)
        } else {
            tokio::select! {
                first = &mut four => { let second = patiently(&first, six).await; (first, second) }
                first = &mut six => { let second = patiently(&first, four).await; (second, first) }
            }
        };
        match (first, second) {
            (Ok(mut four), Ok(six)) => {
                four.extend(six);
                Ok(four)
            }
            (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.look_up(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

type Found = Result<Vec<IpAddr>, LookupError>;

/// The outcome of `other`, which is waited for only shortly when `first` gave an address that can be reached.
async fn patiently(first: &Found, other: impl Future<Output = Found>) -> Found {
    match first {
        Ok(found) if found.iter().copied().any(has_route) => timeout(GRACE, other).await.unwrap_or(Ok(Vec::new())),
        _ => other.await,
    }
}

/// Asks every server of `conf`, from number `start` on, until one answers: yes or no, but no error.
async fn ask(conf: &Conf, start: usize, name: &str, kind: Type) -> Found {
    let query = Query::new(name, kind).ok_or(LookupError::Invalid)?;
    let mut reason = String::new();
    for _ in 0..conf.attempts {
        for number in 0..conf.servers.len() {
            let server = conf.servers[(start + number) % conf.servers.len()];
            let failed = match exchange(conf, server, &query).await {
                Ok(answer) => match answer.outcome() {
                    Ok(found) => return Ok(found),
                    Err(code) => format!("name server {} answered {code}", server.ip()),
                },
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    format!("name server {} did not answer", server.ip())
                }
                Err(error) => format!("name server {} could not be asked: {error}", server.ip()),
            };
            reason = format!("{failed} (asked for `{name}`, {kind:?})");
        }
    }
    Err(LookupError::Failed { reason })
}

async fn exchange(conf: &Conf, server: SocketAddr, query: &Query) -> std::io::Result<Answer> {
    if conf.tcp {
        return timeout(conf.timeout, over_tcp(server, query)).await?;
    }
    let answer = timeout(conf.timeout, over_udp(server, query)).await??;
    if !answer.truncated {
        return Ok(answer);
    }
    match timeout(conf.timeout, over_tcp(server, query)).await.map_err(Into::into).flatten() {
        // A firewall that lets no DNS over TCP through; a part of the addresses is enough to connect.
        Err(_) if !answer.addresses.is_empty() => Ok(answer),
        whole => whole,
    }
}

async fn over_udp(server: SocketAddr, query: &Query) -> std::io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    // The kernel then takes datagrams of this server alone.
    socket.connect(server).await?;
    socket.send(query.bytes()).await?;
    let mut buffer = vec![0; UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = query.answer(&buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Query) -> std::io::Result<Answer> {
    let mut stream = tokio::net::TcpStream::connect(server).await?;
    let length = u16::try_from(query.bytes().len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query.bytes()].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    query.answer(&buffer).ok_or_else(|| std::io::Error::other("the answer is to another question"))
}

fn without_port(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// What can be reached first, then by the table of RFC 6724, 2.1; otherwise in the order of the server.
fn sorted(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.sort_by_cached_key(|address| (!has_route(address.ip()), precedence(address.ip())));
    addresses.dedup();
    addresses
}

/// Whether the kernel knows a way. Nothing is sent: that is what connecting a UDP socket means.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 53))).is_ok()
}

fn precedence(address: IpAddr) -> u8 {
    match address {
        IpAddr::V6(address) if address.is_loopback() => 0,
        // 6to4, Teredo and unique local addresses rarely lead out.
        IpAddr::V6(address) => match address.segments() {
            [0x2002, ..] => 3,
            [0x2001, 0, ..] => 4,
            [first, ..] if first & 0xfe00 == 0xfc00 => 5,
            _ => 1,
        },
        IpAddr::V4(_) => 2,
    }
}

#[cfg(test)]
mod tests;
