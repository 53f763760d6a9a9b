//! What the system's files say about names: resolv.conf(5), hosts(5), nsswitch.conf(5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DNS_PORT: u16 = 53;
/// glibc's limits: MAXNS, RES_MAXNDOTS, RES_MAXRETRANS and RES_MAXRETRY.
const MAX_SERVERS: usize = 3;
const MAX_NDOTS: usize = 15;
const MAX_TIMEOUT_S: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;

/// Where these files are. A missing one says what glibc takes it to say.
#[derive(Clone, Debug)]
pub struct NameFiles {
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
    pub nsswitch_conf: PathBuf,
}

/// resolv.conf.
#[derive(PartialEq, Eq, Debug)]
pub struct Conf {
    /// At least one.
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
    pub ndots: usize,
    pub timeout: Duration,
    pub attempts: u32,
    pub rotate: bool,
    pub tcp: bool,
    pub one_at_a_time: bool,
}

/// A service of the line `hosts` of nsswitch.conf that we know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    name: &'static str,
    /// `[NOTFOUND=return]`: the next ones are not asked when this one knows no such name.
    pub ends_when_absent: bool,
}

impl NameFiles {
    /// The files below `dir`, which is `/etc` but for tests.
    pub fn within(dir: &Path) -> NameFiles {
        let file = |name: &str| dir.join(name);
        NameFiles { hosts: file("hosts"), resolv_conf: file("resolv.conf"), nsswitch_conf: file("nsswitch.conf") }
    }

    pub fn conf(&self) -> Conf {
        Conf::parse(&read(&self.resolv_conf), rustix::system::uname().nodename().to_str().unwrap_or_default())
    }

    pub fn sources(&self) -> Vec<Source> {
        sources(&read(&self.nsswitch_conf))
    }

    /// The addresses that the file hosts has for `name`.
    pub fn hosts(&self, name: &str) -> Vec<SocketAddr> {
        hosts(&read(&self.hosts), name)
    }
}

impl Source {
    pub const FILES: &str = "files";

    pub fn is(self, name: &str) -> bool {
        self.name == name
    }
}

impl Conf {
    pub fn parse(text: &str, host_name: &str) -> Conf {
        let own_domain = host_name.split_once('.').map(|(_, domain)| domain.to_owned());
        let mut conf = Conf {
            servers: Vec::new(),
            search: own_domain.into_iter().collect(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp: false,
            one_at_a_time: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < MAX_SERVERS => {
                    let server = words.next().and_then(address);
                    conf.servers.extend(server.map(|mut server| {
                        server.set_port(DNS_PORT);
                        server
                    }));
                }
                Some("domain") => conf.search = words.take(1).map(str::to_owned).collect(),
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| conf.set(option)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        conf
    }

    /// One option. Those that are not ours change how glibc asks, not what is found.
    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        // As atoi: what is not a number is 0.
        let number = value.parse::<u64>().unwrap_or(0);
        match name {
            "ndots" => self.ndots = usize::try_from(number).unwrap_or(MAX_NDOTS).min(MAX_NDOTS),
            "timeout" => self.timeout = Duration::from_secs(number.clamp(1, MAX_TIMEOUT_S)),
            "attempts" => self.attempts = u32::try_from(number).unwrap_or(MAX_ATTEMPTS).clamp(1, MAX_ATTEMPTS),
            "rotate" => self.rotate = true,
            "use-vc" => self.tcp = true,
            "single-request" | "single-request-reopen" => self.one_at_a_time = true,
            _ => {}
        }
    }

    /// The names to ask for when `name` is wanted, in order: as it is first when it has dots enough.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let as_it_is = || name.to_owned();
        let searched = self.search.iter().map(|domain| domain.trim_matches('.')).filter(|domain| !domain.is_empty());
        let mut names: Vec<String> = searched.map(|domain| format!("{name}.{domain}")).collect();
        match name.matches('.').count() >= self.ndots {
            true => names.insert(0, as_it_is()),
            false => names.push(as_it_is()),
        }
        names
    }
}

/// An address, with a zone (`fe80::1%eth0`) where it has one. Its port is 0.
pub fn address(text: &str) -> Option<SocketAddr> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    match (address.parse().ok()?, zone) {
        (address, None) => Some(SocketAddr::new(address, 0)),
        (IpAddr::V6(address), Some(zone)) => Some(SocketAddrV6::new(address, 0, 0, interface(zone)?).into()),
        (IpAddr::V4(_), Some(_)) => None,
    }
}

/// The number of a network interface.
fn interface(zone: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    zone.parse().ok().or_else(|| {
        let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
        netdevice::name_to_index(&any, zone).ok()
    })
}

fn hosts(text: &str, name: &str) -> Vec<SocketAddr> {
    let name = name.trim_end_matches('.');
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next().and_then(address)?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(address)
    };
    text.lines().filter_map(entry).collect()
}

fn sources(text: &str) -> Vec<Source> {
    const KNOWN: [&str; 2] = [Source::FILES, "dns"];
    let line = |line: &str| Some(line.trim_start().strip_prefix("hosts:")?.split('#').next()?.to_owned());
    let told = text.lines().find_map(line).unwrap_or_default();
    let mut found: Vec<Source> = Vec::new();
    let mut last_is_ours = false;
    // Services, and in brackets what to do (`[!UNAVAIL=return]`) after the one before.
    for word in told.replace(['[', ']'], " ").split_ascii_whitespace() {
        match word.split_once('=') {
            Some((status, action)) if last_is_ours => {
                let ends = action.eq_ignore_ascii_case("return") && includes_not_found(status);
                found.iter_mut().last().into_iter().for_each(|source| source.ends_when_absent |= ends);
            }
            Some(_) => {}
            None => {
                let known = KNOWN.into_iter().find(|known| *known == word);
                last_is_ours = known.is_some();
                found.extend(known.map(|name| Source { name, ends_when_absent: false }));
            }
        }
    }
    if found.is_empty() {
        found = KNOWN.map(|name| Source { name, ends_when_absent: false }).into();
    }
    found
}

fn includes_not_found(status: &str) -> bool {
    match status.strip_prefix('!') {
        Some(other) => !other.eq_ignore_ascii_case("NOTFOUND"),
        None => status.eq_ignore_ascii_case("NOTFOUND"),
    }
}

/// What cannot be read says nothing; bytes that are no text stand in no line that matters.
fn read(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Conf {
        Conf::parse(text, "pod")
    }

    #[test]
    fn resolv_conf_as_glibc_reads_it() {
        let default = conf("");
        assert_eq!(default.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((default.ndots, default.attempts, default.timeout.as_secs()), (1, 2, 5));
        assert_eq!(Conf::parse("", "node.dept.example").search, ["dept.example"]);

        let full = conf(
            "# nameserver 192.0.2.99\n;nameserver 192.0.2.99\nnameserver 192.0.2.1 # first\nnameserver\t2001:db8::1\n\
             nameserver no-address\n nameserver fe80::1%1\nnameserver 192.0.2.4\ndomain lost.example\nsearch a.example b.example\n\
             options ndots:5 timeout:0 attempts:99\noptions rotate use-vc single-request edns0 trust-ad\n",
        );
        let servers: Vec<String> = full.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"]);
        assert_eq!(full.search, ["a.example", "b.example"]);
        assert_eq!((full.ndots, full.attempts, full.timeout.as_secs()), (5, 5, 1));
        assert!(full.rotate && full.tcp && full.one_at_a_time);
        assert_eq!(conf("options ndots:99 ndots:x").ndots, 0);
        assert_eq!(conf("search a b\ndomain c d").search, ["c"]);
    }

    #[test]
    fn which_names_are_asked_for() {
        let conf = conf("search a.example . b.example.\noptions ndots:2");
        let cases: [(&str, &[&str]); 4] = [
            ("web", &["web.a.example", "web.b.example", "web"]),
            ("web.x", &["web.x.a.example", "web.x.b.example", "web.x"]),
            ("web.x.y", &["web.x.y", "web.x.y.a.example", "web.x.y.b.example"]),
            ("web.", &["web."]),
        ];
        for (name, expected) in cases {
            assert_eq!(conf.candidates(name), expected, "{name}");
        }
    }

    #[test]
    fn hosts_have_names_and_aliases() {
        let text = "127.0.0.1 localhost\n192.0.2.1\tweb.example  web # old.example\n#192.0.2.9 web\n2001:db8::1 WEB\n\
                    fe80::1%1 near\nno-address web\n";
        let found = |name: &str| hosts(text, name).iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(found("web"), ["192.0.2.1:0", "[2001:db8::1]:0"]);
        assert_eq!(found("Web.Example."), ["192.0.2.1:0"]);
        assert_eq!(found("near"), ["[fe80::1%1]:0"]);
        assert!(found("old.example").is_empty() && found("example").is_empty() && found("192.0.2.1").is_empty());
    }

    #[test]
    fn who_is_asked_in_which_order() {
        let both = [("files", false), ("dns", false)];
        let cases: [(&str, &[(&str, bool)]); 9] = [
            ("", &both),
            ("passwd: files\nhosts: files dns\n", &both),
            ("hosts: dns files", &[("dns", false), ("files", false)]),
            ("hosts:files # dns", &[("files", false)]),
            ("hosts: dns [!UNAVAIL=return] files", &[("dns", true), ("files", false)]),
            ("hosts: files [NOTFOUND=return] dns", &[("files", true), ("dns", false)]),
            ("hosts: files[notfound=RETURN success=continue]dns", &[("files", true), ("dns", false)]),
            ("hosts: files mdns4_minimal [NOTFOUND=return] dns myhostname", &both),
            ("hosts: resolve myhostname", &both),
        ];
        for (text, expected) in cases {
            let got: Vec<(&str, bool)> = sources(text).iter().map(|s| (s.name, s.ends_when_absent)).collect();
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn addresses_have_zones() {
        assert_eq!(address("fe80::1%lo").map(|a| a.to_string()).as_deref(), Some("[fe80::1%1]:0"));
        for text in ["", "host", "192.0.2.1%1", "fe80::1%no-such-interface", "1.2.3"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
