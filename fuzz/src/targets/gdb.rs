//! What a debugger sends: packets of gdb's remote protocol, to a machine whose guest is about to run.
//!
//! A line of the input is a packet, which gets its frame and checksum here; a line that starts with `!` is sent as it is.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use vmm::debug::gdb::Debugger;
use vmm::{KernelSource, StopReason, Vm, VmConfig};

use super::image;

pub(super) fn run(input: &[u8]) {
    let mut config = VmConfig::new(KernelSource::Bytes(image::smallest().into()));
    config.timeout = Some(Duration::from_secs(5));
    let mut vm = Vm::build(config).expect("this target needs /dev/kvm");
    let (own, other) = UnixStream::pair().expect("the host has a pair of sockets");

    let answers = own.try_clone().expect("a descriptor is left");
    // Answers that nobody takes would hold the session up.
    let reader = thread::spawn(move || drop({ answers }.read_to_end(&mut Vec::new())));
    let bytes: Vec<u8> = input.split(|&byte| byte == b'\n').flat_map(framed).collect();
    let writer = thread::spawn(move || {
        let _ = { &own }.write_all(&bytes);
        let _ = own.shutdown(Shutdown::Write);
    });
    let report = vm.debug(Debugger::Connected(other.into()), &|_| {}).expect("the host can do its work");
    let is_stop_of_a_debugger = matches!(report.stop, StopReason::Debug(_) | StopReason::Paused);
    assert!(!is_stop_of_a_debugger, "the session ended where it should go on: {:?}", report.stop);
    writer.join().expect("the writer does not panic");
    reader.join().expect("the reader does not panic");
}

/// The bytes on the wire: `$`, the packet, `#`, its sum as two hexadecimal digits.
fn framed(line: &[u8]) -> Vec<u8> {
    if let [b'!', raw @ ..] = line {
        return raw.to_vec();
    }
    let sum = line.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    [b"$", line, format!("#{sum:02x}").as_bytes()].concat()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    [
        "qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+\n!+\nqXfer:features:read:target.xml:0,ffb\n?\ng",
        "Z0,100000,1\nvCont;c\nz0,100000,1\nvCont;s:1\nvCont;c",
        "Z1,100002,1\nvCont;c\np10\nP10=0200100000000000\ng\nvCont;s",
        "m100000,10\nM100000,1:90\nX100000,1:a\nm0,1000\nmffffffffffffffff,10\nZ2,40000,8\nz2,40000,8",
        "qRcmd,6d6170\nqRcmd,77616c6b2030\nqRcmd,65786974730a\nqRcmd,68656c70\nqRcmd,6578706c61696e",
        "vCont;r100000,100004:1\n!\u{3}\nHg1\nT1\nqfThreadInfo\nqsThreadInfo\nD;1",
        "vCont?\nQStartNoAckMode\nqAttached\nqXfer:exec-file:read::0,100\nvKill;1\nk",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
