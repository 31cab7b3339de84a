//! What flows: output to the log and the clients, input from the clients to the process.

use std::time::Instant;

use jiff::Timestamp;
use ponton_sys::event::Interest;
use rustix::io::Errno;

use super::attached::{Attached, BUFFER_MAX};
use super::process::{Output, Process};
use super::{READ_MAX, Server, Source};
use crate::shim::log::{Log, Stream};
use crate::shim::protocol::Event;

/// The most that is read from one output of a process that has ended, in bytes: more than a pipe
/// holds, and no more than others who still write to it may cost.
const DRAIN_MAX: usize = 2 << 20;

const STREAMS: [(Source, Stream); 2] = [(Source::Stdout, Stream::Stdout), (Source::Stderr, Stream::Stderr)];

impl Server {
    /// Puts the streams of a new process into the epoll set.
    pub(super) fn watch_outputs(&mut self, key: u32) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        for (output, (source, _)) in process.outputs.iter_mut().zip(STREAMS) {
            if let Some(output) = output
                && !output.is_watched
            {
                output.is_watched = self.epoll.add(&output.fd, source.token(key), Interest::IN).is_ok();
            }
        }
    }

    /// Reads an output once.
    pub(super) fn output_ready(&mut self, key: u32, index: usize) {
        self.read_output(key, index);
        self.hold_or_resume(key);
    }

    /// Reads everything that a process which has ended left in its outputs.
    pub(super) fn drain_outputs(&mut self, key: u32) {
        for index in [0, 1] {
            let mut total = 0;
            while let Some(length @ 1..) = self.read_output(key, index) {
                total += length;
                if total >= DRAIN_MAX {
                    break;
                }
            }
            self.close_output(key, index);
        }
    }

    /// How much was read; none if there was nothing.
    fn read_output(&mut self, key: u32, index: usize) -> Option<usize> {
        let output = self.processes.get(&key)?.outputs[index].as_ref()?;
        match rustix::io::read(&output.fd, &mut self.buffer[..READ_MAX]) {
            // The last one who had the terminal open closed it: EIO.
            Ok(0) | Err(Errno::IO) => {
                self.close_output(key, index);
                None
            }
            Ok(length) => {
                self.deliver(key, STREAMS[index].1, length);
                Some(length)
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => {
                eprintln!("shim: read output of {key}: {error}");
                self.close_output(key, index);
                None
            }
        }
    }

    pub(super) fn close_output(&mut self, key: u32, index: usize) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if let Some(output) = process.outputs[index].take()
            && output.is_watched
        {
            let _ = self.epoll.remove(&output.fd);
        }
    }

    /// Gives the first `length` bytes of the buffer to the log and the clients.
    fn deliver(&mut self, key: u32, stream: Stream, length: usize) {
        self.write_log(key, stream, length);
        let Some(process) = self.processes.get_mut(&key) else { return };
        let chunk = &self.buffer[..length];
        let mut gone = Vec::new();
        for &client_key in &process.clients {
            let Some(client) = self.clients.get_mut(&client_key) else { continue };
            let had_waiting = client.waiting() > 0;
            if client.send(stream, chunk).is_err() {
                if !client.has_left_input() {
                    gone.push(client_key);
                }
            } else if !had_waiting && client.waiting() > 0 {
                arm(&self.epoll, client_key, client, process.input_is_blocked());
            }
        }
        for client_key in gone {
            self.drop_client(client_key);
        }
    }

    fn write_log(&mut self, key: u32, stream: Stream, length: usize) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(log) = &mut process.log else { return };
        if let Err(error) = log.write(stream, &self.buffer[..length], Timestamp::now(), &mut self.scratch) {
            eprintln!("shim: write log of container {}: {error}", process.container);
        }
        if let Some(file) = log.take_rotated() {
            self.compressor.add(file.path, file.max_files, Instant::now());
        }
        if log.remote().is_some() {
            self.settle_service(key);
        }
    }

    /// Stops reading a process whose client or logging service is slow, and goes on when it has caught up.
    pub(super) fn hold_or_resume(&mut self, key: u32) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let most_waiting = process
            .clients
            .iter()
            .filter_map(|client| self.clients.get(client))
            .map(Attached::waiting)
            .max()
            .unwrap_or(0);
        let is_full = process.log.as_ref().is_some_and(Log::is_full);
        if !process.is_held && (most_waiting > BUFFER_MAX || is_full) {
            process.is_held = true;
            for output in process.outputs.iter_mut().flatten() {
                if std::mem::take(&mut output.is_watched) {
                    let _ = self.epoll.remove(&output.fd);
                }
            }
        } else if process.is_held && most_waiting <= BUFFER_MAX / 2 && !is_full {
            process.is_held = false;
            self.watch_outputs(key);
        }
    }

    /// Adds a client to a process, with what it has sent already.
    pub(super) fn add_client(&mut self, process_key: u32, client: Attached, preamble: &[u8]) {
        let key = self.new_key();
        let Some(process) = self.processes.get_mut(&process_key) else { return };
        process.clients.push(key);
        let client = self.clients.entry(key).or_insert(client);
        arm(&self.epoll, key, client, process.input_is_blocked());
        if client.has_input && !preamble.is_empty() {
            self.take_input(key, preamble);
        }
    }

    pub(super) fn client_ready(&mut self, key: u32, events: Interest) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let process_key = client.process;
        if events.contains(Interest::OUT) {
            if client.flush().is_err() && !client.has_left_input() {
                self.drop_client(key);
                return self.hold_or_resume(process_key);
            }
            if client.waiting() == 0 && client.is_ending {
                return self.drop_client(key);
            }
            self.hold_or_resume(process_key);
        }
        let has_gone = events.intersects(Interest::HUP | Interest::ERR);
        if has_gone && let Some(client) = self.clients.get_mut(&key) {
            client.has_left_input();
        }
        if has_gone || events.contains(Interest::IN) {
            self.read_client(key);
        }
        self.arm_client(key);
    }

    /// Reads a client's input once; of one that has gone, everything that the process takes now.
    fn read_client(&mut self, key: u32) {
        loop {
            let Some(client) = self.clients.get_mut(&key) else { return };
            let process = self.processes.get(&client.process);
            if !client.has_input || client.is_ending {
                if client.is_gone {
                    let process_key = client.process;
                    self.drop_client(key);
                    self.hold_or_resume(process_key);
                }
                return;
            }
            if process.is_some_and(Process::input_is_blocked) {
                if client.is_gone && client.interest.take().is_some() {
                    // The hang-up would be reported again and again.
                    let _ = self.epoll.remove(&*client);
                }
                return;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let is_gone = client.is_gone;
            let length = client.receive(&mut buffer[..READ_MAX]);
            match length {
                None if !is_gone => {}
                None | Some(0) => self.end_client_input(key),
                Some(length) => self.take_input(key, &buffer[..length]),
            }
            self.buffer = buffer;
            if !is_gone {
                return;
            }
        }
    }

    /// Gives what a client typed to the process, unless it is the detach keys.
    fn take_input(&mut self, key: u32, typed: &[u8]) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let process_key = client.process;
        let mut input = Vec::with_capacity(typed.len());
        let is_detached = client.keys.filter(typed, &mut input);
        self.write_input(process_key, &input);
        if is_detached {
            if let Some(process) = self.processes.get(&process_key) {
                let (container, exec) = (process.container.clone(), process.exec.clone());
                self.tell(&Event::Detached { container, exec });
            }
            self.end_client(key);
            self.hold_or_resume(process_key);
        }
    }

    /// The client has ended its side.
    fn end_client_input(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.has_input = false;
        let process_key = client.process;
        let mut held_back = Vec::new();
        client.keys.end(&mut held_back);
        self.write_input(process_key, &held_back);
        let Some(process) = self.processes.get_mut(&process_key) else { return };
        if !process.stdio.stdin_once {
            // As in Docker, a client that has no more to say is done with.
            self.end_client(key);
        } else if !process.stdio.terminal
            && let Some(input) = &mut process.input
        {
            input.is_ending = true;
            if !input.is_pending() {
                self.close_input(process_key);
            }
        }
    }

    fn write_input(&mut self, key: u32, bytes: &[u8]) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(input) = &mut process.input else { return };
        if bytes.is_empty() || input.is_ending {
            return;
        }
        if !input.write(bytes) {
            return self.close_input(key);
        }
        if input.is_pending() && !input.is_watched {
            input.is_watched = self.epoll.add(&input.fd, Source::Input.token(key), Interest::OUT).is_ok();
            self.arm_clients_of(key);
        }
    }

    /// The process takes input again.
    pub(super) fn input_ready(&mut self, key: u32) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(input) = &mut process.input else { return };
        if !input.flush() {
            return self.close_input(key);
        }
        if input.is_pending() {
            return;
        }
        if input.is_ending {
            return self.close_input(key);
        }
        if std::mem::take(&mut input.is_watched) {
            let _ = self.epoll.remove(&input.fd);
        }
        self.arm_clients_of(key);
    }

    pub(super) fn close_input(&mut self, key: u32) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if let Some(input) = process.input.take()
            && input.is_watched
        {
            let _ = self.epoll.remove(&input.fd);
        }
        self.arm_clients_of(key);
    }

    fn arm_clients_of(&mut self, key: u32) {
        let Some(process) = self.processes.get(&key) else { return };
        for &client_key in &process.clients {
            if let Some(client) = self.clients.get_mut(&client_key) {
                arm(&self.epoll, client_key, client, process.input_is_blocked());
            }
        }
    }

    fn arm_client(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let is_blocked = self.processes.get(&client.process).is_some_and(Process::input_is_blocked);
        arm(&self.epoll, key, client, is_blocked);
    }

    /// Closes a client as soon as it has all its output.
    pub(super) fn end_client(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.is_ending = true;
        if client.waiting() == 0 {
            self.drop_client(key);
        } else {
            self.arm_client(key);
        }
    }

    /// Closes a client now.
    fn drop_client(&mut self, key: u32) {
        let Some(client) = self.clients.remove(&key) else { return };
        if client.interest.is_some() {
            let _ = self.epoll.remove(&client);
        }
        if let Some(process) = self.processes.get_mut(&client.process) {
            process.clients.retain(|&other| other != key);
        }
        client.close(&mut [0; 4096]);
    }
}

/// Sets what a client is waited for. A hang-up is told in any case.
fn arm(epoll: &ponton_sys::event::Epoll, key: u32, client: &mut Attached, input_is_blocked: bool) {
    let mut interest = Interest::empty();
    if client.has_input && !client.is_ending && !input_is_blocked {
        interest |= Interest::IN;
    }
    if client.waiting() > 0 {
        interest |= Interest::OUT;
    }
    let token = Source::Client.token(key);
    let result = match client.interest {
        Some(armed) if armed == interest => return,
        Some(_) => epoll.modify(&*client, token, interest),
        None if client.is_gone && input_is_blocked => return,
        None => epoll.add(&*client, token, interest),
    };
    if result.is_ok() {
        client.interest = Some(interest);
    }
}

impl Output {
    pub(super) fn new(fd: std::os::fd::OwnedFd) -> Self {
        Self { fd, is_watched: false }
    }
}
