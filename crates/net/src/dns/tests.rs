//! Look-ups at a name server on loopback, and beside glibc where that can be asked.

use super::*;

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

/// What the server answers.
#[derive(Clone)]
enum Reply {
    Addresses(Vec<IpAddr>),
    /// The name is another one's, whose addresses these are.
    Alias(Vec<IpAddr>),
    Code(u8),
    Silence,
    /// Over UDP: too long, and of it these.
    Truncated(Vec<IpAddr>),
    /// First an answer to another question, then this.
    AfterForged(Vec<IpAddr>),
}

use Reply::{Addresses, AfterForged, Alias, Code, Silence, Truncated};

const SERVFAIL: Reply = Code(2);
const NXDOMAIN: Reply = Code(3);
const NOTIMP: Reply = Code(4);
const REFUSED: Reply = Code(5);

/// By name, whether IPv6 is asked for, and whether it comes over TCP.
type Zone = fn(&str, bool, bool) -> Reply;

fn four(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn six(last: u16) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
}

/// A name server for as long as the tests run, and the questions that it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(ip: [u8; 4], port: u16, zone: Zone) -> std::io::Result<Server> {
        // A port that is free for datagrams may be taken for streams.
        let (udp, tcp) = (0..20)
            .find_map(|_| {
                let udp = UdpSocket::bind((IpAddr::from(ip), port)).ok()?;
                let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .ok_or(std::io::ErrorKind::AddrInUse)?;
        let address = udp.local_addr()?;
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                for answer in answers(&buffer[..length], zone, false, &log) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let log = asked.clone();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let mut unanswered = Vec::new();
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                let _ = stream.read_exact(&mut length);
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                let _ = stream.read_exact(&mut question);
                let all = answers(&question, zone, true, &log);
                for answer in &all {
                    let _ = stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], answer].concat());
                }
                if all.is_empty() {
                    unanswered.push(stream);
                }
            }
        });
        Ok(Server { address, asked })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answers(question: &[u8], zone: Zone, tcp: bool, log: &Mutex<Vec<String>>) -> Vec<Vec<u8>> {
    let (name, end) = name_in(question);
    let is_six = question[end + 1] == 28;
    log.lock().unwrap().push(format!("{name} {}{}", if is_six { "AAAA" } else { "A" }, if tcp { " tcp" } else { "" }));
    let answer = |flags: u8, code: u8, alias: bool, addresses: &[IpAddr]| {
        let mut bytes = question[..end + 4].to_vec();
        bytes[2..12].copy_from_slice(&[0x81 | flags, 0x80 | code, 0, 1, 0, 0, 0, 0, 0, 0]);
        let fitting: Vec<_> = addresses.iter().filter(|address| address.is_ipv6() == is_six).collect();
        bytes[7] = u8::try_from(fitting.len()).unwrap() + u8::from(alias);
        let mut owner = vec![0xc0, 12];
        if alias {
            bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 6, 4, b'r', b'e', b'a', b'l', 0]);
            owner = vec![4, b'r', b'e', b'a', b'l', 0];
        }
        for address in fitting {
            bytes.extend(&owner);
            match address {
                IpAddr::V4(address) => bytes.extend([&[0, 1, 0, 1, 0, 0, 0, 9, 0, 4][..], &address.octets()].concat()),
                IpAddr::V6(address) => {
                    bytes.extend([&[0, 28, 0, 1, 0, 0, 0, 9, 0, 16][..], &address.octets()].concat())
                }
            }
        }
        bytes
    };
    match zone(&name, is_six, tcp) {
        Addresses(found) => vec![answer(0, 0, false, &found)],
        Alias(found) => vec![answer(0, 0, true, &found)],
        Code(code) => vec![answer(0, code, false, &[])],
        Silence => Vec::new(),
        Truncated(found) => vec![answer(2, 0, false, &found)],
        AfterForged(found) => {
            let mut forged = answer(0, 0, false, &[four(66), six(66)]);
            forged[0] ^= 1;
            vec![forged, answer(0, 0, false, &found)]
        }
    }
}

/// The name in a question, and where its type begins.
fn name_in(question: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..at + 1 + length]).into_owned());
        at += 1 + length;
    }
    (labels.join("."), at + 1)
}

/// What is found in `zone`, as text, with these lines in resolv.conf, and what was asked.
fn found_with(zone: Zone, lines: &str, name: &str) -> (Result<Vec<String>, String>, Vec<String>) {
    let server = Server::start([127, 0, 0, 1], 0, zone).unwrap();
    let mut conf = Conf::parse(lines, "pod");
    conf.servers = vec![server.address];
    (look_up(&conf, name), server.asked())
}

fn look_up(conf: &Conf, name: &str) -> Result<Vec<String>, String> {
    let resolver = Resolver::new(NameFiles::within("/nonexistent".as_ref()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    texts(runtime.block_on(resolver.of_servers(conf, name)))
}

fn texts(found: Result<Vec<SocketAddr>, LookupError>) -> Result<Vec<String>, String> {
    let mut texts: Vec<_> = found.map_err(|error| error.to_string())?.iter().map(|a| a.ip().to_string()).collect();
    texts.sort();
    Ok(texts)
}

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// One address is enough, whatever happens to the question for the other kind.
#[test]
fn one_of_the_two_questions_fails() {
    let cases: [(&str, Zone, &[&str]); 12] = [
        ("both", |_, _, _| Addresses(vec![four(1), six(1)]), &BOTH),
        ("AAAA: no such name", |_, six, _| if six { NXDOMAIN } else { Addresses(vec![four(1)]) }, &BOTH[..1]),
        ("AAAA: none", |_, six, _| Addresses(if six { vec![] } else { vec![four(1)] }), &BOTH[..1]),
        ("AAAA: SERVFAIL", |_, six, _| if six { SERVFAIL } else { Addresses(vec![four(1)]) }, &BOTH[..1]),
        ("AAAA: NOTIMP", |_, six, _| if six { NOTIMP } else { Addresses(vec![four(1)]) }, &BOTH[..1]),
        ("AAAA: REFUSED", |_, six, _| if six { REFUSED } else { Addresses(vec![four(1)]) }, &BOTH[..1]),
        ("AAAA: FORMERR", |_, six, _| if six { Code(1) } else { Addresses(vec![four(1)]) }, &BOTH[..1]),
        ("AAAA: an error without name", |_, six, _| if six { Code(9) } else { Addresses(vec![four(1)]) }, &BOTH[..1]),
        ("AAAA: silence", |_, six, _| if six { Silence } else { Addresses(vec![four(1)]) }, &BOTH[..1]),
        ("A: SERVFAIL", |_, is_six, _| if is_six { Addresses(vec![six(1)]) } else { SERVFAIL }, &BOTH[1..]),
        ("aliases", |_, _, _| Alias(vec![four(1), six(1)]), &BOTH),
        ("forged answers", |_, _, _| AfterForged(vec![four(1), six(1)]), &BOTH),
    ];
    for (name, zone, expected) in cases {
        for options in ["timeout:1 attempts:1", "timeout:1 attempts:1 single-request", "timeout:1 attempts:1 use-vc"] {
            // A forged answer over TCP would be the server's own.
            if options.ends_with("use-vc") && name == "forged answers" {
                continue;
            }
            let (found, asked) = found_with(zone, &format!("options {options}"), "host.example");
            assert_eq!(found, Ok(strings(expected)), "{name}, {options}: {asked:?}");
        }
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_search_domain_that_fails_does_not_end_the_search() {
    let search = "search one.example two.example\noptions ndots:5 timeout:1 attempts:1";
    let failing: [(&str, Zone); 5] = [
        ("SERVFAIL", |name, _, _| if name.contains("one.") { SERVFAIL } else { at_home(name) }),
        ("REFUSED", |name, _, _| if name.contains("one.") { REFUSED } else { at_home(name) }),
        ("NOTIMP", |name, _, _| if name.contains("one.") { NOTIMP } else { at_home(name) }),
        ("NXDOMAIN", |name, _, _| if name.contains("one.") { NXDOMAIN } else { at_home(name) }),
        ("silence", |name, _, _| if name.contains("one.") { Silence } else { at_home(name) }),
    ];
    for (error, zone) in failing {
        for (name, expected) in
            [("host", "192.0.2.2"), ("registry.example", "192.0.2.1"), ("registry.example.", "192.0.2.1")]
        {
            let (found, asked) = found_with(zone, search, name);
            assert_eq!(found, Ok(vec![expected.to_owned()]), "{error}, {name}: {asked:?}");
        }
    }
}

/// `host` in the second search domain, `registry.example` nowhere.
fn at_home(name: &str) -> Reply {
    match name {
        "host.two.example" => Addresses(vec![four(2)]),
        "registry.example" => Addresses(vec![four(1)]),
        _ => NXDOMAIN,
    }
}

#[test]
fn names_with_dots_enough_are_asked_for_as_they_are() {
    let zone: Zone = |name, _, _| if name == "registry.example" { Addresses(vec![four(1)]) } else { NXDOMAIN };
    let (found, asked) = found_with(zone, "search one.example", "registry.example");
    assert_eq!(found, Ok(vec!["192.0.2.1".to_owned()]));
    assert!(asked.iter().all(|question| !question.contains("one.example")), "{asked:?}");
}

#[test]
fn answers_that_are_too_long_are_asked_for_over_tcp() {
    let many = |_: &str, is_six: bool, tcp: bool| match (is_six, tcp) {
        (true, _) => NXDOMAIN,
        (false, false) => Truncated(vec![four(1)]),
        (false, true) => Addresses((1..=200).map(four).collect()),
    };
    assert_eq!(found_with(many, "", "host.example").0.unwrap().len(), 200);
    // TCP that leads nowhere: what came is taken.
    let blocked: Zone = |_, six, tcp| if six || tcp { Silence } else { Truncated(vec![four(1)]) };
    let (found, _) = found_with(blocked, "options timeout:1 attempts:1", "host.example");
    assert_eq!(found, Ok(vec!["192.0.2.1".to_owned()]));
}

#[test]
fn the_next_server_is_asked_when_one_fails() {
    let good = Server::start([127, 0, 0, 1], 0, |_, _, _| Addresses(vec![four(1)])).unwrap();
    let zones: [(&str, Zone); 3] =
        [("SERVFAIL", |_, _, _| SERVFAIL), ("REFUSED", |_, _, _| REFUSED), ("silence", |_, _, _| Silence)];
    for (name, zone) in zones {
        let bad = Server::start([127, 0, 0, 1], 0, zone).unwrap();
        let mut conf = Conf::parse("options timeout:1", "pod");
        conf.servers = vec![bad.address, good.address];
        assert_eq!(look_up(&conf, "host.example"), Ok(vec!["192.0.2.1".to_owned()]), "{name}");
    }
    // Nobody there at all.
    let mut conf = Conf::parse("", "pod");
    conf.servers = vec!["127.0.0.1:1".parse().unwrap(), good.address];
    assert_eq!(look_up(&conf, "host.example"), Ok(vec!["192.0.2.1".to_owned()]));
}

#[test]
fn a_name_that_does_not_resolve_says_who_was_asked() {
    let (absent, _) = found_with(|_, _, _| NXDOMAIN, "search one.example", "host");
    assert_eq!(absent.unwrap_err(), "no such host (asked 127.0.0.1 for `host.one.example`, `host`)");
    let (failed, _) = found_with(|_, _, _| SERVFAIL, "", "host.example");
    assert!(
        failed.as_ref().is_err_and(|text| text.starts_with("name server 127.0.0.1 answered SERVFAIL")),
        "{failed:?}"
    );
    let (silent, _) = found_with(|_, _, _| Silence, "options timeout:1 attempts:1", "host.example");
    assert!(silent.as_ref().is_err_and(|text| text.contains("did not answer")), "{silent:?}");
    let (invalid, _) = found_with(|_, _, _| Silence, "", "a..b");
    assert_eq!(invalid.unwrap_err(), "it is not a host name");
}

/// Silence for IPv6 costs a moment, not the ten seconds of all attempts.
#[test]
fn silence_for_addresses_that_are_not_needed_is_short() {
    let zone: Zone = |_, six, _| if six { Silence } else { Addresses(vec![[127, 0, 0, 2].into()]) };
    let started = Instant::now();
    assert_eq!(found_with(zone, "", "host.example").0, Ok(vec!["127.0.0.2".to_owned()]));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// A resolver with these files in a directory of its own.
fn with_files(files: &[(&str, &str)]) -> (Resolver, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    (Resolver::new(NameFiles::within(dir.path())), dir)
}

fn resolved(resolver: &Resolver, name: &str) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    texts(runtime.block_on(resolver.look_up(name)))
}

#[test]
fn names_that_no_server_is_asked_for() {
    let (resolver, _dir) = with_files(&[("hosts", "192.0.2.7 own.example own\n"), ("nsswitch.conf", "hosts: files")]);
    for (name, expected) in [
        ("own", &["192.0.2.7"][..]),
        ("OWN.example.", &["192.0.2.7"]),
        ("localhost", &["127.0.0.1", "::1"]),
        ("registry.LOCALHOST", &["127.0.0.1", "::1"]),
        ("localhost.", &["127.0.0.1", "::1"]),
        ("192.0.2.9", &["192.0.2.9"]),
        ("[::1]", &["::1"]),
        ("::1", &["::1"]),
    ] {
        assert_eq!(resolved(&resolver, name), Ok(strings(expected)), "{name}");
    }
    assert!(resolved(&resolver, "other.example").is_err());
    // Without any file.
    let (resolver, _dir) = with_files(&[]);
    assert_eq!(resolved(&resolver, "localhost"), Ok(strings(&["127.0.0.1", "::1"])));
    // The file knows better where localhost is.
    let (resolver, _dir) = with_files(&[("hosts", "127.0.0.5 localhost")]);
    assert_eq!(resolved(&resolver, "localhost"), Ok(vec!["127.0.0.5".to_owned()]));
}

/// The same files for us and for `getent`, at a server on port 53 of an address of loopback: root's alone.
#[test]
fn what_glibc_finds_is_found() {
    let zone: Zone = |name, is_six, tcp| match (name, is_six, tcp) {
        ("plain.example", _, _) => Addresses(vec![four(1)]),
        ("alias.example", _, _) => Alias(vec![four(2)]),
        ("servfail6.example", true, _) => SERVFAIL,
        ("refused6.example", true, _) => REFUSED,
        ("notimp6.example", true, _) => NOTIMP,
        ("nxdomain6.example", true, _) => NXDOMAIN,
        ("servfail6.example" | "refused6.example" | "notimp6.example" | "nxdomain6.example", ..) => {
            Addresses(vec![four(3)])
        }
        ("long.example", false, false) => Truncated(vec![four(1)]),
        ("long.example", false, true) => Addresses((1..=60).map(four).collect()),
        ("short.two.example", ..) => Addresses(vec![four(4)]),
        (name, ..) if name.ends_with("one.example") => SERVFAIL,
        _ => NXDOMAIN,
    };
    let Ok(_server) = Server::start([127, 53, 53, 53], 53, zone) else {
        eprintln!("SKIPPED: what_glibc_finds_is_found needs port 53 (root)");
        return;
    };
    let (resolver, dir) = with_files(&[
        (
            "resolv.conf",
            "nameserver 127.53.53.53\nsearch one.example two.example\noptions timeout:2 attempts:1 ndots:2\n",
        ),
        ("hosts", "192.0.2.70 file.example file\n192.0.2.71 file.example\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ]);
    let glibc = |name: &str| {
        let script =
            "cd \"$1\" && for file in *; do mount --bind $file /etc/$file || exit 77; done; getent ahostsv4 \"$2\"";
        let mut unshare = Command::new("unshare");
        let output = unshare.args(["-m", "sh", "-c", script, "sh"]).arg(dir.path()).arg(name).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut found: Vec<String> = text
            .lines()
            .filter(|l| l.contains("STREAM"))
            .filter_map(|l| Some(l.split(' ').next()?.to_owned()))
            .collect();
        found.sort();
        (output.status.code() != Some(77)).then_some(found)
    };
    if glibc("plain.example") != Some(vec!["192.0.2.1".to_owned()]) {
        eprintln!("SKIPPED: what_glibc_finds_is_found needs a mount namespace and getent");
        return;
    }
    for name in [
        "plain.example",
        "plain.example.",
        "alias.example",
        "servfail6.example",
        "refused6.example",
        "notimp6.example",
        "nxdomain6.example",
        "long.example",
        "short",
        "short.two.example",
        "file",
        "file.example",
        "absent.example",
        "absent",
    ] {
        let ours: Vec<String> = resolved(&resolver, name).unwrap_or_default();
        assert_eq!(Some(ours), glibc(name), "{name}");
    }
}
