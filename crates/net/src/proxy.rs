//! Which proxy a host is reached through: the rules of Go's `golang.org/x/net/http/httpproxy`, which BuildKit, containerd,
//! skopeo and kaniko follow, and `ALL_PROXY` as curl knows it.

use std::net::IpAddr;

use url::{Host, Url};

use crate::settings::Proxies;
use crate::{NetError, error};

/// What [`Proxies`] say, parsed.
pub(crate) struct Routes {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<Direct>,
}

/// One entry of `no_proxy`.
#[derive(PartialEq, Eq, Debug)]
enum Direct {
    Everything,
    Network {
        address: IpAddr,
        prefix: u8,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// The hosts below `name`, and with `itself` the one that is called so.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Routes {
    /// # Errors
    /// [`NetError::Setup`] for an address that is none, or of a kind of proxy that we do not speak to. Its password is not shown.
    pub(crate) fn new(given: &Proxies) -> Result<Routes, NetError> {
        let parsed = |own: &Option<String>| {
            let text = [own, &given.all].into_iter().flatten().map(|text| text.trim()).find(|text| !text.is_empty());
            text.map(parse).transpose()
        };
        Ok(Routes {
            http: parsed(&given.http)?,
            https: parsed(&given.https)?,
            direct: given.no_proxy.as_deref().unwrap_or_default().split(',').filter_map(Direct::parse).collect(),
        })
    }

    pub(crate) fn are_all_direct(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The proxy for requests to `url`; none when it is reached directly.
    pub(crate) fn proxy_for(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "http" { &self.http } else { &self.https };
        proxy.as_ref().filter(|_| !self.is_direct(url))
    }

    fn is_direct(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        match url.host() {
            None => true,
            Some(Host::Ipv4(address)) => self.is_direct_address(address.into(), port),
            Some(Host::Ipv6(address)) => self.is_direct_address(address.to_canonical(), port),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                crate::dns::is_localhost(name) || self.direct.iter().any(|entry| entry.names(name, port))
            }
        }
    }

    fn is_direct_address(&self, address: IpAddr, port: Option<u16>) -> bool {
        address.is_loopback() || self.direct.iter().any(|entry| entry.holds(address, port))
    }
}

/// `http://`, `https://`, `socks5://` and the like with a host; without a scheme it is an HTTP proxy, as for Go and curl.
fn parse(text: &str) -> Result<Url, NetError> {
    let failed = |reason: String| NetError::setup(format!("proxy `{}`", error::display_url(text)), reason);
    let mut url = match Url::parse(text) {
        Ok(url) if url.has_host() => url,
        Err(error) if text.contains("://") => return Err(failed(error.to_string())),
        _ => Url::parse(&format!("http://{text}")).map_err(|error| failed(error.to_string()))?,
    };
    match url.scheme() {
        "http" | "https" => {}
        "socks4" | "socks4a" | "socks5" | "socks5h" => {
            if url.port().is_none() {
                // Ports can be set where there is a host.
                let _ = url.set_port(Some(1080));
            }
        }
        other => return Err(failed(format!("`{other}` is neither http, https, socks5 nor socks5h"))),
    }
    Ok(url)
}

impl Direct {
    fn parse(entry: &str) -> Option<Direct> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return Some(Direct::Everything);
        }
        if let Some((address, prefix)) = entry.split_once('/') {
            let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            let longest = if address.is_ipv4() { 32 } else { 128 };
            return (prefix <= longest).then_some(Direct::Network { address, prefix });
        }
        let (host, port) = split_port(&entry);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Direct::Address { address: address.to_canonical(), port });
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let name = host.strip_prefix('.').unwrap_or(host).trim_end_matches('.');
        // As hosts of addresses are written: without what is not ASCII.
        let name = url::Host::parse(name).map_or_else(|_| name.to_owned(), |host| host.to_string());
        (!name.is_empty()).then(|| Direct::Domain { itself: !host.starts_with('.'), name, port })
    }

    fn names(&self, host: &str, to: Option<u16>) -> bool {
        match self {
            Direct::Everything => true,
            Direct::Domain { name, itself, port } => {
                let below = || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
                (*itself && host == name || below()) && is_same_port(*port, to)
            }
            Direct::Network { .. } | Direct::Address { .. } => false,
        }
    }

    fn holds(&self, host: IpAddr, to: Option<u16>) -> bool {
        match self {
            Direct::Everything => true,
            Direct::Address { address, port } => *address == host && is_same_port(*port, to),
            Direct::Network { address, prefix } => is_within(host, *address, *prefix),
            Direct::Domain { .. } => false,
        }
    }
}

fn is_same_port(told: Option<u16>, to: Option<u16>) -> bool {
    told.is_none() || told == to
}

/// `host:port`, `[::1]:port`; a colon of a bare IPv6 address begins no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let ((address, width), (network, own)) = (bits(address), bits(network));
    let ignored = 128 - u32::from(prefix);
    width == own && (address ^ network).checked_shr(ignored).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(no_proxy: &str, url: &str) -> bool {
        let proxies = Proxies {
            http: Some("http://proxy:3128".to_owned()),
            https: Some("http://proxy:3128".to_owned()),
            no_proxy: Some(no_proxy.to_owned()),
            all: None,
        };
        Routes::new(&proxies).unwrap().proxy_for(&url.parse().unwrap()).is_some()
    }

    /// The table of `httpproxy`'s own rules, entry by entry.
    #[test]
    fn who_is_reached_directly() {
        let cases = [
            ("", "http://foo.example", true),
            ("*", "http://foo.example", false),
            ("other.example, *", "http://10.0.0.1", false),
            ("*", "https://10.0.0.1:5000", false),
            // Names: themselves and all below; a dot in front leaves themselves out.
            ("foo.example", "https://foo.example", false),
            ("foo.example", "https://FOO.example", false),
            ("FOO.example", "https://foo.example:5000", false),
            ("foo.example", "https://a.b.foo.example", false),
            ("foo.example", "https://foo.example.", false),
            ("foo.example.", "https://foo.example", false),
            ("foo.example", "https://barfoo.example", true),
            ("foo.example", "https://foo.example.org", true),
            (".foo.example", "https://bar.foo.example", false),
            (".foo.example", "https://foo.example", true),
            ("*.foo.example", "https://bar.foo.example", false),
            ("*.foo.example", "https://foo.example", true),
            ("*foo.example", "https://barfoo.example", true),
            ("foo.*", "https://foo.example", true),
            ("example", "https://foo.example", false),
            (" foo.example ,bar.example", "https://bar.example", false),
            ("foo.example bar.example", "https://bar.example", true),
            (",,", "https://bar.example", true),
            ("bücher.example", "https://bücher.example", false),
            // Ports: the one that a scheme means, too.
            ("foo.example:80", "http://foo.example", false),
            ("foo.example:443", "https://foo.example", false),
            ("foo.example:443", "http://foo.example", true),
            ("foo.example:5000", "https://foo.example:5000", false),
            ("foo.example:5000", "https://foo.example", true),
            (".foo.example:5000", "https://bar.foo.example:5000", false),
            ("*.foo.example:5000", "https://bar.foo.example:5001", true),
            (":5000", "https://foo.example:5000", true),
            // Addresses and networks.
            ("192.168.1.1", "https://192.168.1.1:5000", false),
            ("192.168.1.1:5000", "https://192.168.1.1:5000", false),
            ("192.168.1.1:5000", "https://192.168.1.1", true),
            ("192.168.1.1", "https://192.168.1.10", true),
            ("192.168.1.0/24", "https://192.168.1.77", false),
            ("192.168.1.5/24", "https://192.168.1.77", false),
            ("192.168.1.0/24", "https://192.168.2.77", true),
            ("0.0.0.0/0", "https://8.8.8.8", false),
            ("0.0.0.0/0", "https://[2001:db8::1]", true),
            ("10.0.0.0/8", "https://10.example", true),
            ("10.0.0.0/33", "https://10.0.0.1", true),
            ("2001:db8::/32", "https://[2001:db8:1::1]", false),
            ("2001:db8::/32", "https://[2001:db9::1]", true),
            ("::/0", "https://[2001:db9::1]", false),
            ("2001:db8::1", "https://[2001:db8::1]:5000", false),
            ("[2001:db8::1]", "https://[2001:db8::1]:5000", false),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000", false),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]", true),
            ("0.1", "https://192.168.0.1", true),
            // Loopback, whatever is said.
            ("", "http://localhost:5000", false),
            ("", "https://registry.localhost", false),
            ("", "http://127.0.0.1:5000", false),
            ("", "http://127.9.8.7", false),
            ("", "http://[::1]:5000", false),
            ("", "http://[::ffff:127.0.0.1]:5000", false),
            ("", "http://localhost.example", true),
        ];
        for (no_proxy, url, expected) in cases {
            assert_eq!(proxied(no_proxy, url), expected, "NO_PROXY={no_proxy} {url}");
        }
    }

    #[test]
    fn which_proxy() {
        let some = |text: &str| Some(text.to_owned());
        let all = Proxies { all: some("socks5://all"), https: some("secure:3128"), ..Proxies::default() };
        let routes = Routes::new(&all).unwrap();
        let of = |url: &str| routes.proxy_for(&url.parse().unwrap()).map(Url::as_str);
        assert_eq!(of("https://a.example"), Some("http://secure:3128/"));
        assert_eq!(of("http://a.example"), Some("socks5://all:1080"));
        for (text, expected) in [
            ("proxy.example", "http://proxy.example/"),
            ("localhost:3128", "http://localhost:3128/"),
            ("127.0.0.1:3128", "http://127.0.0.1:3128/"),
            ("user:p%40ss@proxy:3128", "http://user:p%40ss@proxy:3128/"),
            (" https://proxy ", "https://proxy/"),
        ] {
            assert_eq!(parse(text.trim()).unwrap().as_str(), expected, "{text}");
        }
        for text in ["ftp://proxy", "http://", "http://user:hunter2@proxy:port", "user:hunter2@proxy:99999"] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
