//! What endpoints cost: makes and drops many, as containers started several at a time would, in a
//! network namespace of its own. `endpoints [COUNT] [AT-A-TIME] [PREPARED] [PORTS]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ponton_network::{EndpointRequest, Network, NetworkConfig, PortRequest, Protocol};
use ponton_sys::namespace::{self, Kinds};

fn request(number: usize, ports: usize) -> EndpointRequest {
    let port = |port: usize| PortRequest {
        protocol: Protocol::Tcp,
        container_port: port as u16 + 80,
        host_ip: Ipv4Addr::UNSPECIFIED.into(),
        host_port: 0,
        host_port_end: 0,
    };
    EndpointRequest {
        network: "bridge".to_owned(),
        container_id: number.to_string(),
        container_name: number.to_string(),
        mac: None,
        ipv4: None,
        ports: (0..ports).map(port).collect(),
        ids: None,
    }
}

fn in_parallel(count: usize, at_a_time: usize, work: impl Fn(usize) + Sync) -> Duration {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
    start.elapsed()
}

fn interfaces() -> usize {
    std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().matches("veth").count()
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let mut argument = |default| arguments.next().unwrap_or(default);
    let (count, at_a_time) = (argument(200), argument(8));
    let (prepared, ports) = (argument(8), argument(0));
    // A thread's namespace is that of the threads it starts.
    namespace::unshare(Kinds::NETWORK).unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut config = NetworkConfig::new(state.path());
    config.prepared = prepared;
    let network = Network::new(config).unwrap();
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;

    let start = Instant::now();
    let first = network.attach(&request(usize::MAX, 0)).unwrap();
    println!("first, with the bridge   {:8.3} ms", start.elapsed().as_secs_f64() * 1e3);
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let second = network.attach(&request(usize::MAX - 1, ports)).unwrap();
    println!("one of the prepared      {:8.3} ms", start.elapsed().as_secs_f64() * 1e3);
    std::thread::sleep(Duration::from_millis(100));

    let made = Mutex::new(Vec::new());
    let time = in_parallel(count, at_a_time, |number| {
        let endpoint = network.attach(&request(number, ports)).unwrap();
        made.lock().unwrap().push(endpoint);
    });
    println!("attach, each             {:8.3} ms", each(time));
    std::thread::sleep(Duration::from_millis(100));

    let made = Mutex::new(made.into_inner().unwrap());
    let start = Instant::now();
    let time = in_parallel(count, at_a_time, |_| {
        let endpoint = made.lock().unwrap().pop().unwrap();
        network.detach(&endpoint.record).unwrap();
    });
    println!("detach, each             {:8.3} ms", each(time));
    while interfaces() > prepared + 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("gone from the kernel     {:8.3} ms", each(start.elapsed()));

    let time = in_parallel(count, at_a_time, |number| {
        let endpoint = network.attach(&request(number, ports)).unwrap();
        network.detach(&endpoint.record).unwrap();
    });
    println!("attach and detach, each  {:8.3} ms", each(time));
    drop((first, second));
}
