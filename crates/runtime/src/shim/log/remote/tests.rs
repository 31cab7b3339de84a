use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::super::{Log, Stream};
use super::*;
use crate::shim::protocol::{LogMessage, LogTarget, SyslogFormat};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn target(address: LogAddress) -> LogRemote {
    LogRemote {
        address,
        message: LogMessage::Syslog {
            format: SyslogFormat::Rfc5424,
            facility: 1,
            hostname: "h".into(),
            tag: "t".into(),
        },
        buffer_max_bytes: 1 << 20,
        lossy: false,
        retry_delay_ms: 10,
        retries_max: 0,
    }
}

fn log(target: LogRemote) -> Log {
    Log::open(&LogTarget { file: None, remote: Some(Box::new(target)) }, None).unwrap()
}

fn write(log: &mut Log, text: &str) {
    log.write(Stream::Stdout, text.as_bytes(), Timestamp::now(), &mut Vec::new()).unwrap();
}

/// Does what the shim's loop does, until the answer is there.
fn drive<T>(log: &mut Log, mut answer: impl FnMut(&mut Remote) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let remote = log.remote().unwrap();
        if let Some(answer) = answer(remote) {
            return answer;
        }
        assert!(Instant::now() < deadline, "nothing comes");
        let timeout = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let Some(socket) = remote.socket() else {
            rustix::event::poll(&mut [], Some(&timeout)).unwrap();
            remote.retry(Instant::now());
            continue;
        };
        let wants_out = remote.wanted().contains(Interest::OUT);
        let flags = if wants_out { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = [PollFd::from_borrowed_fd(socket, flags)];
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
        let ready = fds[0].revents();
        let mut events = Interest::empty();
        for (flag, event) in [
            (PollFlags::IN, Interest::IN),
            (PollFlags::OUT, Interest::OUT),
            (PollFlags::HUP, Interest::HUP),
            (PollFlags::ERR, Interest::ERR),
        ] {
            events.set(event, ready.contains(flag));
        }
        if !events.is_empty() {
            remote.ready(events);
        }
    }
}

/// Sends everything while somebody reads until there is `wanted`.
fn sent(log: &mut Log, mut reader: impl Read + Send + 'static, wanted: &'static str) -> String {
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&text).contains(wanted) {
            let length = reader.read(&mut buffer).unwrap();
            assert!(length > 0, "{wanted:?} does not come");
            text.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8(text).unwrap()
    });
    drive(log, |remote| (!remote.is_waiting() && reading.is_finished()).then_some(()));
    reading.join().unwrap()
}

fn texts(syslog: &str) -> Vec<&str> {
    syslog.lines().map(|line| line.split_once(" t - ").unwrap().1).collect()
}

#[test]
fn datagrams_arrive_one_a_line() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut log_udp = log(target(LogAddress::Udp(udp.local_addr().unwrap())));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = UnixDatagram::bind(&path).unwrap();
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut log_unix = log(target(LogAddress::UnixDatagram(path)));
    let mut buffer = [0; 4096];
    for log in [&mut log_udp, &mut log_unix] {
        write(log, "one\ntw");
        write(log, "o\n");
    }
    for wanted in ["one", "two"] {
        let length = udp.recv(&mut buffer).unwrap();
        assert_eq!(texts(std::str::from_utf8(&buffer[..length]).unwrap()), [wanted]);
        let length = unix.recv(&mut buffer).unwrap();
        assert_eq!(texts(std::str::from_utf8(&buffer[..length]).unwrap()), [wanted]);
    }
}

#[test]
fn streams_get_every_line_in_order() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut log_tcp = log(target(LogAddress::Tcp(tcp.local_addr().unwrap())));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let mut log_unix = log(target(LogAddress::UnixStream(path)));
    let lines: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    for log in [&mut log_tcp, &mut log_unix] {
        write(log, &lines);
    }
    let got = sent(&mut log_tcp, tcp.accept().unwrap().0, "line 2999\n");
    assert_eq!(texts(&got), lines.lines().collect::<Vec<_>>());
    let got = sent(&mut log_unix, unix.accept().unwrap().0, "line 2999\n");
    assert_eq!(texts(&got), lines.lines().collect::<Vec<_>>());
}

#[test]
fn what_waits_is_sent_when_the_service_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let mut log = log(target(LogAddress::UnixStream(path.clone())));
    write(&mut log, "before\n");
    assert!(log.remote().unwrap().is_waiting() && !log.is_full());
    let listener = UnixListener::bind(&path).unwrap();
    drive(&mut log, |remote| (!remote.is_waiting()).then_some(()));
    let (mut peer, _) = listener.accept().unwrap();
    let mut buffer = [0; 4096];
    let length = peer.read(&mut buffer).unwrap();
    assert_eq!(texts(std::str::from_utf8(&buffer[..length]).unwrap()), ["before"]);
    // It says something, which nobody wants to know, and goes.
    peer.write_all(b"bye").unwrap();
    drop(peer);
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    drive(&mut log, |remote| remote.socket().is_none().then_some(()));
    write(&mut log, "after\n");
    let listener = UnixListener::bind(&path).unwrap();
    drive(&mut log, |remote| (!remote.is_waiting()).then_some(()));
    let length = listener.accept().unwrap().0.read(&mut buffer).unwrap();
    assert_eq!(texts(std::str::from_utf8(&buffer[..length]).unwrap()), ["after"]);
}

#[test]
fn a_slow_service_makes_the_container_wait_or_lose() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let line = "x".repeat(1000) + "\n";
    let small = LogRemote { buffer_max_bytes: 10_000, ..target(LogAddress::UnixStream(path.clone())) };
    let mut waiting = log(small.clone());
    let mut losing = log(LogRemote { lossy: true, ..small.clone() });
    let mut written = 0;
    while !waiting.is_full() {
        write(&mut waiting, &line);
        written += 1;
        assert!(written < 100_000);
    }
    // Nothing of that is lost.
    let mut peer = listener.accept().unwrap().0;
    let reading = std::thread::spawn(move || {
        let mut count = 0;
        let mut buffer = vec![0; 65_536];
        while count < written {
            let length = peer.read(&mut buffer).unwrap();
            count += memchr::memchr_iter(b'\n', &buffer[..length]).count();
        }
        count
    });
    drive(&mut waiting, |remote| (!remote.is_waiting()).then_some(()));
    assert!(!waiting.is_full() && waiting.remote().unwrap().take_lost() == 0);
    assert_eq!(reading.join().unwrap(), written);
    for _ in 0..2000 {
        write(&mut losing, &line);
        assert!(!losing.is_full());
    }
    let remote = losing.remote().unwrap();
    assert!(remote.take_lost() > 0 && remote.waiting_bytes < 20_000);
    // One that is not there at all does not make anybody wait.
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let mut absent = log(LogRemote { retries_max: 2, ..small });
    for _ in 0..100 {
        write(&mut absent, &line);
        assert!(!absent.is_full());
    }
    // And after some tries what waits is given up.
    drive(&mut absent, |remote| (!remote.is_waiting()).then_some(()));
    assert!(absent.remote().unwrap().take_lost() >= 100);
}
