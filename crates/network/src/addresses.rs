//! Which addresses of a network's subnet are taken.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use crate::Subnet;

/// The addresses of one subnet. They are given out in order, and one that was given back comes again
/// last, so that caches and connections of its former owner have time to go.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    used: HashSet<Ipv4Addr>,
    last: u32,
}

impl Addresses {
    /// All of `subnet` is free but its gateway.
    pub(crate) fn new(subnet: Subnet, gateway: Ipv4Addr) -> Self {
        Self { subnet, used: HashSet::from([gateway]), last: subnet.address.to_bits() }
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The next free address, `None` where all are taken.
    pub(crate) fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (first, end) = self.usable();
        let count = end.checked_sub(first).filter(|&count| count > 0)?;
        // The search starts behind the last one and goes around once.
        let start = self.last.checked_sub(first).map_or(0, |offset| offset + 1);
        let address = (0..count)
            .map(|step| Ipv4Addr::from_bits(first + (start + step) % count))
            .find(|address| !self.used.contains(address))?;
        self.last = address.to_bits();
        self.used.insert(address);
        Some(address)
    }

    /// Takes this address; false where another has it.
    pub(crate) fn claim(&mut self, address: Ipv4Addr) -> bool {
        self.used.insert(address)
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }

    fn usable(&self) -> (u32, u32) {
        (self.subnet.address.to_bits() + 1, self.subnet.broadcast().to_bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(subnet: &str) -> Addresses {
        let subnet: Subnet = subnet.parse().unwrap();
        Addresses::new(subnet, subnet.gateway())
    }

    #[test]
    fn they_come_in_order_and_the_freed_one_last() {
        let mut addresses = addresses("10.0.0.0/29");
        let all: Vec<_> = std::iter::from_fn(|| addresses.allocate()).collect();
        assert_eq!(all.first(), Some(&Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(all.last(), Some(&Ipv4Addr::new(10, 0, 0, 6)));
        assert_eq!(all.len(), 5);
        addresses.release(all[3]);
        addresses.release(all[1]);
        assert_eq!(addresses.allocate(), Some(all[1]));
        addresses.release(all[1]);
        assert_eq!(addresses.allocate(), Some(all[3]), "the one given back last comes last");
    }

    #[test]
    fn a_claimed_one_is_not_given_out() {
        let mut addresses = addresses("10.0.0.0/24");
        assert!(addresses.claim(Ipv4Addr::new(10, 0, 0, 2)));
        assert!(!addresses.claim(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(addresses.allocate(), Some(Ipv4Addr::new(10, 0, 0, 3)));
    }
}
