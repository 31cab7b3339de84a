//! Endpoints that packets really go through, each test in a host of its own: a network namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ponton_sys::namespace::{self, Kinds};

use crate::link::{self, Veth};
use crate::{
    Endpoint, EndpointRequest, Error, MacAddress, Network, NetworkConfig, PortBinding, PortRequest, Protocol,
};
use ponton_sys::netlink::Socket;

/// Only a hang, or a packet that is lost, reaches it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A host without any link but a loopback that is up.
fn on_a_host(test: impl FnOnce(&Host) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        namespace::unshare(Kinds::NETWORK).unwrap();
        let mut route = Socket::open(None).unwrap();
        link::set_loopback_up(&mut route).unwrap();
        drop(route);
        test(&Host { state: tempfile::tempdir().unwrap() });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

struct Host {
    state: tempfile::TempDir,
}

impl Host {
    fn network(&self) -> Network {
        let mut config = NetworkConfig::new(self.state.path());
        config.prepared = 2;
        Network::new(config).unwrap()
    }

    /// The names of all ports of the bridge.
    fn ports() -> Vec<String> {
        let mut route = Socket::open(None).unwrap();
        let Some(bridge) = link::find(&mut route, "ponton0").unwrap() else { return Vec::new() };
        let ports = link::ports(&mut route, bridge.index).unwrap();
        ports.into_iter().map(|link| link.name).collect()
    }

    /// Another machine, 10.9.0.2, on a wire to this one, 10.9.0.1.
    fn neighbour() -> OwnedFd {
        let netns = namespace::new_netns().unwrap();
        let mut route = Socket::open(None).unwrap();
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        link::create_bridge(&mut route, "lan0", mac, 1500).unwrap();
        let bridge = link::find(&mut route, "lan0").unwrap().unwrap().index;
        link::configure(&mut route, bridge, [10, 9, 0, 1].into(), 24).unwrap();
        let veth = Veth {
            host_name: "wire",
            bridge,
            netns: netns.as_fd(),
            mac: MacAddress([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
            has_ipv6: true,
        };
        link::create_veth(&mut route, &veth).unwrap();
        inside(&netns, || {
            let mut route = Socket::open(None).unwrap();
            link::configure_peer(&mut route, [10, 9, 0, 2].into(), 24, [10, 9, 0, 1].into()).unwrap();
        });
        netns
    }
}

fn inside<T: Send>(netns: &OwnedFd, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace::join(netns.as_fd(), Kinds::NETWORK).unwrap();
            run()
        });
        thread.join().unwrap()
    })
}

/// A server in the namespace that tells the next `count` clients which address they come from.
fn serve(netns: &OwnedFd, port: u16, count: usize) -> JoinHandle<()> {
    let listener = inside(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut client, address) = listener.accept().unwrap();
            client.write_all(address.ip().to_string().as_bytes()).unwrap();
        }
    })
}

/// As what address a client sees itself answered; `None` where nobody answers.
fn ask(address: impl Into<IpAddr>, port: u16) -> Option<String> {
    let address = SocketAddr::new(address.into(), port);
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn request(container: &str, ports: Vec<PortRequest>) -> EndpointRequest {
    EndpointRequest {
        network: "bridge".to_owned(),
        container_id: container.to_owned(),
        container_name: format!("{container}-name"),
        mac: None,
        ipv4: None,
        ports,
        ids: None,
    }
}

fn publish(protocol: Protocol, host_ip: [u8; 4], host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        protocol,
        container_port,
        host_ip: IpAddr::from(host_ip),
        host_port,
        host_port_end: host_port,
    }
}

fn netns(endpoint: &Endpoint) -> &OwnedFd {
    endpoint.netns.as_ref().unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_a_host(|host| {
        let neighbour = Host::neighbour();
        let network = host.network();
        let all = publish(Protocol::Tcp, [0, 0, 0, 0], 8080, 80);
        let web = network.attach(&request("web", vec![all])).unwrap();
        let other = network.attach(&request("other", vec![])).unwrap();
        let server = serve(netns(&web), 80, 5);
        let gateway = web.record.gateway.unwrap();
        assert_eq!(ask(Ipv4Addr::LOCALHOST, 8080), Some(gateway.to_string()));
        assert_eq!(ask([10, 9, 0, 1], 8080).as_deref(), Some("10.9.0.1"));
        assert_eq!(inside(&neighbour, || ask([10, 9, 0, 1], 8080)).as_deref(), Some("10.9.0.2"));
        assert!(inside(netns(&other), || ask([10, 9, 0, 1], 8080)).is_some(), "another container");
        assert!(inside(netns(&web), || ask(gateway, 8080)).is_some(), "the container itself");
        server.join().unwrap();
        network.detach(&web.record).unwrap();
        drop(web);
        assert_eq!(ask(Ipv4Addr::LOCALHOST, 8080), None);
    });
}

#[test]
fn a_port_of_one_address_is_not_reached_at_another() {
    on_a_host(|host| {
        let neighbour = Host::neighbour();
        let network = host.network();
        let local = publish(Protocol::Tcp, [127, 0, 0, 1], 8080, 80);
        let web = network.attach(&request("web", vec![local])).unwrap();
        let server = serve(netns(&web), 80, 1);
        assert_eq!(inside(&neighbour, || ask([10, 9, 0, 1], 8080)), None);
        assert!(ask(Ipv4Addr::LOCALHOST, 8080).is_some());
        server.join().unwrap();
    });
}

#[test]
fn udp_is_published_too() {
    on_a_host(|host| {
        let network = host.network();
        let port = publish(Protocol::Udp, [0, 0, 0, 0], 5353, 53);
        let dns = network.attach(&request("dns", vec![port])).unwrap();
        let server = inside(netns(&dns), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        client.send_to(b"question", (Ipv4Addr::LOCALHOST, 5353)).unwrap();
        server.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], from).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"question");
        assert_eq!(from.to_string(), "127.0.0.1:5353");
        // The same client finds the next container at the port.
        network.detach(&dns.record).unwrap();
        drop(dns);
        let port = publish(Protocol::Udp, [0, 0, 0, 0], 5353, 53);
        let next = network.attach(&request("next", vec![port])).unwrap();
        let server = inside(netns(&next), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
        server.set_nonblocking(true).unwrap();
        wait_until("a question", || {
            client.send_to(b"question", (Ipv4Addr::LOCALHOST, 5353)).unwrap();
            server.recv_from(&mut buffer).is_ok()
        });
    });
}

#[test]
fn containers_reach_out_and_each_other_but_are_not_reached_uninvited() {
    on_a_host(|host| {
        let neighbour = Host::neighbour();
        let network = host.network();
        let a = network.attach(&request("a", vec![])).unwrap();
        let b = network.attach(&request("b", vec![])).unwrap();
        let outside = serve(&neighbour, 7, 1);
        let masked = inside(netns(&a), || ask([10, 9, 0, 2], 7));
        assert_eq!(masked.as_deref(), Some("10.9.0.1"));
        outside.join().unwrap();
        let address = a.record.ipv4.unwrap();
        let server = serve(netns(&a), 80, 1);
        let knock = SocketAddr::new(address.into(), 80);
        let short = Duration::from_millis(200);
        assert!(inside(&neighbour, || TcpStream::connect_timeout(&knock, short)).is_err());
        assert_eq!(inside(netns(&b), || ask(address, 80)), b.record.ipv4.map(|address| address.to_string()));
        server.join().unwrap();
    });
}

#[test]
fn a_port_that_is_taken_is_refused_and_nothing_stays() {
    on_a_host(|host| {
        let network = host.network();
        let port = || publish(Protocol::Tcp, [0, 0, 0, 0], 8080, 80);
        let first = network.attach(&request("first", vec![port()])).unwrap();
        let error = network.attach(&request("second", vec![port()])).unwrap_err();
        let Error::Publish { endpoint, .. } = &error else { panic!("{error}") };
        assert_eq!(
            error.to_string(),
            format!(
                "driver failed programming external connectivity on endpoint second-name \
                 ({endpoint}): Bind for 0.0.0.0:8080 failed: port is already allocated"
            )
        );
        assert_eq!(network.endpoints("bridge").len(), 1);
        network.detach(&first.record).unwrap();
        network.detach(&first.record).unwrap();
        drop(first);
        network.attach(&request("second", vec![port()])).unwrap();
    });
}

#[test]
fn addresses_can_be_asked_for() {
    on_a_host(|host| {
        let network = host.network();
        let mut wanted = request("fixed", vec![]);
        wanted.ipv4 = Some([172, 17, 3, 4].into());
        wanted.mac = Some("02:00:00:00:00:07".parse().unwrap());
        let endpoint = network.attach(&wanted).unwrap();
        assert_eq!((endpoint.record.ipv4, endpoint.record.mac), (wanted.ipv4, wanted.mac));
        wanted.container_id = "late".to_owned();
        assert!(matches!(network.attach(&wanted), Err(Error::AddressInUse(_))));
        assert_eq!(endpoint.record.prefix, 16);
        let plain = network.attach(&request("plain", vec![])).unwrap();
        let spare = plain.record.ipv4.unwrap().to_bits() + 1;
        wait_until("spare ones", || Host::ports().len() == 4);
        wanted.container_id = "spare".to_owned();
        wanted.ipv4 = Some(spare.into());
        assert_eq!(network.attach(&wanted).unwrap().record.mac, wanted.mac);
        wanted.ipv4 = Some((spare + 1).into());
        wanted.mac = None;
        let again = network.attach(&wanted).unwrap();
        assert_eq!(again.record.mac, wanted.ipv4.map(MacAddress::of));
        assert_eq!(network.endpoints("bridge").len(), 3, "a container has one endpoint");
    });
}

#[test]
fn none_has_loopback_only_and_host_has_no_namespace() {
    on_a_host(|host| {
        let network = host.network();
        let of = |name: &str| EndpointRequest { network: name.to_owned(), ..request(name, vec![]) };
        let none = network.attach(&of("none")).unwrap();
        assert_eq!(none.record.ipv4, None);
        inside(netns(&none), || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(link::find(&mut Socket::open(None).unwrap(), "eth0").unwrap().is_none());
        });
        assert!(network.attach(&of("host")).unwrap().netns.is_none());
        assert!(Host::ports().is_empty());
        let mut route = Socket::open(None).unwrap();
        assert!(link::find(&mut route, "ponton0").unwrap().is_none(), "no bridge without need");
    });
}

#[test]
fn a_subnet_that_the_host_uses_is_passed_over() {
    on_a_host(|host| {
        let mut route = Socket::open(None).unwrap();
        link::create_bridge(&mut route, "lan0", MacAddress([2, 0, 0, 0, 0, 9]), 1500).unwrap();
        let lan = link::find(&mut route, "lan0").unwrap().unwrap().index;
        link::configure(&mut route, lan, [172, 17, 200, 1].into(), 24).unwrap();
        let network = host.network();
        let endpoint = network.attach(&request("a", vec![])).unwrap();
        assert_eq!(endpoint.record.gateway, Some([172, 18, 0, 1].into()));
        let info = network.networks().into_iter().find(|info| info.name == "bridge").unwrap();
        assert_eq!(info.subnet.unwrap().to_string(), "172.18.0.0/16");
        assert_eq!(info.id, endpoint.record.network_id);
    });
}

#[test]
fn the_next_daemon_takes_over_the_living_and_clears_the_rest() {
    on_a_host(|host| {
        let network = host.network();
        let port = |port| vec![publish(Protocol::Tcp, [0, 0, 0, 0], port, 80)];
        let living = network.attach(&request("living", port(8080))).unwrap();
        let dead = network.attach(&request("dead", port(8081))).unwrap();
        drop(network);
        let next = host.network();
        next.recover(std::slice::from_ref(&living.record)).unwrap();
        assert_eq!(Host::ports().as_slice(), std::slice::from_ref(&living.record.host_interface));
        let server = serve(netns(&living), 80, 1);
        assert!(ask(Ipv4Addr::LOCALHOST, 8080).is_some());
        server.join().unwrap();
        drop(dead);
        let again = next.attach(&request("again", port(8081))).unwrap();
        assert_ne!(again.record.ipv4, living.record.ipv4);
        assert_eq!(again.record.network_id, living.record.network_id);
        let error = next.attach(&request("clash", port(8080))).unwrap_err();
        assert!(error.to_string().contains("port is already allocated"), "{error}");
    });
}

#[test]
fn rules_and_bridge_come_back_when_somebody_removed_them() {
    on_a_host(|host| {
        let port = |port| vec![publish(Protocol::Tcp, [0, 0, 0, 0], port, 80)];
        let network = host.network();
        let first = network.attach(&request("first", port(8080))).unwrap();
        crate::firewall::Firewall::open().unwrap().delete().unwrap();
        let second = network.attach(&request("second", port(8081))).unwrap();
        let servers = [serve(netns(&first), 80, 1), serve(netns(&second), 80, 1)];
        assert!(ask(Ipv4Addr::LOCALHOST, 8080).is_some());
        assert!(ask(Ipv4Addr::LOCALHOST, 8081).is_some());
        for server in servers {
            server.join().unwrap();
        }
        drop(network);
        let mut route = Socket::open(None).unwrap();
        let bridge = link::find(&mut route, "ponton0").unwrap().unwrap();
        link::delete(&mut route, bridge.index).unwrap();
        let network = host.network();
        network.recover(&[first.record.clone(), second.record]).unwrap();
        let server = serve(netns(&first), 81, 1);
        assert!(ask(first.record.ipv4.unwrap(), 81).is_some());
        server.join().unwrap();
    });
}

#[test]
fn nothing_is_left_of_a_daemon_and_its_containers() {
    on_a_host(|host| {
        let network = host.network();
        let endpoint = network.attach(&request("a", vec![])).unwrap();
        wait_until("two spare ones and one in use", || Host::ports().len() == 3);
        network.detach(&endpoint.record).unwrap();
        drop(endpoint);
        wait_until("the spare ones", || Host::ports().len() == 2);
        drop(network);
        wait_until("nothing", || Host::ports().is_empty());
    });
}

#[test]
fn a_daemon_leaves_the_host_as_it_was_unless_a_container_needs_it() {
    fn host_has() -> (bool, bool) {
        let mut route = Socket::open(None).unwrap();
        let bridge = link::find(&mut route, "ponton0").unwrap().is_some();
        let binding = PortBinding {
            protocol: Protocol::Tcp,
            container_port: 1,
            host_ip: Ipv4Addr::LOCALHOST,
            host_port: 1,
        };
        let forward = crate::firewall::Forward { binding, address: Ipv4Addr::LOCALHOST };
        // It fails where there is no table.
        let table = crate::firewall::Firewall::open().unwrap().publish(&[forward]).is_ok();
        (bridge, table)
    }
    on_a_host(|host| {
        let network = host.network();
        network.leave().unwrap();
        let endpoint = network.attach(&request("a", vec![])).unwrap();
        let port = vec![publish(Protocol::Tcp, [0, 0, 0, 0], 8080, 80)];
        let other = network.attach(&request("b", port)).unwrap();
        network.detach(&endpoint.record).unwrap();
        network.leave().unwrap();
        let server = serve(netns(&other), 80, 1);
        assert!(ask(Ipv4Addr::LOCALHOST, 8080).is_some(), "what a container needs stays");
        server.join().unwrap();
        network.detach(&other.record).unwrap();
        network.leave().unwrap();
        assert_eq!(host_has(), (false, false));
        // It comes back with the next container.
        let endpoint = network.attach(&request("a", vec![])).unwrap();
        assert_eq!(host_has(), (true, true));
        network.detach(&endpoint.record).unwrap();
    });
}
