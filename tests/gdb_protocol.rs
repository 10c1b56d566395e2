//! gdb's remote protocol, without gdb: what the stub does on whichever KVM there is.

use std::time::Duration;

use proptest::prelude::*;
use shared_abi::{Gpa, Gva, layout};
use vmm::debug::Symbols;
use vmm::features::Feature;
use vmm::{Flat, KernelSource, Start, StartMode, StopReason};

use crate::harness::elf::{Elf, RX, Segment};
use crate::harness::gdb_client::{Client, debug};
use crate::harness::needs::{features, needs};
use crate::harness::{Boot, guest, probe};

/// Where the function `name` of the probe is.
fn function(name: &str) -> u64 {
    let image = std::fs::read(guest("probe")).expect("the probe was built");
    Symbols::read(&image).address_of(name).unwrap_or_else(|| panic!("there is no {name}")).0
}

/// A guest of these instructions, without our contract.
fn code(code: &[u8]) -> Boot {
    let image = Elf::new(layout::KERNEL.0).with(Segment::new(layout::KERNEL.0, RX, code)).to_bytes();
    probe("return").with(|config| {
        config.kernel = KernelSource::Bytes(image.into());
        config.contract = vmm::Contract::None;
        config.arguments.clear();
    })
}

/// mov al, 0; out 0xF4, al: the end of such a guest.
const EXIT: [u8; 4] = [0xB0, 0, 0xE6, 0xF4];

#[track_caller]
fn continue_to_stop(client: &mut Client) -> String {
    client.ask("vCont;c")
}

#[test]
fn the_guest_stands_at_its_first_instruction_and_runs_to_its_end() {
    let mut session = debug(probe("exit 7"));
    let client = &mut session.client;
    assert!(client.ask("?").starts_with("T05"));
    assert_eq!(client.rip(), layout::KERNEL.0);
    assert_eq!(continue_to_stop(client), "W07");
    assert_eq!(session.end().report.stop, StopReason::Exited { code: 7 });
}

#[test]
fn a_software_breakpoint_stops_the_guest_each_time_and_is_not_seen_in_memory() {
    let mut session = debug(probe("debuggee-loop"));
    let client = &mut session.client;
    let turn = function("debuggee::turn");
    let before = client.read(turn, 16).expect("the function is in memory");

    assert_eq!(client.ask(&format!("Z0,{turn:x},1")), "OK");
    assert_eq!(client.read(turn, 16), Some(before.clone()), "the breakpoint is hidden");
    for _ in 0..3 {
        assert!(continue_to_stop(client).contains("swbreak"));
        assert_eq!(client.rip(), turn);
    }
    assert_eq!(client.ask(&format!("z0,{turn:x},1")), "OK");
    assert_eq!(client.read(turn, 16), Some(before));
    session.hang_up();
}

#[test]
fn a_hardware_breakpoint_stops_the_guest_each_time() {
    needs!(HardwareBreakpoint);
    let mut session = debug(probe("debuggee-loop"));
    let client = &mut session.client;
    let turn = function("debuggee::turn");
    assert_eq!(client.ask(&format!("Z1,{turn:x},1")), "OK");
    for _ in 0..3 {
        assert!(continue_to_stop(client).contains("hwbreak"));
        assert_eq!(client.rip(), turn);
    }
    for gva in 1..4 {
        assert_eq!(client.ask(&format!("Z1,{gva:x},1")), "OK");
    }
    assert!(client.ask("Z1,5,1").starts_with('E'), "there are four");
    session.hang_up();
}

#[test]
fn a_watchpoint_stops_behind_the_write_or_is_refused_with_a_sentence() {
    // mov byte [0x20000], 1; then the end.
    let write = [0xC6, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0x01];
    let mut session = debug(code(&[&write[..], &EXIT].concat()));
    let client = &mut session.client;
    let reply = client.ask("Z2,20000,4");
    if features().has(Feature::Watchpoint) {
        assert_eq!(reply, "OK");
        let stop = continue_to_stop(client);
        assert!(stop.contains("watch:20000") || stop.contains("watch:0000000000020000"), "{stop}");
        assert_eq!(client.rip(), layout::KERNEL.0 + write.len() as u64);
        assert_eq!(continue_to_stop(client), "W00");
        session.end();
    } else {
        const SENTENCE: &str = "this host's KVM tells of no data watchpoints";
        assert!(reply.starts_with('E'), "{reply}");
        assert_eq!(continue_to_stop(client), "W00");
        assert!(client.console.contains(SENTENCE), "{}", client.console);
        let told = session.end().told;
        assert!(told.iter().any(|sentence| sentence.contains(SENTENCE)), "{told:?}");
    }
}

#[test]
fn what_the_kvm_lacks_is_refused_and_told_by_monitor() {
    let mut session = debug(probe("return"));
    let client = &mut session.client;
    let abilities = client.monitor("abilities");
    let line = |start: &str| abilities.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    for (feature, name, packet) in [
        (Feature::HardwareBreakpoint, "hardware breakpoints: ", "Z1,100000,1"),
        (Feature::Watchpoint, "watchpoints: ", "Z2,100000,8"),
    ] {
        let has = features().has(feature);
        assert_eq!(line(name).contains("four"), has, "{abilities}");
        assert_eq!(client.ask(packet) == "OK", has, "{feature}: {abilities}");
    }
    assert!(client.ask("Z3,100000,8").starts_with('E'), "x86 has no read watchpoints");
    assert!(client.ask("Z2,100000,21").starts_with('E'), "33 bytes take more than four registers");
    session.hang_up();
}

#[test]
fn a_step_is_one_instruction_even_if_it_exits() {
    let program = [
        &[0x90][..],                                       // nop
        &[0xB0, b'!'],                                     // mov al, '!'
        &[0xE6, 0xE9],                                     // out 0xE9, al: an exit
        &[0xE6, 0xE9],                                     // and one right behind it
        &[0xC6, 0x04, 0x25, 0x00, 0x00, 0x00, 0x03, 0x01], // mov byte [48 MiB], 1: perhaps an exit
        &[0xEB, 0x00],                                     // jmp to the next
        &EXIT,
    ];
    let mut session = debug(code(&program.concat()).memory("64M"));
    let client = &mut session.client;
    let mut expected = layout::KERNEL.0;
    for instruction in &program[..program.len() - 1] {
        assert_eq!(client.rip(), expected);
        assert!(client.ask("vCont;s:1").starts_with("T05"));
        expected += instruction.len() as u64;
    }
    assert_eq!(client.rip(), expected);
    assert_eq!(continue_to_stop(client), "W00");
    assert_eq!(session.end().console, "!!");
}

#[test]
fn a_step_from_a_breakpoint_executes_the_instruction_beneath_it() {
    let mut session = debug(code(&[&[0x48, 0xFF, 0xC3][..], &EXIT].concat())); // inc rbx
    let client = &mut session.client;
    assert_eq!(client.ask("Z0,100000,1"), "OK");
    assert!(client.ask("vCont;s:1").starts_with("T05"));
    assert_eq!((client.rip(), client.register(1)), (layout::KERNEL.0 + 3, 1));
    assert_eq!(continue_to_stop(client), "W00");
    session.end();
}

#[test]
fn a_range_is_left_in_one_request_and_a_breakpoint_in_it_stops() {
    // mov ecx, 50; dec ecx; jnz -4; nop: the loop takes a hundred steps.
    let program = [0xB9, 50, 0, 0, 0, 0xFF, 0xC9, 0x75, 0xFC, 0x90];
    let end = layout::KERNEL.0 + program.len() as u64 - 1;
    for breakpoint in [None, Some(layout::KERNEL.0 + 7)] {
        let mut session = debug(code(&[&program[..], &EXIT].concat()));
        let client = &mut session.client;
        if let Some(gva) = breakpoint {
            assert_eq!(client.ask(&format!("Z0,{gva:x},1")), "OK");
        }
        assert!(client.ask(&format!("vCont;r100000,{end:x}:1;c")).starts_with("T05"));
        let expected = breakpoint.map_or((end, 0), |gva| (gva, 49));
        assert_eq!((client.rip(), client.register(2)), expected);
        session.hang_up();
    }
}

#[test]
fn a_spinning_guest_is_interrupted_and_goes_on() {
    let mut session = debug(probe("spin"));
    let client = &mut session.client;
    for _ in 0..3 {
        client.send("vCont;c");
        std::thread::sleep(Duration::from_millis(50));
        client.interrupt();
        assert!(client.reply().starts_with("T02"));
    }
    // A Ctrl-C that comes in one piece with the wish to go on.
    client.send_raw(b"$vCont;c#a8\x03");
    assert!(client.reply().starts_with("T02"));
    let ended = session.hang_up();
    assert!(matches!(ended.report.stop, StopReason::DebuggerLeft { .. }), "{}", ended.report);
}

#[test]
fn registers_are_written_and_what_the_cpu_refuses_is_an_error() {
    // In the order of the description: RAX 0, RBX 1, XMM3 43, CR0 59, CR3 61.
    let mut session = debug(code(&[&[0x48, 0x89, 0xD8][..], &EXIT].concat())); // mov rax, rbx
    let client = &mut session.client;
    assert_eq!(client.ask("P1=8877665544332211"), "OK");
    assert_eq!(client.ask(&format!("P2b={}", "5a".repeat(16))), "OK");
    assert_eq!(client.ask("p2b"), "5a".repeat(16));
    assert_eq!(client.ask("P2b=00"), "E16", "a register has its size");

    let (cr0, cr3) = (client.register(59), client.register(61));
    assert_eq!(cr0 >> 31 & 1, 1, "paging is on: {cr0:#x}");
    assert!(client.ask("P3b=1100000000000000").starts_with('E'), "no long mode without paging");
    assert_eq!((client.register(59), client.register(61)), (cr0, cr3));

    assert!(client.ask("vCont;s:1").starts_with("T05"));
    assert_eq!(client.register(0), 0x1122_3344_5566_7788);

    let all = client.ask("g");
    assert_eq!(client.ask(&format!("G{all}")), "OK");
    assert_eq!(client.ask("g"), all);
    session.hang_up();
}

#[test]
fn memory_is_read_and_written_where_ram_is_mapped_and_nowhere_else() {
    let mut session = debug(probe("return").memory("4M"));
    let client = &mut session.client;
    for unmapped in [0, layout::STACK_GUARD.0, 4 << 20, 0x7FFF_FFFF_FFFF, 1 << 47, u64::MAX] {
        assert_eq!(client.read(unmapped, 8), None, "{unmapped:#x}");
        assert!(client.ask(&format!("M{unmapped:x},1:00")).starts_with('E'), "{unmapped:#x}");
    }
    assert_eq!(client.read((4 << 20) - 4, 8).map(|bytes| bytes.len()), Some(4), "as far as there is RAM");
    // The guest may not write its own code; a debugger may.
    assert_eq!(client.ask("M100000,2:9090"), "OK");
    assert_eq!(client.read(0x10_0000, 2), Some(vec![0x90, 0x90]));
    session.hang_up();
}

#[test]
fn an_int3_of_the_guests_own_is_told_and_then_is_the_guests() {
    if features().has(Feature::Int3) {
        // Where `int3` raises its exception and KVM does not tell of it, nobody can.
        needs!(SoftwareBreakpoint);
    }
    let mut session = debug(code(&[&[0x90, 0xCC][..], &EXIT].concat()));
    let client = &mut session.client;
    assert!(continue_to_stop(client).starts_with("T05"));
    assert_eq!(client.rip(), layout::KERNEL.0 + 1);
    // There is no handler.
    assert!(continue_to_stop(client).starts_with("T0b"));
    assert_eq!(session.hang_up().report.stop, StopReason::TripleFault);
}

#[test]
fn a_death_is_seen_before_it_is_the_end() {
    let mut session = debug(probe("unclaimed-port-out"));
    let client = &mut session.client;
    let stop = continue_to_stop(client);
    assert!(stop.starts_with("T0a") || stop.starts_with("T07"), "{stop}");
    assert!(client.console.contains("where no device is"), "{}", client.console);
    let rsp = client.register(7);
    assert!(client.read(rsp, 8).is_some(), "the dead guest's stack is there");
    assert_eq!(continue_to_stop(client), "W66", "102 as vmm's exit code");
    assert!(matches!(session.end().report.stop, StopReason::UnclaimedPort { port: 0x1234, .. }));
}

#[test]
fn a_detached_guest_runs_on_as_if_nobody_had_been_there() {
    let mut session = debug(probe("debuggee"));
    let client = &mut session.client;
    let add = function("debuggee::add");
    assert_eq!(client.ask(&format!("Z0,{add:x},1")), "OK");
    assert_eq!(client.ask("D"), "OK");
    let ended = session.end();
    assert_eq!(ended.report.stop, StopReason::Exited { code: 0 }, "{}", ended.report);
    assert_eq!(ended.console, "the sum is 42\nx=20 done\n");
}

#[test]
fn a_killed_guest_and_a_lost_debugger_end_the_run() {
    let mut session = debug(probe("spin"));
    session.client.send("k");
    let killed = session.end().report;
    assert!(killed.to_string().starts_with("the debugger ended the run"), "{killed}");
    assert_eq!(killed.stop.process_exit_code(), 130);

    let lost = debug(probe("spin")).hang_up().report;
    assert!(lost.to_string().starts_with("the debugger closed the connection"), "{lost}");

    let mut session = debug(probe("spin"));
    session.client.send("vCont;c");
    std::thread::sleep(Duration::from_millis(50));
    let lost = session.hang_up().report;
    assert!(lost.to_string().starts_with("the debugger closed the connection"), "{lost}");
}

#[test]
fn the_time_limit_ends_a_session_whether_the_guest_runs_or_stands() {
    for runs in [false, true] {
        let boot = probe("spin").with(|config| config.timeout = Some(Duration::from_millis(300)));
        let mut session = debug(boot);
        if runs {
            assert_eq!(session.client.ask("vCont;c"), "W7c", "124 as vmm's exit code");
        }
        let stop = session.end().report.stop;
        assert!(matches!(stop, StopReason::TimedOut { .. }), "{stop:?}");
    }
}

#[test]
fn monitor_tells_what_the_vmm_knows() {
    let mut session = debug(probe("return"));
    let client = &mut session.client;
    let help = client.monitor("help");
    for command in ["exits", "map", "walk 0x100000", "explain", "abilities"] {
        let name = command.split(' ').next().unwrap_or_default();
        assert!(help.contains(&format!("monitor {name}")), "{help}");
        assert!(!client.monitor(command).contains("unknown"), "{command}");
    }
    assert!(client.monitor("walk 0x100000").contains("maps a page of 4 KiB"));
    assert!(client.monitor("walk 0").contains("not present"));
    assert!(client.monitor("walk nowhere").contains("neither an address nor a function"));
    assert!(client.monitor("walk _start").contains("maps a page of 4 KiB"));
    assert!(client.monitor("map").contains("PML4, where CR3 points"));
    assert!(client.monitor("explain").contains("_start"));
    assert!(client.monitor("frobnicate").contains("unknown"));
    session.hang_up();
}

/// The body of a packet: what gdb may send, with anything behind it.
fn body() -> impl Strategy<Value = Vec<u8>> {
    const STARTS: [&str; 44] = [
        "",
        "?",
        "g",
        "G",
        "m",
        "m0,",
        "m100000,",
        "mffffffffffffff00,",
        "M100000,",
        "p",
        "P",
        "P10=",
        "H",
        "Hg",
        "Hc-1",
        "T",
        "c",
        "s",
        "C05",
        "vCont?",
        "vCont;c",
        "vCont;s:1",
        "vCont;r",
        "vCont;r100000,100010:1;",
        "Z0,",
        "Z0,100000,",
        "Z1,",
        "Z2,",
        "Z2,1000,",
        "z0,",
        "z1,",
        "X",
        "X100000,",
        "qRcmd,",
        "qRcmd,77616c6b2030",
        "qSupported:",
        "qXfer:features:read:",
        "qXfer:features:read:target.xml:0,",
        "qfThreadInfo",
        "QStartNoAckMode",
        "vFile:",
        "vKill",
        "qAttached",
        "R",
    ];
    let rest = prop_oneof![
        3 => "[0-9a-f,;:]{0,24}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => prop::collection::vec(any::<u8>(), 4000..5000),
    ];
    (prop::sample::select(STARTS.to_vec()), rest).prop_map(|(start, rest)| [start.as_bytes(), &rest].concat())
}

/// Bytes on the wire: mostly packets.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let packet = body().prop_map(|body| {
        let sum = body.iter().copied().fold(0, u8::wrapping_add);
        [b"$", &body[..], format!("#{sum:02x}").as_bytes()].concat()
    });
    prop_oneof![8 => packet, 1 => prop::collection::vec(any::<u8>(), 0..40), 1 => Just(vec![3]), 1 => Just(b"+".to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_debugger_sends_the_session_ends_and_nobody_panics(
        sent in prop::collection::vec(wire(), 1..12),
    ) {
        let boot = probe("return").with(|config| config.timeout = Some(Duration::from_secs(10)));
        let mut session = debug(boot);
        for bytes in &sent {
            if session.client.try_send(bytes).is_err() {
                break;
            }
        }
        let stop = session.hang_up().report.stop;
        let known = match &stop {
            StopReason::DebuggerLeft { .. } | StopReason::Exited { .. } => true,
            // What a debugger writes into memory and registers can kill a guest in any way, but not take for ever.
            other => !matches!(other, StopReason::Debug(_) | StopReason::Paused),
        };
        prop_assert!(known, "{stop:?}");
    }
}

#[test]
fn monitor_tells_the_mode_and_the_segments() {
    let mut session = debug(probe("return"));
    let told = session.client.monitor("mode");
    assert!(told.starts_with("64-bit mode, at 0x100000\nCS 0x8: base 0x0, "), "{told}");
    drop(session);

    let mut session = debug(code(&EXIT).with(|config| {
        config.kernel = KernelSource::Bytes(EXIT.into());
        let flat = Flat { load_at: Gpa(0x1_0000), entry: Gva(0x1_0000) };
        config.start = Start { mode: StartMode::Real, flat: Some(flat) };
    }));
    let client = &mut session.client;
    assert!(client.monitor("mode").starts_with("real mode, at 1000:0000, linear 0x10000\n"));
    assert_eq!(client.read(0x1_0000, 4), Some(EXIT.to_vec()), "addresses are linear");
    assert_eq!(continue_to_stop(client), "W00");
}
