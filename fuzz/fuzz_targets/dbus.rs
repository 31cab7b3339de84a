//! A message from a bus: any bytes are a message or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ponton_cgroup::read_message(data);
});
