//! Hosts that are so near that plain HTTP to them is common: what they are called decides, not what a name server says.

use url::{Host, Url};

/// Whether `host` (`host` or `host:port`) is this machine: `localhost` and what ends in it (RFC 6761, section 6.3), 127.0.0.0/8,
/// `::1`. BuildKit, containerd and go-containerregistry speak plain HTTP to these without being told.
pub(crate) fn is_loopback(host: &str) -> bool {
    match parse(host) {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

/// Whether `host` is what go-containerregistry, and kaniko with it, takes for one of a local network: an address of RFC 1918,
/// or a name in `.local`.
pub(crate) fn is_private(host: &str) -> bool {
    match parse(host) {
        Some(Host::Domain(name)) => name.ends_with(".local"),
        Some(Host::Ipv4(address)) => address.is_private(),
        Some(Host::Ipv6(_)) | None => false,
    }
}

fn parse(host: &str) -> Option<Host<String>> {
    Some(Url::parse(&format!("http://{host}/")).ok()?.host()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_hosts() {
        let cases = [
            ("localhost", true, false),
            ("localhost:5000", true, false),
            ("LocalHost:5000", true, false),
            ("registry.localhost", true, false),
            ("registry.localhost:5000", true, false),
            ("notlocalhost", false, false),
            ("localhost.example", false, false),
            ("127.0.0.1", true, false),
            ("127.0.0.1:5000", true, false),
            ("127.8.9.1:5000", true, false),
            ("127.0.0.1.example", false, false),
            ("[::1]", true, false),
            ("[::1]:5000", true, false),
            ("[::ffff:7f00:1]:5000", true, false),
            ("[::2]:5000", false, false),
            ("0.0.0.0:5000", false, false),
            ("10.1.2.3:5000", false, true),
            ("172.16.0.1", false, true),
            ("172.32.0.1", false, false),
            ("192.168.1.1:80", false, true),
            ("169.254.1.1", false, false),
            ("100.64.0.1", false, false),
            ("[fd00::1]:5000", false, false),
            ("registry.local", false, true),
            ("registry.local:5000", false, true),
            ("registry.locals", false, false),
            ("registry.example", false, false),
            ("", false, false),
        ];
        for (host, loopback, private) in cases {
            assert_eq!((is_loopback(host), is_private(host)), (loopback, private), "{host}");
        }
    }
}
