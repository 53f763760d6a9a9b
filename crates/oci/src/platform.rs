//! `os/arch[/variant]`, normalised and matched as containerd's `platforms` package does (`database.go`, `compare.go`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::OciError;
use crate::null::null_is_default;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(rename = "os.features", default, skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program was compiled for.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform::new("linux", architecture, (architecture == "arm").then_some("v7"))
    }

    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: None,
            os_features: None,
            variant: variant.map(str::to_owned),
        }
    }

    /// Parses `os`, `arch`, `os/arch` or `os/arch/variant`, and normalises the result.
    ///
    /// ```
    /// use zuwai_oci::Platform;
    /// for (text, platform) in [("linux/x86_64", "linux/amd64"), ("linux/arm64/v8", "linux/arm64"), ("arm", "linux/arm/v7")] {
    ///     assert_eq!(Platform::parse(text)?.to_string(), platform);
    /// }
    /// # Ok::<(), zuwai_oci::OciError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Platform, OciError> {
        let bad = |reason| OciError::Platform { text: text.chars().take(200).collect(), reason };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(|part| is_part(part)) {
            return Err(bad("expected `os/arch[/variant]`"));
        }
        match *parts.as_slice() {
            [one] => one_part(one).ok_or_else(|| bad("unknown operating system or architecture")),
            [os, arch] => Ok(normalized(os, arch, None)),
            [os, arch, variant] => Ok(normalized(os, arch, Some(variant))),
            _ => Err(bad("too many `/`")),
        }
    }

    /// How well an image for `self` serves a request for `wanted`: none = not at all, else lower is better.
    ///
    /// An image serves the machines that run it: a lower variant serves a higher one, 386 serves amd64, 32-bit arm serves
    /// arm64. containerd `platforms.Only`, which BuildKit chooses base images with.
    ///
    /// ```
    /// use zuwai_oci::Platform;
    /// let rank = |image: &str, wanted: &str| {
    ///     Platform::parse(image).unwrap().rank_for(&Platform::parse(wanted).unwrap())
    /// };
    /// assert_eq!(rank("linux/arm/v7", "linux/arm/v7"), Some(0));
    /// assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), Some(1));
    /// assert_eq!(rank("linux/arm/v7", "linux/arm/v6"), None);
    /// assert_eq!(rank("linux/386", "linux/amd64"), Some(1));
    /// ```
    pub fn rank_for(&self, wanted: &Platform) -> Option<u32> {
        let (own_os, wanted_os) = (self.os.to_ascii_lowercase(), wanted.os.to_ascii_lowercase());
        if normalize_os(&own_os) != normalize_os(&wanted_os) {
            return None;
        }
        if let (Some(own), Some(asked)) = (&self.os_version, &wanted.os_version)
            && own != asked
        {
            return None;
        }
        let own = self.machine();
        let rank = runs_on(&wanted.machine()).iter().position(|machine| *machine == own)?;
        u32::try_from(rank).ok()
    }

    /// Normalised architecture and variant.
    fn machine(&self) -> Machine {
        let variant = self.variant.as_ref().map(|variant| variant.to_ascii_lowercase());
        normalize_arch(&self.architecture.to_ascii_lowercase(), variant.as_deref())
    }
}

type Machine = (String, Option<String>);

/// The machines whose programs run on a machine, best first.
fn runs_on((arch, variant): &Machine) -> Vec<Machine> {
    let variant = variant.as_deref();
    let machine = |arch: &str, variant: &str| normalize_arch(arch, Some(variant));
    let mut all = vec![(arch.clone(), variant.map(str::to_owned))];
    match (arch.as_str(), variant_number(variant)) {
        ("amd64", number) => {
            let below = number.map_or(1..1, |(major, _)| 1..major);
            all.extend(below.rev().map(|major| machine("amd64", &format!("v{major}"))));
            all.push(("386".to_owned(), None));
        }
        ("arm", Some((major, _))) => all.extend((5..major).rev().map(|major| machine("arm", &format!("v{major}")))),
        ("arm64", number) => {
            all.extend(
                arm64_below(number.unwrap_or((8, 0)))
                    .map(|(major, minor)| machine("arm64", &format!("v{major}.{minor}"))),
            );
            all.extend((5..=8).rev().map(|major| machine("arm", &format!("v{major}"))));
        }
        _ => {}
    }
    all
}

/// The 64-bit versions that an ARM version includes, without itself. v9.x has what v8.(x+5) has, up to v8.9.
fn arm64_below((major, minor): (u8, u8)) -> impl Iterator<Item = (u8, u8)> {
    let nines = if major == 9 { minor } else { 0 };
    let eights = match major {
        8 => minor,
        9 => minor.saturating_add(5).min(9) + 1,
        _ => 0,
    };
    (0..nines).rev().map(|minor| (9, minor)).chain((0..eights).rev().map(|minor| (8, minor)))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

const KNOWN_OS: &[&str] = &["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1"];
const KNOWN_ARCH: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
];

fn is_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn one_part(text: &str) -> Option<Platform> {
    let (arch, variant) = normalize_arch(text, None);
    if KNOWN_ARCH.contains(&arch.as_str()) {
        return Some(Platform::new("linux", &arch, variant.as_deref()));
    }
    let os = normalize_os(text);
    KNOWN_OS.contains(&os).then(|| Platform { os: os.to_owned(), ..Platform::host() })
}

fn normalized(os: &str, arch: &str, variant: Option<&str>) -> Platform {
    let (arch, variant) = normalize_arch(arch, variant);
    Platform::new(normalize_os(os), &arch, variant.as_deref())
}

fn normalize_os(os: &str) -> &str {
    match os {
        "macos" => "darwin",
        other => other,
    }
}

fn normalize_arch(arch: &str, variant: Option<&str>) -> Machine {
    let variant = variant.filter(|v| !v.is_empty());
    let (arch, variant) = match (arch, variant) {
        ("i386", _) => ("386", None),
        ("x86_64" | "x86-64" | "amd64", Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", Some("8" | "v8" | "v8.0") | None) => ("arm64", None),
        ("aarch64" | "arm64", Some("9" | "9.0" | "v9.0")) => ("arm64", Some("v9")),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) => ("arm", Some("v7")),
        ("armel", _) => ("arm", Some("v6")),
        ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("8")) => ("arm", Some("v8")),
        (a, v) => (a, v),
    };
    (arch.to_owned(), variant.map(str::to_owned))
}

/// `v8.2` as (8, 2).
fn variant_number(variant: Option<&str>) -> Option<(u8, u8)> {
    let text = variant?.strip_prefix('v')?;
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}
