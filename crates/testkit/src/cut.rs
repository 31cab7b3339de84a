//! A way to a registry on which connections break.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use crate::Namespace;

/// Passes connections on to a registry. Ends when it is dropped.
#[derive(Debug)]
pub struct CuttingProxy {
    address: &'static str,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    registry: &'static str,
    /// Connections to be cut.
    cuts: usize,
    /// Bytes after which one is cut on its way from the registry.
    after: u64,
    done: AtomicUsize,
    is_over: AtomicBool,
}

impl CuttingProxy {
    /// Stands before a registry in a namespace. The first `cuts` connections on which more than `after` bytes come from
    /// the registry are cut there.
    pub fn start(namespace: &Namespace, registry: &'static str, cuts: usize, after: u64) -> Self {
        let address = "127.0.0.1:5001";
        let (done, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let state = Arc::new(State { registry, cuts, after, done, is_over });
        let (ready, listens) = channel();
        let shared = state.clone();
        namespace.spawn(move || serve(address, &shared, &ready));
        listens.recv().expect("the proxy listens");
        Self { address, state }
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> &'static str {
        self.address
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> usize {
        self.state.done.load(Ordering::SeqCst)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
    }
}

fn serve(address: &str, state: &Arc<State>, ready: &Sender<()>) {
    let listener = TcpListener::bind(address).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    let _ = ready.send(());
    while !state.is_over.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(std::time::Duration::from_millis(2));
            continue;
        };
        client.set_nonblocking(false).expect("blocking");
        let Ok(registry) = TcpStream::connect(state.registry) else { continue };
        let ends = [(client.try_clone(), registry.try_clone()), (Ok(registry), Ok(client))];
        for ((from, to), counts) in ends.into_iter().zip([false, true]) {
            let (from, to) = (from.expect("clone"), to.expect("clone"));
            let state = state.clone();
            std::thread::spawn(move || {
                pass(&from, &to, counts.then_some(&*state));
                // The other direction ends, too.
                for end in [&from, &to] {
                    let _ = end.shutdown(Shutdown::Both);
                }
            });
        }
    }
}

/// Passes bytes until one end is closed, or the connection is to be cut.
fn pass(mut from: &TcpStream, mut to: &TcpStream, cutting: Option<&State>) {
    let (mut passed, mut buffer) = (0, vec![0; 64 << 10]);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        passed += length as u64;
        if let Some(state) = cutting
            && passed > state.after
            && state
                .done
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |done| {
                    (done < state.cuts).then_some(done + 1)
                })
                .is_ok()
        {
            return;
        }
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
