//! The agent as clients see it: messages by hand, any bytes at all, and OpenSSH's own programs where they are installed.

#![expect(clippy::print_stderr, reason = "a skipped check is said aloud")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use proptest::prelude::*;
use zuwai_ssh::{Agent, Key, KeyError, MESSAGE_MAX};

/// RFC 8032 section 7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const OF_NOTHING: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn pem(label: &str, content: &[u8]) -> Vec<u8> {
    let body = base64::engine::general_purpose::STANDARD.encode(content);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
}

/// A key file as OpenSSH writes it, with this cipher's name.
fn openssh_file(cipher: &str, seed: &[u8]) -> Vec<u8> {
    let public = [string(b"ssh-ed25519"), string(&hex(PUBLIC))].concat();
    let pair = [seed, &hex(PUBLIC)].concat();
    let private = [vec![7; 8], public.clone(), string(&pair), string(b"me"), vec![1, 2, 3]].concat();
    let head = [string(cipher.as_bytes()), string(b"none"), string(b""), 1u32.to_be_bytes().to_vec()].concat();
    [b"openssh-key-v1\0".to_vec(), head, string(&public), string(&private)].concat()
}

fn known_key() -> Key {
    Key::parse(&pem("OPENSSH PRIVATE KEY", &openssh_file("none", &hex(SEED)))).unwrap()
}

fn sign_request(public: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
    [vec![13], string(public), string(data), flags.to_be_bytes().to_vec()].concat()
}

#[test]
fn it_lists_and_signs_and_nothing_else() {
    let agent = Agent::of_keys(vec![known_key()]);
    let public = [string(b"ssh-ed25519"), string(&hex(PUBLIC))].concat();
    let list = [vec![12, 0, 0, 0, 1], string(&public), string(b"")].concat();
    assert_eq!(agent.answer(&[11]), list);
    let signature = [string(b"ssh-ed25519"), string(&hex(OF_NOTHING))].concat();
    assert_eq!(agent.answer(&sign_request(&public, b"", 0)), [vec![14], string(&signature)].concat());
    // A key that it does not have, and requests that are not whole.
    for bad in [sign_request(b"x", b"", 0), sign_request(&public, b"", 0)[..20].to_vec(), vec![13], vec![11, 0]] {
        assert_eq!(agent.answer(&bad), [5], "{bad:?}");
    }
    assert_eq!(agent.answer(&[sign_request(&public, b"", 0), vec![0]].concat()), [5], "something after it");
    // Adding, removing, locking, unlocking, smart cards, the first version of the protocol.
    for kind in (0..=255).filter(|kind| ![11, 13, 27].contains(kind)) {
        assert_eq!(agent.answer(&[vec![kind], string(&public)].concat()), [5], "{kind}");
    }
    assert_eq!(agent.answer(&[vec![27], string(b"session-bind@openssh.com")].concat()), [28]);
    assert_eq!(agent.answer(&[11]), list, "and nothing has changed");
    assert!(!format!("{agent:?}").contains("157"), "{agent:?}");
}

#[test]
fn other_forms_of_the_same_key() {
    // RFC 8410 section 7: version, algorithm, key.
    let pkcs8 = [hex("302e020100300506032b657004220420"), hex(SEED)].concat();
    let key = Key::parse(&pem("PRIVATE KEY", &pkcs8)).unwrap();
    assert_eq!(key.public(), known_key().public());
    let encrypted = openssh_file("aes256-ctr", &hex(SEED));
    assert_eq!(Key::parse(&pem("OPENSSH PRIVATE KEY", &encrypted)).unwrap_err(), KeyError::Encrypted);
    let damaged = openssh_file("none", &hex(SEED)[..10]);
    assert!(Key::parse(&pem("OPENSSH PRIVATE KEY", &damaged)).is_err());
}

/// A client of `agent`, and the thread that serves it.
fn client(agent: &Arc<Agent>) -> (UnixStream, std::thread::JoinHandle<std::io::Result<()>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let agent = agent.clone();
    (ours, std::thread::spawn(move || agent.serve(&theirs)))
}

fn ask(stream: &mut UnixStream, message: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(&string(message))?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn messages_are_bounded() {
    let agent = Arc::new(Agent::of_keys(vec![known_key()]));
    let (mut stream, served) = client(&agent);
    assert_eq!(ask(&mut stream, &vec![9; MESSAGE_MAX]).unwrap(), [5]);
    assert_eq!(ask(&mut stream, &[11]).unwrap()[0], 12);
    drop(stream);
    served.join().unwrap().unwrap();
    for length in [0, MESSAGE_MAX as u32 + 1, u32::MAX] {
        let (mut stream, served) = client(&agent);
        stream.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{length}");
        assert!(served.join().unwrap().is_err());
    }
    let (mut stream, served) = client(&agent);
    stream.write_all(&[0, 0, 0, 9, 1]).unwrap();
    drop(stream);
    assert!(served.join().unwrap().is_err(), "it ends in the middle of a message");
}

/// What somebody's agent was asked, with answers that are told beforehand.
fn user_agent(path: &Path, answers: Vec<Vec<u8>>) -> std::thread::JoinHandle<Vec<Vec<u8>>> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        for answer in answers {
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut message).unwrap();
            asked.push(message);
            stream.write_all(&answer).unwrap();
        }
        asked
    })
}

#[test]
fn the_users_agent_is_asked_what_may_be_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let list = vec![12, 0, 0, 0, 0];
    let answers = [list.clone(), vec![14, 0, 0, 0, 0], vec![6], vec![5]].map(|answer| string(&answer)).to_vec();
    let user = user_agent(&path, answers);
    let agent = Arc::new(Agent::at_socket(&path).unwrap());
    // Found once: whatever is at its path later is another's.
    std::fs::rename(&path, directory.path().join("moved")).unwrap();
    let (mut stream, _) = client(&agent);
    for refused in [&[1][..], &[9], &[17], &[18, 0], &[19], &[20], &[21], &[22], &[23], &[25], &[26], &[11, 1], &[13]] {
        assert_eq!(ask(&mut stream, refused).unwrap(), [5], "{refused:?}");
    }
    assert_eq!(ask(&mut stream, &[27, 0, 0, 0, 0]).unwrap(), [28]);
    assert_eq!(ask(&mut stream, &[11]).unwrap(), list);
    let sign = sign_request(b"key", b"data", 4);
    assert_eq!(ask(&mut stream, &sign).unwrap(), [14, 0, 0, 0, 0]);
    // Answers that do not answer.
    assert_eq!(ask(&mut stream, &sign).unwrap(), [5]);
    assert_eq!(ask(&mut stream, &[11]).unwrap(), [5]);
    assert_eq!(user.join().unwrap(), [vec![11], sign.clone(), sign, vec![11]]);
    assert!(Agent::at_socket(&path).is_err(), "not there");
    assert!(Agent::at_socket(directory.path()).is_err(), "no socket");
}

#[test]
fn nobody_waits_for_an_agent_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let _listener = UnixListener::bind(&path).unwrap();
    let agent = Arc::new(Agent::at_socket(&path).unwrap());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, ending) = (ours, theirs.try_clone().unwrap());
    let served = std::thread::spawn(move || agent.serve(&theirs));
    ours.write_all(&string(&[11])).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(!served.is_finished());
    // As at the end of a step.
    ending.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(served.join().unwrap().is_err());
    // Too long an answer.
    let user = user_agent(&directory.path().join("other"), vec![u32::MAX.to_be_bytes().to_vec()]);
    let agent = Arc::new(Agent::at_socket(&directory.path().join("other")).unwrap());
    let (mut stream, served) = client(&agent);
    assert!(ask(&mut stream, &[11]).is_err());
    assert!(served.join().unwrap().is_err());
    user.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_key_file_is_a_key_or_an_error(content in prop::collection::vec(any::<u8>(), 0..300), label in 0usize..4) {
        let _ = Key::parse(&content);
        let label = ["OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"][label];
        let _ = Key::parse(&pem(label, &content));
    }

    #[test]
    fn a_key_with_another_byte_is_a_key_or_an_error(at in 0usize..200, byte in any::<u8>(), end in 0usize..300) {
        let mut file = openssh_file("none", &hex(SEED));
        if let Some(found) = file.get_mut(at) {
            *found = byte;
        }
        file.truncate(end);
        let _ = Key::parse(&pem("OPENSSH PRIVATE KEY", &file));
    }

    #[test]
    fn any_message_has_an_answer(kind in any::<u8>(), message in prop::collection::vec(any::<u8>(), 0..100)) {
        let agent = Agent::of_keys(vec![known_key()]);
        prop_assert!(!agent.answer(&message).is_empty());
        for kind in [kind, 13] {
            prop_assert!(!agent.answer(&[vec![kind], message.clone()].concat()).is_empty());
        }
    }
}

fn succeeded(output: &Output) -> bool {
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

fn keygen(directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = directory.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-C", "me", "-f"]).arg(&path).args(arguments).output();
    assert!(succeeded(&made.unwrap()), "{arguments:?}");
    path
}

/// Serves an agent at a path until the test ends.
fn serve_at(path: &Path, agent: Agent) {
    let (listener, agent) = (UnixListener::bind(path).unwrap(), Arc::new(agent));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let agent = agent.clone();
            std::thread::spawn(move || agent.serve(&stream));
        }
    });
}

/// Has OpenSSH list every key, sign with it through the agent, and verify the signature.
#[test]
fn openssh_is_content() {
    if Command::new("ssh-keygen").arg("-?").output().is_err() {
        eprintln!("SKIPPED: no ssh-keygen (Debian: openssh-client)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let kinds: &[(&str, &[&str])] = &[
        ("ed25519", &["-t", "ed25519", "-N", ""]),
        ("p256", &["-t", "ecdsa", "-b", "256", "-N", ""]),
        ("p384", &["-t", "ecdsa", "-b", "384", "-N", ""]),
        ("rsa2048", &["-t", "rsa", "-b", "2048", "-N", ""]),
        ("rsa3072", &["-t", "rsa", "-b", "3072", "-N", ""]),
        ("rsa-pem", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"]),
        ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PKCS8"]),
        ("p256-pem", &["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PEM"]),
        ("p384-pkcs8", &["-t", "ecdsa", "-b", "384", "-N", "", "-m", "PKCS8"]),
    ];
    let paths: Vec<PathBuf> = kinds.iter().map(|(name, arguments)| keygen(directory, name, arguments)).collect();
    let read = |path: &PathBuf| Key::parse(&std::fs::read(path).unwrap());
    let keys = paths.iter().map(|path| read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    let socket = directory.join("agent");
    serve_at(&socket, Agent::of_keys(keys.collect()));
    std::fs::write(directory.join("text"), "text\n").unwrap();
    for path in &paths {
        check_with_openssh(directory, path, &socket);
    }
    let listed = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), paths.len());
    let removed = Command::new("ssh-add").arg("-D").env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert!(!removed.status.success());
    for (name, arguments, wanted) in [
        ("locked", &["-t", "ed25519", "-N", "secret"][..], KeyError::Encrypted),
        ("locked-pem", &["-t", "rsa", "-b", "2048", "-N", "secret", "-m", "PEM"], KeyError::Encrypted),
        ("locked-pkcs8", &["-t", "rsa", "-b", "2048", "-N", "secret", "-m", "PKCS8"], KeyError::Encrypted),
        ("p521", &["-t", "ecdsa", "-b", "521", "-N", ""], KeyError::Kind("ecdsa-sha2-nistp521".to_owned())),
    ] {
        assert_eq!(read(&keygen(directory, name, arguments)).unwrap_err(), wanted, "{name}");
    }
    assert_eq!(read(&directory.join("ed25519.pub")).unwrap_err(), KeyError::NoKey);
}

fn check_with_openssh(directory: &Path, key: &Path, socket: &Path) {
    let (text, public) = (directory.join("text"), key.with_extension("pub"));
    let signature = directory.join("text.sig");
    let _ = std::fs::remove_file(&signature);
    // With the public key alone: the private one is the agent's.
    let alone = directory.join("alone.pub");
    std::fs::copy(&public, &alone).unwrap();
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-Y", "sign", "-n", "file", "-f"]).arg(&alone).arg(&text).env("SSH_AUTH_SOCK", socket);
    assert!(succeeded(&sign.output().unwrap()), "{}", key.display());
    let signers = directory.join("signers");
    std::fs::write(&signers, format!("me {}", std::fs::read_to_string(&public).unwrap())).unwrap();
    let mut verify = Command::new("ssh-keygen");
    verify.args(["-Y", "verify", "-I", "me", "-n", "file", "-f"]).arg(&signers).arg("-s").arg(&signature);
    verify.stdin(std::fs::File::open(&text).unwrap());
    assert!(succeeded(&verify.output().unwrap()), "{}", key.display());
}
