//! What a certificate says, as far as the TLS library does not tell: for what it refuses and Go's clients accept, and for words
//! about what is wrong with one (RFC 5280, 4.1).

use std::fmt::Write as _;
use std::net::IpAddr;

/// A certificate's parts, as bytes of it.
pub struct Certificate<'a> {
    /// 1, 2 or 3.
    pub version: u8,
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    /// From when and until when, in seconds since 1970.
    pub valid: (i64, i64),
    /// Algorithm and key of the subject, as they stand in SubjectPublicKeyInfo.
    pub public_key: (&'a [u8], &'a [u8]),
    /// What was signed, the algorithm, the signature.
    pub signed: (&'a [u8], &'a [u8], &'a [u8]),
    /// Whether it may sign others, and how many more of them there may be below; none when nothing is said.
    pub authority: Option<(bool, Option<u64>)>,
    key_usage: Option<&'a [u8]>,
    purposes: Option<&'a [u8]>,
    alternative_names: Option<&'a [u8]>,
    /// Something in it must be understood, or restricts which names it may vouch for: nothing that we judge here.
    pub is_special: bool,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXTENDED_KEY_USAGE_ANY: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
const SERVER_AUTHENTICATION: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

impl<'a> Certificate<'a> {
    /// None for what is no certificate.
    pub fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut outer = Der(der);
        let mut certificate = Der(outer.take(SEQUENCE)?);
        let (_, tbs, signed) = certificate.next()?;
        let algorithm = certificate.take(SEQUENCE)?;
        let signature = bits(certificate.take(BIT_STRING)?)?;
        if !outer.0.is_empty() || !certificate.0.is_empty() {
            return None;
        }
        let mut tbs = Der(tbs);
        let version = match tbs.peek() {
            Some(0xa0) => match *Der(tbs.take(0xa0)?).take(INTEGER)? {
                [number @ 0..=2] => number + 1,
                _ => return None,
            },
            _ => 1,
        };
        tbs.take(INTEGER)?;
        tbs.take(SEQUENCE)?;
        let issuer = tbs.take(SEQUENCE)?;
        let mut validity = Der(tbs.take(SEQUENCE)?);
        let valid = (validity.time()?, validity.time()?);
        let subject = tbs.take(SEQUENCE)?;
        let public_key = split_key(tbs.take(SEQUENCE)?)?;
        let mut found = Certificate {
            version,
            issuer,
            subject,
            valid,
            public_key,
            signed: (signed, algorithm, signature),
            authority: None,
            key_usage: None,
            purposes: None,
            alternative_names: None,
            is_special: false,
        };
        while let Some((tag, contents, _)) = tbs.next() {
            // Unique identifiers (0x81, 0x82) mean nothing to anybody.
            if tag == 0xa3 {
                let mut extensions = Der(Der(contents).take(SEQUENCE)?);
                while !extensions.0.is_empty() {
                    found.extension(extensions.take(SEQUENCE)?)?;
                }
            }
        }
        Some(found)
    }

    fn extension(&mut self, extension: &'a [u8]) -> Option<()> {
        let mut extension = Der(extension);
        let id = extension.take(OID)?;
        let critical = match extension.peek() {
            Some(BOOLEAN) => extension.take(BOOLEAN)? != [0],
            _ => false,
        };
        let value = extension.take(OCTET_STRING)?;
        match id {
            [0x55, 0x1d, 15] => self.key_usage = Some(bits(Der(value).take(BIT_STRING)?)?),
            [0x55, 0x1d, 17] => self.alternative_names = Some(Der(value).take(SEQUENCE)?),
            [0x55, 0x1d, 19] => {
                let mut constraints = Der(Der(value).take(SEQUENCE)?);
                let is_authority = match constraints.peek() {
                    Some(BOOLEAN) => constraints.take(BOOLEAN)? != [0],
                    _ => false,
                };
                let below = constraints.take(INTEGER).map(|bytes| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)));
                self.authority = Some((is_authority, below));
            }
            [0x55, 0x1d, 37] => self.purposes = Some(Der(value).take(SEQUENCE)?),
            [0x55, 0x1d, 30] => self.is_special = true,
            _ => self.is_special |= critical,
        }
        Some(())
    }

    /// Go's `isValid` and `CheckSignatureFrom` for a trusted certificate: one of version 3 says that it is an authority.
    pub fn may_be_root(&self) -> bool {
        match self.authority {
            Some((is_authority, _)) => is_authority && self.may_sign(),
            None => self.version < 3,
        }
    }

    /// Whether it may vouch for another certificate that has `below` more ones between it and the server's.
    pub fn may_be_intermediate(&self, below: u64) -> bool {
        let (is_authority, most) = self.authority.unwrap_or((false, None));
        is_authority && most.is_none_or(|most| below <= most) && self.may_sign() && !self.is_special
    }

    fn may_sign(&self) -> bool {
        const KEY_CERT_SIGN: u8 = 0x04;
        self.key_usage.is_none_or(|usage| usage.first().is_some_and(|bits| bits & KEY_CERT_SIGN != 0))
    }

    /// Whether what it is for includes servers.
    pub fn is_for_servers(&self) -> bool {
        let Some(purposes) = self.purposes else { return true };
        let mut purposes = Der(purposes);
        std::iter::from_fn(|| purposes.take(OID)).any(|id| id == SERVER_AUTHENTICATION || id == EXTENDED_KEY_USAGE_ANY)
    }

    pub fn is_valid_at(&self, seconds: i64) -> bool {
        (self.valid.0..=self.valid.1).contains(&seconds)
    }

    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Hosts and addresses that it is for, as text.
    pub fn names(&self) -> Vec<String> {
        let mut names = Der(self.alternative_names.unwrap_or_default());
        std::iter::from_fn(|| names.next())
            .filter_map(|(tag, contents, _)| match tag {
                0x82 => Some(printable(contents)),
                0x87 => match contents.len() {
                    4 => <[u8; 4]>::try_from(contents).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                    _ => <[u8; 16]>::try_from(contents).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                },
                _ => None,
            })
            .collect()
    }

    pub fn subject_text(&self) -> String {
        name_text(self.subject)
    }

    pub fn issuer_text(&self) -> String {
        name_text(self.issuer)
    }

    /// The algorithm of its signature as `1.2.840.113549.1.1.5`.
    pub fn signature_algorithm_text(&self) -> String {
        Der(self.signed.1).take(OID).map(oid_text).unwrap_or_default()
    }
}

/// Algorithm and key of a SubjectPublicKeyInfo.
pub fn parse_key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    split_key(Der(info).take(SEQUENCE)?)
}

/// Algorithm and key of what stands in a SubjectPublicKeyInfo.
pub fn split_key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut info = Der(info);
    Some((info.take(SEQUENCE)?, bits(info.take(BIT_STRING)?)?))
}

/// `CN=…`, or whatever it has instead.
fn name_text(name: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut sets = Der(name);
    while let Some(set) = sets.take(SET) {
        let mut set = Der(set);
        while let Some(attribute) = set.take(SEQUENCE) {
            let mut attribute = Der(attribute);
            if let (Some(id), Some((_, value, _))) = (attribute.take(OID), attribute.next()) {
                parts.push((id, printable(value)));
            }
        }
    }
    let common = parts.iter().rfind(|(id, _)| *id == COMMON_NAME);
    match common.or(parts.last()) {
        Some((COMMON_NAME, text)) => format!("CN={text}"),
        Some((_, text)) => text.clone(),
        None => "no name".to_owned(),
    }
}

fn printable(bytes: &[u8]) -> String {
    const MOST: usize = 100;
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(MOST).collect()
}

fn oid_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate() {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // Writing into a String cannot fail.
        let _ = match text.is_empty() && index < 2 {
            true => write!(text, "{}.{}", (number / 40).min(2), number - (number / 40).min(2) * 40),
            false => write!(text, ".{number}"),
        };
        number = 0;
    }
    text
}

/// The bytes of a BIT STRING, without the count of unused bits.
fn bits(contents: &[u8]) -> Option<&[u8]> {
    contents.split_first().map(|(_, bytes)| bytes)
}

/// What remains of a sequence of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Tag, contents and all of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let all = self.0;
        let (&[tag, first], rest) = all.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, contents, &all[..all.len() - rest.len()]))
    }

    /// The contents of the next value if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.peek().filter(|found| *found == tag)?;
        self.next().map(|(_, contents, _)| contents)
    }

    fn time(&mut self) -> Option<i64> {
        let (tag, contents, _) = self.next()?;
        let text = std::str::from_utf8(contents).ok().filter(|text| text.is_ascii())?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                let year: i64 = year.parse().ok()?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (year.parse().ok()?, rest)
            }
            _ => return None,
        };
        let digits = rest.strip_suffix('Z').filter(|digits| digits.len() == 10)?;
        let part = |at: usize| digits.get(at..at + 2)?.parse::<i64>().ok();
        let (month, day) = (part(0)?, part(2)?);
        Some(days(year, month, day) * 86400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, whose years are counted from March on.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (month * 153 + 2) / 5 + day
        - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn the_parts_of_a_certificate() {
        let server = CertificateDer::from_pem_file(testkit::certificates::file("server.pem")).unwrap();
        let server = Certificate::parse(&server).unwrap();
        assert_eq!((server.version, server.is_self_issued(), server.may_be_root()), (3, false, false));
        assert_eq!(server.names(), ["localhost", "127.0.0.1"]);
        assert!(server.is_for_servers() && !server.is_special);
        let ca = CertificateDer::from_pem_file(testkit::certificates::file("ca.pem")).unwrap();
        let parsed = Certificate::parse(&ca).unwrap();
        assert!(parsed.may_be_root() && parsed.may_be_intermediate(0) && parsed.is_self_issued());
        assert_eq!(parsed.subject, server.issuer);
        for length in 0..ca.len() {
            assert!(Certificate::parse(&ca[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic() {
        let ca = CertificateDer::from_pem_file(testkit::certificates::file("ca.pem")).unwrap();
        for at in 0..ca.len() {
            for value in [0, 1, 0x7f, 0x80, 0x84, 0xff] {
                let mut bytes = ca.to_vec();
                bytes[at] = value;
                if let Some(read) = Certificate::parse(&bytes) {
                    let _ = (read.names(), read.subject_text(), read.signature_algorithm_text(), read.is_for_servers());
                }
            }
        }
    }

    #[test]
    fn times_and_numbers() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 11_016);
        assert_eq!(days(2026, 11, 30), 20_787);
        let utc = |text: &str| {
            let bytes = [&[UTC_TIME, text.len() as u8], text.as_bytes()].concat();
            Der(&bytes).time()
        };
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999));
        assert_eq!(utc("700101000000"), None);
        assert_eq!(utc("7001010000é0Z"), None);
        assert_eq!(oid_text(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5]), "1.2.840.113549.1.1.5");
    }
}
