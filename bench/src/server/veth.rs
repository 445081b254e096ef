//! A pair of network namespaces with a wire between them: two hosts on one machine, without loopback's short cuts.

use super::interrupt;
use crate::error::{BenchError, Result};
use corelog_yardstick::transfer::Net;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

/// Of documentation's own range (RFC 5737), so that they are nobody's.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// Two namespaces, removed when dropped, or by a signal.
pub(crate) struct Veth {
    names: [String; 2],
}

impl Veth {
    /// Makes them. That takes root, and the program `ip`.
    pub(crate) fn new() -> Result<Veth> {
        let names = ["a", "b"].map(|end| format!("corelog-bench-{}-{end}", std::process::id()));
        let veth = Veth { names };
        let [near, far] = &veth.names;
        for name in &veth.names {
            interrupt::namespace(name);
            ip(&["netns", "add", name])?;
        }
        ip(&["link", "add", "wire", "netns", near, "type", "veth", "peer", "name", "wire", "netns", far])?;
        for (name, address) in veth.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "wire"])?;
            ip(&["-n", name, "link", "set", "wire", "up"])?;
        }
        Ok(veth)
    }

    /// From one to the other.
    pub(crate) fn net(&self) -> Net {
        let [near, far] = self.names.each_ref().map(|name| Path::new("/run/netns").join(name));
        Net { receiver: IpAddr::V4(ADDRESSES[1]), namespaces: Some((near, far)) }
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // One that was never made has nothing to remove.
        self.names.iter().for_each(|name| drop(ip(&["netns", "del", name])));
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(BenchError::Server(format!("ip {}: {why}", arguments.join(" "))))
}
