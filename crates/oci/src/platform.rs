//! `os/arch[/variant]`, normalised as containerd's `platforms` package does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::OciError;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
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
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform::new("linux", architecture, None)
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

    /// Parses `os`, `arch`, `os/arch` or `os/arch/variant` (`linux/x86_64` becomes `linux/amd64`, `arm64/v8` drops its
    /// default variant, `arm` gets `v7`).
    pub fn parse(text: &str) -> Result<Platform, OciError> {
        let bad = |reason| OciError::Platform { text: text.to_owned(), reason };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|p| {
            p.is_empty()
                || !p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'(' | b')'))
        }) {
            return Err(bad("expected `os/arch[/variant]`"));
        }
        let lower: Vec<String> = parts.iter().map(|p| p.to_ascii_lowercase()).collect();
        match lower.as_slice() {
            [one] => {
                let (arch, variant) = normalize_arch(one, None);
                if KNOWN_ARCH.contains(&arch.as_str()) {
                    Ok(Platform::new("linux", &arch, variant.as_deref()))
                } else if KNOWN_OS.contains(&one.as_str()) {
                    Ok(Platform { os: one.clone(), ..Platform::host() })
                } else {
                    Err(bad("unknown operating system or architecture"))
                }
            }
            [os, arch] => {
                let (arch, variant) = normalize_arch(arch, None);
                Ok(Platform::new(normalize_os(os), &arch, variant.as_deref()))
            }
            [os, arch, variant] => {
                let (arch, variant) = normalize_arch(arch, Some(variant));
                Ok(Platform::new(normalize_os(os), &arch, variant.as_deref()))
            }
            _ => Err(bad("too many `/`")),
        }
    }

    /// How well an image for `self` serves a request for `wanted`: none = not at all, else lower is better.
    ///
    /// An arm image of a lower variant runs on a higher one (v6 serves v7); amd64 without variant serves amd64/v2 and up.
    pub fn rank_for(&self, wanted: &Platform) -> Option<u32> {
        if self.os != wanted.os || self.architecture_normal().0 != wanted.architecture_normal().0 {
            return None;
        }
        let own = variant_number(&self.architecture_normal().0, self.architecture_normal().1.as_deref());
        let asked = variant_number(&wanted.architecture_normal().0, wanted.architecture_normal().1.as_deref());
        if own > asked {
            return None;
        }
        if let (Some(own), Some(asked)) = (&self.os_version, &wanted.os_version)
            && own != asked
        {
            return None;
        }
        Some(asked - own)
    }

    fn architecture_normal(&self) -> (String, Option<String>) {
        normalize_arch(&self.architecture, self.variant.as_deref())
    }
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

const KNOWN_OS: &[&str] = &["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasi"];
const KNOWN_ARCH: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
];

fn normalize_os(os: &str) -> &str {
    match os {
        "macos" => "darwin",
        other => other,
    }
}

fn normalize_arch(arch: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.filter(|v| !v.is_empty());
    let (arch, variant) = match (arch, variant) {
        ("i386", _) => ("386", None),
        ("x86_64" | "x86-64" | "amd64", Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64", None),
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

fn variant_number(arch: &str, variant: Option<&str>) -> u32 {
    let parsed = variant.and_then(|v| v.trim_start_matches('v').split('.').next()?.parse().ok());
    parsed.unwrap_or(match arch {
        "arm64" => 8,
        "arm" => 7,
        "amd64" => 1,
        _ => 0,
    })
}
