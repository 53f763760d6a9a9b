//! OpenSSH's own format of private keys (openssh-portable `PROTOCOL.key`).

use crate::key::{Ecdsa, Key, KeyError, Rsa};
use crate::wire::Reader;

const MAGIC: &[u8] = b"openssh-key-v1\0";

pub fn parse(content: &[u8]) -> Result<Key, KeyError> {
    let mut file = Reader(content.strip_prefix(MAGIC).ok_or(KeyError::Malformed)?);
    let cipher = file.string().ok_or(KeyError::Malformed)?;
    if cipher != b"none" {
        return Err(KeyError::Encrypted);
    }
    let mut outer = || {
        let (_kdf, _options) = (file.string()?, file.string()?);
        // More than one key has never been written.
        if file.u32()? != 1 {
            return None;
        }
        let _public = file.string()?;
        file.string()
    };
    let mut private = Reader(outer().ok_or(KeyError::Malformed)?);
    let checks = [private.u32(), private.u32()];
    if checks[0].is_none() || checks[0] != checks[1] {
        return Err(KeyError::Malformed);
    }
    // A comment and padding follow.
    key(&mut private)
}

fn key(fields: &mut Reader<'_>) -> Result<Key, KeyError> {
    let kind = fields.string().ok_or(KeyError::Malformed)?;
    match kind {
        b"ssh-ed25519" => {
            let (_public, private) = (fields.string(), fields.string());
            // The seed, and the public key once more.
            let (seed, public) = private.and_then(|private| private.split_at_checked(32)).ok_or(KeyError::Malformed)?;
            Key::ed25519(seed, Some(public))
        }
        b"ssh-rsa" => {
            let mut next = || fields.number().ok_or(KeyError::Malformed);
            let (n, e, d, coefficient, p, q) = (next()?, next()?, next()?, next()?, next()?, next()?);
            Key::rsa(&Rsa { n, e, d, p, q, exponents: None, coefficient })
        }
        _ => match Ecdsa::of_key_type(kind) {
            Some(curve) => {
                let (_name, public, private) = (fields.string(), fields.string(), fields.number());
                Key::ecdsa(curve, private.ok_or(KeyError::Malformed)?, public.ok_or(KeyError::Malformed)?)
            }
            None => Err(KeyError::kind(kind)),
        },
    }
}
