//! The I/O APIC by register: what a guest writes, what a line does, what is sent.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

/// What was said to the carrier of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Route(usize, Message),
    Send(usize),
}

#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<Said>>>);

impl Recorder {
    /// What was said since the last look.
    fn take(&self) -> Vec<Said> {
        std::mem::take(&mut self.0.lock().expect("no panics"))
    }
}

impl Messages for Recorder {
    fn route(&mut self, pin: usize, message: Message) -> Result<()> {
        self.0.lock().expect("no panics").push(Said::Route(pin, message));
        Ok(())
    }

    fn send(&mut self, pin: usize) -> Result<()> {
        self.0.lock().expect("no panics").push(Said::Send(pin));
        Ok(())
    }
}

fn ioapic() -> (Ioapic, Recorder) {
    let recorder = Recorder::default();
    (Ioapic::new(Box::new(recorder.clone())), recorder)
}

fn write(ioapic: &mut Ioapic, register: u8, value: u32) {
    ioapic.write(IOREGSEL, register.into()).expect("the recorder never fails");
    ioapic.write(IOWIN, value).expect("the recorder never fails");
}

fn read(ioapic: &mut Ioapic, register: u8) -> u32 {
    ioapic.write(IOREGSEL, register.into()).expect("the recorder never fails");
    ioapic.read(IOWIN)
}

fn set_line(ioapic: &mut Ioapic, pin: usize, is_asserted: bool) {
    ioapic.set_line(pin, is_asserted).expect("the recorder never fails");
}

/// The low half of pin 2's entry.
const LOW_2: u8 = 0x14;
const LEVEL: u32 = 1 << 15;
const MASK: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

#[test]
fn after_reset_all_pins_are_masked() {
    let (mut ioapic, recorder) = ioapic();
    assert_eq!(read(&mut ioapic, VERSION), 0x0017_0020);
    for register in (0x10..0x40).step_by(2) {
        assert_eq!((read(&mut ioapic, register), read(&mut ioapic, register + 1)), (MASK, 0));
    }
    (0..PINS).for_each(|pin| set_line(&mut ioapic, pin, true));
    assert_eq!(recorder.take(), []);
}

#[test]
fn an_edge_is_sent_once_and_a_masked_one_is_lost() {
    let (mut ioapic, recorder) = ioapic();
    set_line(&mut ioapic, 2, true);
    write(&mut ioapic, LOW_2, 0x32);
    let message = Message { address: 0xFEE0_0000, data: 0x4032 };
    assert_eq!(recorder.take(), [Said::Route(2, message)], "the edge came too early");

    set_line(&mut ioapic, 2, true);
    assert_eq!(recorder.take(), [], "it was asserted already");
    set_line(&mut ioapic, 2, false);
    set_line(&mut ioapic, 2, true);
    assert_eq!(recorder.take(), [Said::Send(2)]);
}

#[test]
fn a_level_is_sent_again_when_the_interrupt_has_ended_and_only_then() {
    let (mut ioapic, recorder) = ioapic();
    set_line(&mut ioapic, 2, true);
    write(&mut ioapic, LOW_2, LEVEL | 0x32);
    assert!(matches!(recorder.take()[..], [Said::Route(2, _), Said::Send(2)]), "the level was there");
    assert_eq!(read(&mut ioapic, LOW_2), LEVEL | REMOTE_IRR | 0x32);

    set_line(&mut ioapic, 2, true);
    ioapic.end(0x33).expect("the recorder never fails");
    assert_eq!(recorder.take(), [], "another vector has ended");
    ioapic.end(0x32).expect("the recorder never fails");
    assert_eq!(recorder.take(), [Said::Send(2)]);

    set_line(&mut ioapic, 2, false);
    ioapic.write(EOI, 0x32).expect("the recorder never fails");
    assert_eq!(recorder.take(), []);
    assert_eq!(read(&mut ioapic, LOW_2), LEVEL | 0x32);
}

#[test]
fn a_masked_level_is_sent_when_the_mask_goes() {
    let (mut ioapic, recorder) = ioapic();
    write(&mut ioapic, LOW_2, LEVEL | MASK | 0x32);
    set_line(&mut ioapic, 2, true);
    assert_eq!(recorder.take(), []);
    write(&mut ioapic, LOW_2, LEVEL | 0x32);
    assert!(matches!(recorder.take()[..], [Said::Route(2, _), Said::Send(2)]));
    // Masked while it is served: its end must still be seen.
    write(&mut ioapic, LOW_2, LEVEL | MASK | 0x32);
    ioapic.end(0x32).expect("the recorder never fails");
    assert_eq!(read(&mut ioapic, LOW_2), LEVEL | MASK | 0x32);
    write(&mut ioapic, LOW_2, LEVEL | 0x32);
    assert_eq!(recorder.take(), [Said::Send(2)], "the route is the same");
}

#[test]
fn the_destination_is_part_of_the_message() {
    let (mut ioapic, recorder) = ioapic();
    write(&mut ioapic, LOW_2 + 1, 0x0300_0000);
    write(&mut ioapic, LOW_2, 0x32);
    assert_eq!(recorder.take(), [Said::Route(2, Message { address: 0xFEE0_3000, data: 0x4032 })]);
}

proptest! {
    #[test]
    fn whatever_is_written_a_served_pin_is_level_triggered_and_sends_once(
        deeds in prop::collection::vec((0_u64..0x50, any::<u32>(), 0..PINS + 2, any::<bool>()), 0..200)
    ) {
        let (mut ioapic, recorder) = ioapic();
        for (offset, value, pin, is_asserted) in deeds {
            ioapic.write(offset & 0x70, value & 0x3F).expect("the recorder never fails");
            ioapic.write(offset, value).expect("the recorder never fails");
            set_line(&mut ioapic, pin, is_asserted);
            for pin in &ioapic.state.pins {
                let entry = pin.redirection;
                prop_assert!(!entry.is_served() || entry.is_level());
                prop_assert!(entry.is_masked() || pin.routed == Some(entry.message()));
            }
            for said in recorder.take() {
                let (Said::Route(pin, _) | Said::Send(pin)) = said;
                prop_assert!(pin < PINS);
            }
        }
    }
}
