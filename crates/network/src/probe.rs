//! temporary measurement
#![allow(clippy::unwrap_used, missing_docs)]
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Instant;
use rustix::thread::LinkNameSpaceType;
use crate::netlink::Socket;
use crate::{MacAddress, link};
pub fn run(count: usize) {
    use ponton_sys::namespace;
    let base = namespace::new_netns().unwrap();
    let mut socket = Socket::open(None).unwrap();
    let _ = &base;
    link::set_loopback_up(&mut socket).unwrap();
    link::create_bridge(&mut socket, "br0", MacAddress([2, 0x42, 1, 2, 3, 4]), 1500).unwrap();
    let bridge = link::find(&mut socket, "br0").unwrap().unwrap();
    link::configure(&mut socket, bridge.index, Ipv4Addr::new(172, 17, 0, 1), 16).unwrap();
    let mut times = [0u128; 8];
    let mut all = Vec::new();
    let start = Instant::now();
    for i in 0..count {
        let address = Ipv4Addr::from_bits(0xac11_0002 + i as u32);
        let mut t = Instant::now();
        let mut lap = |slot: usize| { times[slot] += t.elapsed().as_nanos(); t = Instant::now(); };
        namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        lap(0);
        let ns = namespace::current_netns().unwrap();
        let mut inner = Socket::open(None).unwrap();
        lap(1);
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        lap(2);
        link::set_loopback_up(&mut inner).unwrap();
        lap(3);
        let name = format!("veth{i}");
        link::create_veth(&mut socket, &link::Veth { host_name: &name, bridge: bridge.index, netns: ns.as_fd(), mac: MacAddress::of(address), mtu: 1500 }).unwrap();
        lap(4);
        link::configure_peer(&mut inner, address, 16, Ipv4Addr::new(172, 17, 0, 1)).unwrap();
        lap(5);
        drop(inner);
        namespace::enter(base.as_fd(), LinkNameSpaceType::Network).unwrap();
        lap(6);
        all.push(ns);
    }
    let each = |n: u128| n as f64 / 1e3 / count as f64;
    println!("total {:.1} us each", each(start.elapsed().as_nanos()));
    for (n, v) in ["unshare", "fd+socket", "disable_ipv6", "lo up", "veth", "addr+route", "back"].iter().zip(times) { println!("{n:14} {:.1}", each(v)); }
    let start = Instant::now();
    drop(all);
    println!("drop {:.1}", each(start.elapsed().as_nanos()));
    loop {
        let left = link::ports(&mut socket, bridge.index).unwrap().len();
        if left == 0 { break; }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    println!("gone {:.1}", each(start.elapsed().as_nanos()));
}
