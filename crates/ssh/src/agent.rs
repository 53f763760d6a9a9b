//! The agent's side of the protocol (draft-miller-ssh-agent), as much of it as a step may have.

use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::key::Key;
use crate::upstream::Upstream;
use crate::wire::{Reader, put_string};

/// Most bytes of one message, without its length. As OpenSSH's agent and client have it (`ssh-agent.c` AGENT_MAX_LEN,
/// `authfd.c` MAX_AGENT_REPLY_LEN).
pub const MESSAGE_MAX: usize = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
pub(crate) const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
pub(crate) const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;
const EXTENSION_FAILURE: u8 = 28;

/// Answers what a step asks an agent for. It gets a list of the keys and signatures, and can change nothing: no key is added
/// or removed, nothing locked or unlocked, no extension used (BuildKit `sshprovider.readOnlyAgent`, there with the agent of a
/// user only; here with our own as well, which other steps use, too).
#[derive(Debug)]
pub struct Agent(Kind);

#[derive(Debug)]
enum Kind {
    Keys(Vec<Key>),
    Socket(Upstream),
}

/// What may be asked for.
enum Request<'r> {
    List,
    Sign { key: &'r [u8], data: &'r [u8], flags: u32 },
    Extension,
    Other,
}

impl<'r> Request<'r> {
    fn parse(message: &'r [u8]) -> Request<'r> {
        match message {
            [REQUEST_IDENTITIES] => Request::List,
            [SIGN_REQUEST, rest @ ..] => Request::sign(rest).unwrap_or(Request::Other),
            [EXTENSION, ..] => Request::Extension,
            _ => Request::Other,
        }
    }

    fn sign(rest: &'r [u8]) -> Option<Request<'r>> {
        let mut fields = Reader(rest);
        let request = Request::Sign { key: fields.string()?, data: fields.string()?, flags: fields.u32()? };
        fields.is_empty().then_some(request)
    }
}

impl Agent {
    /// One of our own.
    pub fn of_keys(keys: Vec<Key>) -> Agent {
        Agent(Kind::Keys(keys))
    }

    /// One that asks the agent at a socket.
    pub fn at_socket(path: &Path) -> io::Result<Agent> {
        Upstream::open(path).map(Kind::Socket).map(Agent)
    }

    /// Answers one client until it has gone. Somebody else can end this by shutting the connection down.
    pub fn serve(&self, mut connection: &UnixStream) -> io::Result<()> {
        let mut asked = None;
        while let Some(message) = read_message(&mut connection)? {
            let reply = match &self.0 {
                Kind::Keys(keys) => answer(keys, &message),
                Kind::Socket(upstream) => forward(upstream, &mut asked, &message, connection)?,
            };
            connection.write_all(&framed(&reply))?;
        }
        Ok(())
    }

    /// The answer of an agent of our own to one message.
    pub fn answer(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Kind::Keys(keys) => answer(keys, message),
            Kind::Socket(_) => vec![FAILURE],
        }
    }
}

fn answer(keys: &[Key], message: &[u8]) -> Vec<u8> {
    match Request::parse(message) {
        Request::List => {
            let mut reply = vec![IDENTITIES_ANSWER];
            reply.extend((keys.len() as u32).to_be_bytes());
            for key in keys {
                put_string(&mut reply, key.public());
                // No comment: that of a key file may be anything, and BuildKit gives none either.
                put_string(&mut reply, b"");
            }
            reply
        }
        Request::Sign { key, data, flags } => {
            let found = keys.iter().find(|known| known.public() == key);
            match found.and_then(|key| key.sign(data, flags)) {
                Some(signature) => {
                    let mut reply = vec![SIGN_RESPONSE];
                    put_string(&mut reply, &signature);
                    reply
                }
                None => vec![FAILURE],
            }
        }
        Request::Extension => vec![EXTENSION_FAILURE],
        Request::Other => vec![FAILURE],
    }
}

/// Has the user's agent answer what may be asked; the question is written anew from what was understood of it.
fn forward(
    upstream: &Upstream,
    asked: &mut Option<UnixStream>,
    message: &[u8],
    client: &UnixStream,
) -> io::Result<Vec<u8>> {
    let (question, wanted) = match Request::parse(message) {
        Request::List => (vec![REQUEST_IDENTITIES], IDENTITIES_ANSWER),
        Request::Sign { key, data, flags } => {
            let mut question = vec![SIGN_REQUEST];
            put_string(&mut question, key);
            put_string(&mut question, data);
            question.extend(flags.to_be_bytes());
            (question, SIGN_RESPONSE)
        }
        Request::Extension => return Ok(vec![EXTENSION_FAILURE]),
        Request::Other => return Ok(vec![FAILURE]),
    };
    let stream = match asked {
        Some(stream) => stream,
        None => asked.insert(upstream.connect()?),
    };
    let reply = crate::upstream::ask(stream, &framed(&question), client)?;
    Ok(if reply.first() == Some(&wanted) { reply } else { vec![FAILURE] })
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(4 + message.len());
    put_string(&mut framed, message);
    framed
}

/// The next message; none where the other side has ended the connection between two.
fn read_message(connection: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match connection.read(&mut length)? {
        0 => return Ok(None),
        count => connection.read_exact(&mut length[count..])?,
    }
    let length = length_of(length)?;
    let mut message = vec![0; length];
    connection.read_exact(&mut message)?;
    Ok(Some(message))
}

pub(crate) fn length_of(bytes: [u8; 4]) -> io::Result<usize> {
    match usize::try_from(u32::from_be_bytes(bytes)) {
        Ok(length @ 1..=MESSAGE_MAX) => Ok(length),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a message of an agent is empty or too long")),
    }
}
