//! The bytes of a question and of its answer (RFC 1035, 4).

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

const HEADER_BYTES: usize = 12;
const CLASS_IN: u16 = 1;
/// Of a name, with its length bytes.
const NAME_BYTES: usize = 255;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Type {
    A = 1,
    Aaaa = 28,
}

/// One question, ready to be sent.
pub struct Query {
    bytes: Vec<u8>,
    kind: Type,
}

/// What a server said.
#[derive(PartialEq, Eq, Debug)]
pub struct Answer {
    code: u8,
    /// Not from a server that can know: neither does it answer for the domain, nor does it ask others.
    referral: bool,
    pub truncated: bool,
    pub addresses: Vec<IpAddr>,
}

impl Query {
    /// None for what cannot be a name.
    pub fn new(name: &str, kind: Type) -> Option<Query> {
        let id = (RandomState::new().hash_one(name) & 0xffff) as u16;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
        // One question, recursion desired.
        for word in [id, 0x0100, 1, 0, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        for label in name.strip_suffix('.').unwrap_or(name).split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            bytes.push(length);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        if bytes.len() - HEADER_BYTES > NAME_BYTES {
            return None;
        }
        bytes.extend((kind as u16).to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        Some(Query { bytes, kind })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `bytes` as the answer to this question; none when they are something else, a forged or late answer.
    pub fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let mut reader = Reader { bytes, at: 0 };
        let (id, flags) = (reader.word()?, reader.word()?);
        let (questions, answers) = (reader.word()?, reader.word()?);
        reader.skip(4)?;
        let code = (flags & 0xf) as u8;
        let is_answer = flags & 0x8000 != 0 && flags & 0x7800 == 0;
        if !is_answer || !self.bytes.starts_with(&id.to_be_bytes()) {
            return None;
        }
        match questions {
            1 => {
                let asked = &self.bytes[HEADER_BYTES..];
                // Lengths are below 64: only letters have another case.
                if !reader.take(asked.len())?.eq_ignore_ascii_case(asked) {
                    return None;
                }
            }
            // Servers that do not know what they were asked repeat nothing.
            0 if code != 0 => {}
            _ => return None,
        }
        let mut addresses = Vec::new();
        for _ in 0..answers {
            // A broken record ends what can be read.
            let Some(record) = reader.record() else { break };
            addresses.extend(record.filter(|(kind, _)| *kind == self.kind as u16).map(|(_, address)| address));
        }
        let referral = flags & 0x0480 == 0 && answers == 0;
        Some(Answer { code, referral, truncated: flags & 0x0200 != 0, addresses })
    }
}

impl Answer {
    /// The addresses, none when there is no such name or it has none of this kind; else the error that the server told.
    pub fn outcome(self) -> Result<Vec<IpAddr>, String> {
        const NAMES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
        match self.code {
            0 if self.referral => Err("with nothing but other servers".to_owned()),
            0 | 3 => Ok(self.addresses),
            code => {
                Err(NAMES.get(usize::from(code)).map_or_else(|| format!("error {code}"), |name| (*name).to_owned()))
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Over a name: labels up to an empty one, or up to a pointer to the rest.
    fn name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                length if length < 64 => self.skip(length.into())?,
                length if length >= 0xc0 => return self.skip(1),
                _ => return None,
            }
        }
    }

    /// One record: its type and address when it has one, in the class of the internet. Whose it is does not matter: servers
    /// give the way through CNAMEs in the same answer.
    fn record(&mut self) -> Option<Option<(u16, IpAddr)>> {
        self.name()?;
        let (kind, class) = (self.word()?, self.word()?);
        self.skip(4)?;
        let length = self.word()?;
        let data = self.take(length.into())?;
        let address = match *data {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
            _ => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        };
        Some(address.filter(|_| class == CLASS_IN).map(|address| (kind, address)))
    }
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Type::A => "A",
            Type::Aaaa => "AAAA",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(query: &Query, flags: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = query.bytes().to_vec();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        bytes.extend(records.concat());
        bytes
    }

    #[test]
    fn names_that_can_be_asked_for() {
        let label = "a".repeat(63);
        let long = [label.as_str(); 4].join(".");
        for (name, valid) in [
            ("a.example", true),
            ("a.example.", true),
            ("_srv.example", true),
            (label.as_str(), true),
            (&format!("{label}a"), false),
            (&long[2..], true),
            (&long, false),
            ("", false),
            (".", false),
            ("a..b", false),
            (".a", false),
        ] {
            assert_eq!(Query::new(name, Type::A).is_some(), valid, "{name}");
        }
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let query = Query::new("host.example", Type::A).unwrap();
        let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1][..]];
        let right = answer(&query, 0x8180, &record);
        assert_eq!(query.answer(&right).unwrap().outcome().unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        let changed = |at: usize, value: u8| {
            let mut bytes = right.clone();
            bytes[at] = value;
            query.answer(&bytes)
        };
        assert!(changed(13, b'H').is_some(), "another case");
        assert_eq!(changed(0, right[0] ^ 1), None, "another number");
        assert_eq!(changed(2, 1), None, "a question");
        assert_eq!(changed(13, b'x'), None, "another name");
        assert_eq!(changed(27, 28), None, "another type");
        for length in 0..query.bytes().len() {
            assert_eq!(query.answer(&right[..length]), None, "cut off at {length}");
        }
        assert!(query.answer(&right[..right.len() - 1]).unwrap().addresses.is_empty(), "a record that is cut off");
    }

    #[test]
    fn addresses_behind_aliases_and_among_other_records() {
        let query = Query::new("host.example", Type::Aaaa).unwrap();
        let six = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let alias = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 17];
        let address = [&[1, b'x', 0xc0, 17, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16][..], &six].concat();
        let four = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1];
        let got = query.answer(&answer(&query, 0x8180, &[&alias, &four, &address])).unwrap();
        assert_eq!(got.addresses, [IpAddr::from(six)]);
    }

    #[test]
    fn what_servers_say_when_they_have_no_address() {
        let query = Query::new("host.example", Type::A).unwrap();
        let outcome = |flags: u16| query.answer(&answer(&query, flags, &[])).unwrap().outcome();
        assert_eq!(outcome(0x8180), Ok(Vec::new()));
        assert_eq!(outcome(0x8183), Ok(Vec::new()));
        assert_eq!(outcome(0x8182), Err("SERVFAIL".to_owned()));
        assert_eq!(outcome(0x8184), Err("NOTIMP".to_owned()));
        assert_eq!(outcome(0x8185), Err("REFUSED".to_owned()));
        assert_eq!(outcome(0x8109), Err("error 9".to_owned()));
        assert!(outcome(0x8100).is_err(), "a referral");
        let mut bare = query.bytes()[..HEADER_BYTES].to_vec();
        bare[2..6].copy_from_slice(&[0x81, 0x84, 0, 0]);
        assert_eq!(query.answer(&bare).unwrap().outcome(), Err("NOTIMP".to_owned()), "without the question");
    }
}
