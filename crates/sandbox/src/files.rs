//! /etc/hosts and /etc/resolv.conf of a step.

use std::fs;

use crate::Process;

/// What is put over the rootfs's own files in every run.
pub const TARGETS: &[&str] = &["/etc/resolv.conf", "/etc/hosts"];

/// BuildKit `executor/oci/hosts.go`: localhost and the host name that the step finds, then what was asked for.
pub fn hosts(process: &Process, own: &str) -> Vec<u8> {
    let mut text = format!("127.0.0.1\tlocalhost {own}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in &process.extra_hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text.into_bytes()
}

/// The host name as it is here.
pub fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The builder's own, whose network the step has. Where that only names systemd's stub on the loopback interface it would do
/// as well, for the interface is the same; BuildKit `executor/oci/resolvconf.go` keeps it for host networks too.
pub fn resolv_conf() -> Vec<u8> {
    fs::read("/etc/resolv.conf").unwrap_or_default()
}
