use std::fs::File;
use std::io::Write;

use ponton_runtime::shim::log::local::{self, BLOCK, PARTIAL, STDERR};
use ponton_runtime::shim::log::{compressed, gzip, numbered};

use super::*;

fn request() -> LogsRequest {
    LogsRequest { stdout: true, stderr: true, ..LogsRequest::default() }
}

fn line(text: &str, stream: &str, second: u32) -> String {
    format!(
        "{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.5Z\"}}\n"
    )
}

fn read(reader: &mut Reader) -> String {
    String::from_utf8(read_bytes(reader)).unwrap()
}

fn read_bytes(reader: &mut Reader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        all.extend(batch);
    }
    all
}

fn log(lines: &[String]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("container.log");
    std::fs::write(&path, lines.concat()).unwrap();
    (dir, path)
}

fn open(path: &Path, request: LogsRequest) -> Reader {
    Reader::open(path, Format::Json, request, true).unwrap()
}

#[test]
fn frames_carry_stream_and_length() {
    let (_dir, path) = log(&[line("a", "stdout", 1), line("bc", "stderr", 2)]);
    let mut reader = Reader::open(&path, Format::Json, request(), false).unwrap();
    assert_eq!(read(&mut reader).as_bytes(), b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\x03bc\n");
}

#[test]
fn tail_since_until_and_streams_choose_lines() {
    let lines: Vec<_> =
        (0..30).map(|n| line(&format!("n{n}"), if n % 2 == 0 { "stdout" } else { "stderr" }, n)).collect();
    let (_dir, path) = log(&lines);
    let get = |request| read(&mut open(&path, request));
    assert_eq!(get(LogsRequest { tail: Some(2), ..request() }), "n28\nn29\n");
    assert_eq!(get(LogsRequest { tail: Some(0), ..request() }), "");
    assert_eq!(get(LogsRequest { tail: Some(99), ..request() }).lines().count(), 30);
    assert_eq!(get(LogsRequest { tail: Some(3), stderr: false, ..request() }), "n28\n");
    let time = |text: &str| Some(text.parse().unwrap());
    let since = LogsRequest { since: time("2026-01-01T00:00:28Z"), ..request() };
    assert_eq!(get(since), "n28\nn29\n");
    let until = LogsRequest { until: time("2026-01-01T00:00:01.5Z"), ..request() };
    assert_eq!(get(until), "n0\nn1\n");
    let stamped = LogsRequest { timestamps: true, tail: Some(1), ..request() };
    assert_eq!(get(stamped), "2026-01-01T00:00:29.500000000Z n29\n");
}

#[test]
fn attributes_are_shown_as_docker_shows_them() {
    let entry = r#"{"log":"hi\n","stream":"stdout","attrs":{"tag":"t/x","a":"1 2","FOO":"b=,"},"time":"2026-01-01T00:00:00Z"}"#;
    let (_dir, path) = log(&[format!("{entry}\n"), line("none", "stdout", 1)]);
    let details = LogsRequest { details: true, ..request() };
    assert_eq!(read(&mut open(&path, details.clone())), "FOO=b%3D%2C,a=1+2,tag=t%2Fx hi\n none\n");
    let both = LogsRequest { timestamps: true, tail: Some(2), ..details };
    assert!(read(&mut open(&path, both)).starts_with("2026-01-01T00:00:00.000000000Z FOO="));
}

#[test]
fn tail_reaches_into_older_files() {
    let (_dir, path) = log(&[line("new", "stdout", 9)]);
    std::fs::write(numbered(&path, 1), line("old", "stdout", 8)).unwrap();
    std::fs::write(numbered(&path, 2), line("oldest", "stdout", 7)).unwrap();
    let get = |tail| read(&mut open(&path, LogsRequest { tail, ..request() }));
    assert_eq!(get(Some(2)), "old\nnew\n");
    assert_eq!(get(None), "oldest\nold\nnew\n");
}

#[test]
fn reading_goes_on_across_rotations_and_half_lines() {
    let (_dir, path) = log(&[line("one", "stdout", 1)]);
    let mut reader = open(&path, request());
    assert_eq!(read(&mut reader), "one\n");
    let two = line("two", "stdout", 2);
    let mut file = File::options().append(true).open(&path).unwrap();
    file.write_all(&two.as_bytes()[..10]).unwrap();
    assert_eq!(read(&mut reader), "");
    file.write_all(&two.as_bytes()[10..]).unwrap();
    std::fs::rename(&path, numbered(&path, 1)).unwrap();
    std::fs::write(&path, line("three", "stdout", 3)).unwrap();
    std::fs::rename(numbered(&path, 1), numbered(&path, 2)).unwrap();
    std::fs::rename(&path, numbered(&path, 1)).unwrap();
    std::fs::write(&path, line("four", "stdout", 4)).unwrap();
    assert_eq!(read(&mut reader), "two\nthree\nfour\n");
}

#[test]
fn a_log_of_one_file_may_be_emptied() {
    let (_dir, path) = log(&[line("one", "stdout", 1), line("two", "stdout", 2)]);
    let mut reader = open(&path, request());
    assert_eq!(read(&mut reader), "one\ntwo\n");
    std::fs::write(&path, line("three", "stdout", 3)).unwrap();
    assert_eq!(read(&mut reader), "three\n");
}

#[test]
fn a_long_tail_crosses_blocks() {
    let lines: Vec<_> = (0..5000).map(|n| line(&format!("n{n}"), "stdout", 0)).collect();
    let (_dir, path) = log(&lines);
    let text = read(&mut open(&path, LogsRequest { tail: Some(4321), ..request() }));
    assert_eq!(text.lines().count(), 4321);
    assert!(text.starts_with("n679\n"));
}

#[test]
fn damaged_lines_are_left_out() {
    let (_dir, path) = log(&["garbage\n".into(), line("ok", "stdout", 1), "{\"log\":".into()]);
    assert_eq!(read(&mut open(&path, request())), "ok\n");
    let (_dir, path) = log(&["x".repeat(9 << 20), "\n".into(), line("ok", "stdout", 1)]);
    assert_eq!(read(&mut open(&path, request())), "ok\n");
}

/// A log of numbered lines, several at one time (in seconds), in files that each begin at one of
/// `begins`; all but the last two are compressed.
fn local_log(format: Format, begins: &[u64], end: u64) -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = log(&[]);
    for (index, first) in begins.iter().enumerate() {
        let last = begins.get(index + 1).copied().unwrap_or(end);
        let mut bytes = Vec::new();
        for second in *first..last {
            let text: String = (0..10).map(|n| format!("{} {}\n", second * 10 + n, "x".repeat(90))).collect();
            if format == Format::Local {
                let position = bytes.len() as u64;
                local::put(&mut bytes, position, second * 1_000_000_000, 0, [b"", text.as_bytes()]);
            } else {
                for text in text.lines() {
                    let time = Timestamp::from_second(second as i64).unwrap();
                    writeln!(bytes, r#"{{"log":"{text}\n","stream":"stdout","time":"{time}"}}"#).unwrap();
                }
            }
        }
        let number = (begins.len() - 1 - index) as u32;
        std::fs::write(numbered(&path, number), &bytes).unwrap();
        if number > 1 {
            pack(&path, number);
        }
    }
    (directory, path)
}

fn pack(path: &Path, number: u32) {
    let target = File::create(compressed(path, number)).unwrap();
    gzip::compress(&File::open(numbered(path, number)).unwrap(), &target).unwrap();
    std::fs::remove_file(numbered(path, number)).unwrap();
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect()
}

#[test]
fn every_tail_and_every_time_is_found_in_every_file() {
    for format in [Format::Local, Format::Json] {
        let (_dir, path) = local_log(format, &[1, 1000, 1700, 2000], 2100);
        let get = |request| numbers(&read(&mut Reader::open(&path, format, request, true).unwrap()));
        assert_eq!(get(request()), (10..21_000).collect::<Vec<_>>());
        for wanted in [1, 5, 10, 13, 999, 1000, 1001, 4005, 11_000, 20_990, 30_000] {
            let first = 21_000_u64.saturating_sub(wanted).max(10);
            let tail = LogsRequest { tail: Some(wanted), ..request() };
            assert_eq!(get(tail), (first..21_000).collect::<Vec<_>>(), "tail {wanted}");
        }
        for first in [0, 1, 2, 500, 999, 1000, 1001, 1699, 1700, 1999, 2000, 2099, 2100] {
            let time = |second: u64| Some(Timestamp::from_second(second as i64).unwrap());
            let since = LogsRequest { since: time(first), until: time(first + 3), ..request() };
            let expected: Vec<u64> = (first.max(1) * 10..((first + 4) * 10).min(21_000)).collect();
            assert_eq!(get(since), expected, "since {first}");
        }
    }
}

#[test]
fn a_time_is_found_without_reading_what_is_before() {
    let (_dir, path) = local_log(Format::Local, &[1], 4000);
    let since = Some(Timestamp::from_second(3000).unwrap());
    let reader = Reader::open(&path, Format::Local, LogsRequest { since, ..request() }, true).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(reader.offset > size * 3 / 4 - 4 * BLOCK as u64, "{} of {size}", reader.offset);
}

#[test]
fn records_are_lines_with_their_stream() {
    let (_dir, path) = log(&[]);
    let mut bytes = Vec::new();
    local::put(&mut bytes, 0, 1_500_000_000, 0, [b"", b"a\n\nb\n"]);
    let position = bytes.len() as u64;
    local::put(&mut bytes, position, 2_000_000_000, STDERR | PARTIAL, [b"", b"\xff\0"]);
    std::fs::write(&path, &bytes).unwrap();
    let get = |request, raw| read_bytes(&mut Reader::open(&path, Format::Local, request, raw).unwrap());
    assert_eq!(
        get(request(), false),
        b"\x01\0\0\0\0\0\0\x02a\n\x01\0\0\0\0\0\0\x01\n\x01\0\0\0\0\0\0\x02b\n\x02\0\0\0\0\0\0\x02\xff\0"
    );
    assert_eq!(get(request(), true), b"a\n\nb\n\xff\0");
    assert_eq!(get(LogsRequest { tail: Some(2), ..request() }, true), b"b\n\xff\0");
    assert_eq!(get(LogsRequest { stdout: false, ..request() }, true), b"\xff\0");
    let stamped = LogsRequest { timestamps: true, details: true, stderr: false, ..request() };
    assert_eq!(
        String::from_utf8(get(stamped, true)).unwrap(),
        "1970-01-01T00:00:01.500000000Z  a\n1970-01-01T00:00:01.500000000Z  \n1970-01-01T00:00:01.500000000Z  b\n"
    );
}

#[test]
fn a_damage_costs_its_block_only() {
    let (_dir, path) = local_log(Format::Local, &[1], 1000);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[BLOCK..BLOCK + 20].fill(0xaa);
    std::fs::write(&path, &bytes).unwrap();
    let got = numbers(&read(&mut Reader::open(&path, Format::Local, request(), true).unwrap()));
    let whole = local::records(&bytes[..BLOCK]).map(|(_, record)| record.text).collect::<Vec<_>>().concat();
    let last = *numbers(&String::from_utf8(whole).unwrap()).last().unwrap();
    assert_eq!(got.iter().position(|number| *number > last + 1).unwrap() as u64, last - 9);
    assert_eq!(*got.last().unwrap(), 9999);
    assert!(got.len() > 9000 && got.len() < 9700, "{}", got.len());
}

#[test]
fn a_follower_goes_on_when_its_file_is_compressed() {
    let (_dir, path) = log(&[line("one", "stdout", 1)]);
    let mut reader = open(&path, request());
    assert_eq!(read(&mut reader), "one\n");
    std::fs::rename(&path, numbered(&path, 2)).unwrap();
    pack(&path, 2);
    std::fs::write(numbered(&path, 1), line("two", "stdout", 2)).unwrap();
    std::fs::write(&path, line("three", "stdout", 3)).unwrap();
    assert_eq!(read(&mut reader), "two\nthree\n");
}

#[test]
fn a_compressed_file_that_is_damaged_is_passed_over() {
    let (_dir, path) = local_log(Format::Json, &[1, 10, 20], 30);
    std::fs::write(compressed(&path, 2), b"no gzip at all, and long enough to have a header").unwrap();
    let got = numbers(&read(&mut open(&path, request())));
    assert_eq!(got, (100..300).collect::<Vec<_>>());
}

#[test]
fn a_record_that_is_written_bit_by_bit_is_read_once() {
    let (_dir, path) = log(&[]);
    let mut bytes = Vec::new();
    for number in 0..3 {
        let position = bytes.len() as u64;
        local::put(&mut bytes, position, 5, 0, [b"", format!("line {number}\n").as_bytes()]);
    }
    let mut reader = Reader::open(&path, Format::Local, request(), true).unwrap();
    let mut file = File::options().append(true).open(&path).unwrap();
    let mut got = String::new();
    for byte in bytes {
        file.write_all(&[byte]).unwrap();
        got += &read(&mut reader);
    }
    assert_eq!(got, "line 0\nline 1\nline 2\n");
}
