//! Instructions that KVM had to emulate and could not: which, why KVM emulates at all, and what to do.

use super::{Diagnosis, Evidence};
use crate::debug::instruction::{Instruction, linear_rip, spaced};
use crate::doctor::Flavour;

/// Explains an emulation failure; `bytes` are what KVM gave of the instruction.
pub(super) fn diagnose(evidence: &Evidence<'_>, bytes: &[u8]) -> Diagnosis {
    let state = evidence.state;
    let mut diagnosis = Diagnosis { died: true, ..evidence.plain(state) };
    let given = Instruction::decode(state.rip(), bytes, state);
    diagnosis.instruction = given
        .map(|instruction| Instruction { gva: linear_rip(state), ..instruction })
        .or_else(|| Instruction::at_rip(state, &evidence.space()));
    let subject = match &diagnosis.instruction {
        Some(instruction) => format!("`{}`", instruction.text),
        None if bytes.is_empty() => "the instruction at RIP".to_owned(),
        None => format!("the bytes {}", spaced(bytes)),
    };
    let (cause, hint) = why(evidence, &diagnosis, &subject, Flavour::of_this_host());
    diagnosis.cause = cause;
    diagnosis.hint = Some(hint);
    diagnosis
}

fn why(
    evidence: &Evidence<'_>,
    diagnosis: &Diagnosis,
    subject: &str,
    flavour: Option<Flavour>,
) -> (String, String) {
    let kvm = flavour.map_or("this host's KVM", Flavour::module);
    let is_ram = |gva| {
        let mapping = evidence.space().translate(gva);
        mapping.is_none_or(|mapping| evidence.memory.check(mapping.gpa, 1).is_ok())
    };
    if !is_ram(linear_rip(evidence.state)) {
        let cause = "it executes where no RAM is".to_owned();
        return (
            cause,
            "look for a wrong function pointer, or for page tables that lead out of RAM".to_owned(),
        );
    }
    let outside = diagnosis.instruction.iter().flat_map(|instruction| &instruction.operands);
    if let Some(operand) = outside.into_iter().find(|operand| !is_ram(operand.gva)) {
        return (
            format!("{subject} accesses {}, where no RAM is, and {kvm} cannot emulate it", operand.gva),
            "access devices by plain loads and stores (`read_volatile`, `write_volatile`)".to_owned(),
        );
    }
    if flavour == Some(Flavour::Pvm) {
        return (
            format!("{kvm} runs the guest's kernel in its emulator, which lacks {subject}"),
            "build the guest without it (x86_64-unknown-none has none such), or run it on another KVM: \
             `cargo xtask run --kvm qemu`"
                .to_owned(),
        );
    }
    (
        format!("{kvm} had to emulate {subject} and cannot"),
        "try another KVM, such as `cargo xtask run --kvm qemu`, to see whether it is this one's fault"
            .to_owned(),
    )
}
