//! Logs that outlive their writer, are compressed, or go to a service.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use ponton_runtime::shim::log::{compressed, gzip, local, numbered};
use ponton_runtime::shim::protocol::{
    LogAddress, LogFile, LogFormat, LogMessage, LogRemote, LogTarget, Status, SyslogFormat,
};

use crate::fixture::{Fixture, Options};

const PATIENCE: Duration = Duration::from_secs(120);

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All output in a file; every block but the last has to be whole.
fn text(file: &[u8]) -> Vec<u8> {
    file.chunks(local::BLOCK)
        .flat_map(|block| {
            let records: Vec<_> = local::records(block).collect();
            let end = records.last().map_or(0, |(at, record)| at + local::HEADER + record.text.len());
            assert!(block[end..].iter().all(|byte| *byte == 0), "what is behind the records is padding");
            records.into_iter().flat_map(|(_, record)| record.text.to_vec()).collect::<Vec<_>>()
        })
        .collect()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// What is in a compressed file; none while that is still being made.
fn decompressed(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let index = gzip::Index::new(&file).ok()?;
    let (mut content, mut chunk) = (Vec::new(), Vec::new());
    for number in 0..index.size.div_ceil(gzip::CHUNK as u64) {
        index.read(&file, number as usize, &mut chunk).ok()?;
        content.extend_from_slice(&chunk);
    }
    Some(content)
}

#[test]
fn a_log_goes_on_behind_what_a_killed_shim_wrote() {
    let fixture = Fixture::new();
    let path = fixture.log("a");
    let target: LogTarget = LogFile { max_size_bytes: 0, ..LogFile::new(&path, LogFormat::Local) }.into();
    let mut shim = fixture.shim("1");
    let options = Options { log: Some(target), ..Options::default() };
    let running = shim.start(&fixture, "a", &["/bin/yes", "0123456789"], options).unwrap();
    for round in 2..5 {
        let before = size(&path);
        until("the log grows", || (size(&path) > before + (1 << 20)).then_some(()));
        shim.child.kill().unwrap();
        shim.child.wait().unwrap();
        let record = fixture.directory.path().join("containers/a/shim.json");
        let status: Status = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        // As if it had been killed between two pages of one write.
        let file = File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut &file, &[7; 9][..round]).unwrap();
        shim = fixture.shim(&round.to_string());
        shim.adopt(status, &running.fds);
    }
    let before = size(&path);
    until("the log grows", || (size(&path) > before + (1 << 20)).then_some(()));
    running.kill();
    shim.exit_of("a");
    let text = String::from_utf8(text(&std::fs::read(&path).unwrap())).unwrap();
    // What a shim had read and not written died with it: a line may lack its beginning, three times.
    let damaged = text.lines().filter(|line| *line != "0123456789").count();
    assert!(damaged <= 4 && text.len() > 3 << 20, "{damaged} of {}", text.len());
    shim.forget("a");
    shim.retire();
}

#[test]
fn rotated_files_are_compressed_when_they_have_lain_a_while() {
    let fixture = Fixture::new();
    let path = fixture.log("a");
    let file = LogFile::new(&path, LogFormat::Local);
    let target = LogFile { max_size_bytes: 300_000, max_files: 4, compress: true, ..file };
    let mut shim = fixture.shim("1");
    let options = Options { log: Some(target.into()), ..Options::default() };
    // Three files are full, and one begun.
    let script = "i=100000; while [ $i -lt 170000 ]; do echo $i line; i=$((i + 1)); done; exec sleep 1000";
    let running = shim.start(&fixture, "a", &["/bin/sh", "-c", script], options).unwrap();
    let all = until("all is there, and compressed", || {
        let mut all = Vec::new();
        for number in (1..4).rev() {
            all.extend(text(&decompressed(&compressed(&path, number))?));
        }
        all.extend(text(&std::fs::read(&path).ok()?));
        let is_done = (1..4).all(|number| !numbered(&path, number).exists());
        (is_done && all.ends_with(b"169999 line\n")).then_some(all)
    });
    let numbers: Vec<u32> = String::from_utf8(all)
        .unwrap()
        .lines()
        .map(|line| line.strip_suffix(" line").unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (numbers[0]..170_000).collect::<Vec<_>>());
    assert!(!fixture.directory.path().join("a.log.gz.tmp").exists());
    running.kill();
    shim.exit_of("a");
    shim.forget("a");
    shim.retire();
}

#[test]
fn a_service_gets_the_output_and_the_file_keeps_it() {
    let fixture = Fixture::new();
    let socket = fixture.directory.path().join("service");
    let listener = UnixListener::bind(&socket).unwrap();
    let remote = LogRemote {
        address: LogAddress::UnixStream(socket),
        message: LogMessage::Syslog {
            format: SyslogFormat::Rfc3164,
            facility: 1,
            hostname: "h".into(),
            tag: "t".into(),
        },
        buffer_max_bytes: 1 << 20,
        lossy: false,
        retry_delay_ms: 10,
        retries_max: 0,
    };
    let file = LogFile::new(fixture.log("a"), LogFormat::Local);
    let target = LogTarget { file: Some(file), remote: Some(Box::new(remote)) };
    let mut shim = fixture.shim("1");
    let options = Options { log: Some(target), ..Options::default() };
    // More than the buffer and the socket take: the container has to wait for the reader.
    let running = shim.start(&fixture, "a", &["/bin/sh", "-c", "seq 300000; echo end >&2"], options).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        text
    });
    shim.exit_of("a");
    // It is closed when everything is sent.
    let sent = reading.join().unwrap();
    let lines: Vec<&str> = sent.lines().map(|line| line.split_once("]: ").unwrap().1).collect();
    let mut numbers = lines.clone();
    numbers.retain(|line| *line != "end");
    assert_eq!(lines.len(), 300_001);
    assert!(numbers.iter().enumerate().all(|(at, line)| *line == (at + 1).to_string()));
    assert_eq!(text(&std::fs::read(fixture.log("a")).unwrap()).len(), 1_988_895 + 4);
    drop(running);
    shim.forget("a");
    shim.retire();
}
