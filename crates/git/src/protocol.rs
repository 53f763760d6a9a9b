//! What is said to a server: the references it has, and the pack of what is wanted. Version 2 (gitprotocol-v2), and version 0
//! and 1 of servers that know no other (gitprotocol-pack, gitprotocol-http).
//!
//! Nothing is ever offered to the server («have»): every conversation begins with nothing.

use std::io::{Read, Write as _};
use std::path::Path;

use auth::Secret;
use net::Net;

use super::address::Remote;
use super::oid::{Format, Oid};
use super::pack::Pack;
use super::packet::{self, Packet, SideBand};
use super::transport::{self, Http, Stream};
use super::{Fault, Limits, Result, Stop};

const AGENT: &str = concat!("agent=zuwai/", env!("CARGO_PKG_VERSION"));
/// More than any repository is known to have; they are in memory.
const REFS_MAX: usize = 1_000_000;

/// A reference as the server has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    pub name: String,
    pub oid: Oid,
    /// What an annotated tag names in the end.
    pub peeled: Option<Oid>,
    /// What `HEAD` stands for.
    pub target: Option<String>,
}

/// What is to be sent.
pub struct Wanted<'a> {
    pub oids: &'a [Oid],
    /// How many commits of history; none for all.
    pub depth: Option<u32>,
}

/// What came: the pack, and the commits whose parents were left out.
pub struct Sent {
    pub pack: Pack,
    pub shallow: Vec<Oid>,
}

/// A conversation.
pub struct Session<'a> {
    wire: Wire<'a>,
    version: Version,
    format: Format,
}

enum Wire<'a> {
    Http(Http<'a>),
    Stream(Stream<'a>),
}

enum Version {
    Two { capabilities: Vec<String> },
    Zero { capabilities: Vec<String>, references: Vec<Reference> },
}

/// A server that knows git's protocol, or one that only has files.
pub enum Opened<'a> {
    Smart(Session<'a>),
    Dumb { http: Http<'a>, references: Vec<Reference> },
}

/// Connects, and hears what the server can do.
pub fn open<'a>(net: &'a Net, remote: &Remote, authorization: Option<Secret>) -> Result<Opened<'a>> {
    if !remote.is_http() {
        let mut stream = Stream::connect(net, remote)?;
        let (version, format) = greeting(&mut stream, None)?;
        return Ok(Opened::Smart(Session { wire: Wire::Stream(stream), version, format }));
    }
    let mut http = Http::new(net, remote, authorization);
    let mut response = http.advertisement()?;
    if response.header("content-type") != Some(transport::ADVERTISEMENT) {
        let references = super::dumb::references(&mut response)?;
        return Ok(Opened::Dumb { http, references });
    }
    let first = packet::expect(&mut response.body)?;
    let first = match first {
        Packet::Data(data) if data.starts_with(b"# service=") => {
            // Up to the flush.
            while packet::expect(&mut response.body)? != Packet::Flush {}
            None
        }
        other => Some(other),
    };
    let (version, format) = greeting(&mut response.body, first)?;
    Ok(Opened::Smart(Session { wire: Wire::Http(http), version, format }))
}

fn greeting(from: &mut dyn Read, first: Option<Packet>) -> Result<(Version, Format)> {
    let first = match first {
        Some(packet) => packet,
        None => packet::expect(from)?,
    };
    let version = match &first {
        Packet::Data(data) if packet::line(data) == b"version 2" => Version::Two { capabilities: texts(from)? },
        Packet::Data(data) if packet::line(data) == b"version 1" => advertised(from, None)?,
        _ => advertised(from, Some(first))?,
    };
    let format = version.value("object-format").map_or(Ok(Format::Sha1), Format::parse)?;
    Ok((version, format))
}

/// Lines of text up to a flush.
fn texts(from: &mut dyn Read) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    while let Packet::Data(data) = packet::expect(from)? {
        lines.push(String::from_utf8_lossy(packet::line(&data)).into_owned());
        if lines.len() > 1000 {
            return Err(Fault::server("too many capabilities"));
        }
    }
    Ok(lines)
}

/// References as versions 0 and 1 begin with them; the capabilities are behind the first one.
fn advertised(from: &mut dyn Read, first: Option<Packet>) -> Result<Version> {
    let mut next = match first {
        Some(packet) => packet,
        None => packet::expect(from)?,
    };
    let mut capabilities = Vec::new();
    let mut references: Vec<Reference> = Vec::new();
    while let Packet::Data(data) = next {
        let mut line = packet::line(&data);
        if let Some(nul) = line.iter().position(|byte| *byte == 0) {
            let text = String::from_utf8_lossy(&line[nul + 1..]).into_owned();
            capabilities = text.split_whitespace().map(str::to_owned).collect();
            line = &line[..nul];
        }
        advertised_line(line, &mut references)?;
        next = packet::expect(from)?;
    }
    for reference in &mut references {
        let symbolic = |capability: &String| {
            let (name, target) = capability.strip_prefix("symref=")?.split_once(':')?;
            (name == reference.name).then(|| target.to_owned())
        };
        reference.target = capabilities.iter().find_map(symbolic);
    }
    Ok(Version::Zero { capabilities, references })
}

/// `OID NAME`; `NAME^{}` says what the tag before it names. `shallow OID` tells nothing of use.
pub fn advertised_line(line: &[u8], references: &mut Vec<Reference>) -> Result<()> {
    let mut parts = line.splitn(2, |byte| matches!(byte, b' ' | b'\t'));
    let (first, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if first == b"shallow" || name == b"capabilities^{}" {
        return Ok(());
    }
    let oid = Oid::parse(first)?;
    // A name that is no UTF-8 cannot have been asked for.
    let Ok(name) = std::str::from_utf8(name) else { return Ok(()) };
    match (name.strip_suffix("^{}"), references.last_mut()) {
        (Some(tag), Some(last)) if last.name == tag => last.peeled = Some(oid),
        (Some(_), _) => {}
        (None, _) => push(references, Reference { name: name.to_owned(), oid, peeled: None, target: None })?,
    }
    Ok(())
}

fn push(references: &mut Vec<Reference>, reference: Reference) -> Result<()> {
    if references.len() >= REFS_MAX {
        return Err(Fault::server(format!("more than {REFS_MAX} references")));
    }
    references.push(reference);
    Ok(())
}

impl Version {
    fn capabilities(&self) -> &[String] {
        match self {
            Version::Two { capabilities } | Version::Zero { capabilities, .. } => capabilities,
        }
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.capabilities().iter().find_map(|it| it.strip_prefix(key)?.strip_prefix('='))
    }

    fn has(&self, name: &str) -> bool {
        self.capabilities().iter().any(|it| it == name)
    }

    /// Whether the command has the feature: `fetch=shallow wait-for-done`.
    fn command_has(&self, command: &str, feature: &str) -> bool {
        self.value(command).is_some_and(|features| features.split(' ').any(|it| it == feature))
    }
}

impl Session<'_> {
    pub fn format(&self) -> Format {
        self.format
    }

    /// References whose names begin with one of `prefixes` (others may come along).
    pub fn references(&mut self, prefixes: &[&str]) -> Result<Vec<Reference>> {
        if let Version::Zero { references, .. } = &self.version {
            return Ok(references.clone());
        }
        let mut body = self.command("ls-refs");
        packet::write(&mut body, "peel");
        packet::write(&mut body, "symrefs");
        for prefix in prefixes {
            packet::write(&mut body, &format!("ref-prefix {prefix}"));
        }
        packet::flush(&mut body);
        let mut references = Vec::new();
        self.ask(body, &mut |from| {
            while let Packet::Data(data) = packet::expect(from)? {
                listed_line(packet::line(&data), &mut references)?;
            }
            Ok(())
        })?;
        Ok(references)
    }

    /// Fetches the pack of what is wanted. The conversation is over then.
    pub fn fetch(mut self, wanted: &Wanted<'_>, work: &Path, limits: &Limits, stop: Stop<'_>) -> Result<Sent> {
        let two = matches!(self.version, Version::Two { .. });
        let deepens = match two {
            true => self.version.command_has("fetch", "shallow"),
            false => self.version.has("shallow"),
        };
        let depth = wanted.depth.filter(|_| deepens);
        let body = if two { self.fetch_two(wanted.oids, depth) } else { self.fetch_zero(wanted.oids, depth) };
        let (format, bands) = (self.format, two || self.version.has("side-band-64k"));
        let mut sent = None;
        self.ask(body, &mut |from| {
            let shallow = if two { before_pack_two(from)? } else { before_pack_zero(from, depth.is_some())? };
            let pack = match bands {
                true => receive(&mut SideBand::new(from), format, work, limits, stop)?,
                false => receive(from, format, work, limits, stop)?,
            };
            sent = Some(Sent { pack, shallow });
            Ok(())
        })?;
        if let Wire::Stream(stream) = &mut self.wire {
            transport::say_goodbye(stream);
        }
        sent.ok_or_else(|| Fault::cut("no pack came"))
    }

    fn command(&self, name: &str) -> Vec<u8> {
        let mut body = Vec::new();
        packet::write(&mut body, &format!("command={name}"));
        if self.version.value("agent").is_some() {
            packet::write(&mut body, AGENT);
        }
        if self.version.value("object-format").is_some() {
            packet::write(&mut body, &format!("object-format={}", self.format.name()));
        }
        packet::delimiter(&mut body);
        body
    }

    fn fetch_two(&self, oids: &[Oid], depth: Option<u32>) -> Vec<u8> {
        let mut body = self.command("fetch");
        packet::write(&mut body, "no-progress");
        packet::write(&mut body, "ofs-delta");
        if let Some(depth) = depth {
            packet::write(&mut body, &format!("deepen {depth}"));
        }
        for oid in oids {
            packet::write(&mut body, &format!("want {oid}"));
        }
        packet::write(&mut body, "done");
        packet::flush(&mut body);
        body
    }

    fn fetch_zero(&self, oids: &[Oid], depth: Option<u32>) -> Vec<u8> {
        // Some servers insist on the first one, though nothing is negotiated.
        let known = ["multi_ack_detailed", "side-band-64k", "ofs-delta", "no-progress"];
        let mut asked: Vec<String> =
            known.iter().filter(|name| self.version.has(name)).map(|name| (*name).to_owned()).collect();
        if self.version.value("agent").is_some() {
            asked.push(AGENT.to_owned());
        }
        if self.version.value("object-format").is_some() {
            asked.push(format!("object-format={}", self.format.name()));
        }
        let mut body = Vec::new();
        for (position, oid) in oids.iter().enumerate() {
            let capabilities = if position == 0 { format!(" {}", asked.join(" ")) } else { String::new() };
            packet::write(&mut body, &format!("want {oid}{capabilities}"));
        }
        if let Some(depth) = depth {
            packet::write(&mut body, &format!("deepen {depth}"));
        }
        packet::flush(&mut body);
        packet::write(&mut body, "done");
        body
    }

    /// Sends `body` and has `read` hear the answer.
    fn ask(&mut self, body: Vec<u8>, read: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        match &mut self.wire {
            Wire::Http(http) => read(&mut http.post(body)?.body),
            Wire::Stream(stream) => {
                stream.write_all(&body)?;
                read(stream)
            }
        }
    }
}

fn receive(from: &mut dyn Read, format: Format, work: &Path, limits: &Limits, stop: Stop<'_>) -> Result<Pack> {
    Pack::receive(from, format, work, limits, stop)
}

/// `OID NAME [symref-target:NAME] [peeled:OID]`
fn listed_line(line: &[u8], references: &mut Vec<Reference>) -> Result<()> {
    let Ok(line) = std::str::from_utf8(line) else { return Ok(()) };
    let mut parts = line.split(' ');
    let (oid, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    if oid == "unborn" {
        return Ok(());
    }
    let mut reference =
        Reference { name: name.to_owned(), oid: Oid::parse(oid.as_bytes())?, peeled: None, target: None };
    for attribute in parts {
        if let Some(target) = attribute.strip_prefix("symref-target:") {
            reference.target = Some(target.to_owned());
        } else if let Some(peeled) = attribute.strip_prefix("peeled:") {
            reference.peeled = Some(Oid::parse(peeled.as_bytes())?);
        }
    }
    push(references, reference)
}

/// Sections up to the one of the pack; gives the shallow commits.
fn before_pack_two(from: &mut dyn Read) -> Result<Vec<Oid>> {
    let mut shallow = Vec::new();
    loop {
        let Packet::Data(title) = packet::expect(from)? else {
            return Err(Fault::server("an answer without a pack"));
        };
        if packet::line(&title) == b"packfile" {
            return Ok(shallow);
        }
        let is_shallow = packet::line(&title) == b"shallow-info";
        loop {
            match packet::expect(from)? {
                Packet::Data(data) if is_shallow => shallow_line(packet::line(&data), &mut shallow)?,
                Packet::Data(_) => {}
                Packet::Delimiter => break,
                Packet::Flush | Packet::End => return Err(Fault::server("an answer without a pack")),
            }
        }
    }
}

fn before_pack_zero(from: &mut dyn Read, deepened: bool) -> Result<Vec<Oid>> {
    let mut shallow = Vec::new();
    if deepened {
        while let Packet::Data(data) = packet::expect(from)? {
            shallow_line(packet::line(&data), &mut shallow)?;
        }
    }
    match packet::expect(from)? {
        Packet::Data(data) if packet::line(&data) == b"NAK" => Ok(shallow),
        _ => Err(Fault::server("an answer without a pack")),
    }
}

fn shallow_line(line: &[u8], shallow: &mut Vec<Oid>) -> Result<()> {
    if let Some(oid) = line.strip_prefix(b"shallow ") {
        if shallow.len() >= REFS_MAX {
            return Err(Fault::server("too many shallow commits"));
        }
        shallow.push(Oid::parse(oid)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| packet::write(&mut bytes, line));
        packet::flush(&mut bytes);
        bytes
    }

    const A: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    const B: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    #[test]
    fn an_old_greeting() {
        let bytes = packets(&[
            &format!("{A} HEAD\0side-band-64k symref=HEAD:refs/heads/main"),
            &format!("{A} refs/heads/main"),
            &format!("{B} refs/tags/v1"),
            &format!("{A} refs/tags/v1^{{}}"),
        ]);
        let (version, format) = greeting(&mut &bytes[..], None).unwrap();
        let Version::Zero { references, .. } = &version else { panic!() };
        assert_eq!((format, version.has("side-band-64k")), (Format::Sha1, true));
        assert_eq!(references[0].target.as_deref(), Some("refs/heads/main"));
        let names: Vec<_> = references.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["HEAD", "refs/heads/main", "refs/tags/v1"]);
        assert_eq!(references[2].peeled.unwrap().to_string(), A);
    }

    #[test]
    fn a_new_greeting() {
        let bytes = packets(&["version 2", "agent=git/2", "fetch=shallow filter", "object-format=sha256"]);
        let (version, format) = greeting(&mut &bytes[..], None).unwrap();
        assert_eq!(format, Format::Sha256);
        assert!(version.command_has("fetch", "shallow") && !version.command_has("fetch", "filte"));
    }

    #[test]
    fn what_the_server_says_is_told() {
        let bytes = packets(&["ERR upload-pack: not our ref\u{1b}[31m 123"]);
        let Err(fault) = greeting(&mut &bytes[..], None) else { panic!() };
        assert!(fault.is_refusal());
        assert!(!fault.to_string().contains('\u{1b}'), "{fault}");
    }

    proptest! {
        #[test]
        fn any_greeting_ends(lines in prop::collection::vec(r"(version [0-3]|[0-9a-f]{40} |shallow )?[a-z/^{}:=\x00 -]{0,20}", 0..6)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let bytes = packets(&lines);
            let _ = greeting(&mut &bytes[..], None);
            let _ = before_pack_two(&mut &bytes[..]);
            let _ = before_pack_zero(&mut &bytes[..], true);
        }
    }
}
