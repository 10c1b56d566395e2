//! The machines: the same guest several times, each with its own file to fill its memory from.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::guest;
use crate::workspace::{self, Profile};

/// What a machine's memory is filled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    /// MiB that all machines have; no two pages of one machine are equal.
    pub(super) equal_mib: u32,
    /// MiB that only this machine has.
    pub(super) own_mib: u32,
}

/// Machines that hold their content and wait. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Guests {
    machines: Vec<Child>,
    _folder: TempDir,
}

/// RAM of a machine: for the guest's buffer of 16 MiB and what else it has.
const MEMORY: &str = "24M";

impl Guests {
    /// Starts `count` machines; returns when all have their content. They end by themselves a minute after `span`.
    ///
    /// # Errors
    /// When something cannot be built or started, or a guest does not say that it is ready.
    pub(super) fn start(count: u32, content: Content, span: Duration) -> Result<Self> {
        let image = guest::build("lab_memory", Profile::Debug)?;
        let vmm = workspace::build_vmm(Profile::Debug)?;
        let (equal, own) = (content.equal_mib, content.own_mib);
        eprintln!(
            "xtask: starting {count} machines, each with {equal} MiB that all have and {own} MiB of its own"
        );
        let folder = tempfile::tempdir().context("cannot make a folder for the contents")?;
        let mut guests = Self { machines: Vec::new(), _folder: folder };
        let limit = format!("{}s", span.as_secs() + 60);
        for number in 0..count {
            let own_folder = guests._folder.path().join(number.to_string());
            content.write(&own_folder, number).context("cannot write a machine's content")?;
            let mut command = Command::new(&vmm);
            command.args(["run", "--ksm", "--memory", MEMORY, "--timeout", &limit, "--dir"]).arg(own_folder);
            let machine = command.arg(&image).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            guests.machines.push(machine.context("cannot start the VMM")?);
        }
        guests.machines.iter_mut().try_for_each(|machine| wait_until_ready(machine, content))?;
        Ok(guests)
    }

    /// The machines' processes.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.machines.iter().map(Child::id)
    }

    /// Lets all guests end: their input does.
    pub(super) fn end(mut self) {
        for machine in &mut self.machines {
            drop(machine.stdin.take());
        }
        for machine in &mut self.machines {
            let _ = machine.wait();
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            // One that has ended already cannot be killed, and that is as well.
            let _ = machine.kill();
            let _ = machine.wait();
        }
    }
}

impl Content {
    /// Writes the file of machine `number` into `folder`, and makes that.
    fn write(self, folder: &Path, number: u32) -> std::io::Result<()> {
        fs::create_dir(folder)?;
        fs::write(folder.join("content"), self.bytes(number))
    }

    fn bytes(self, number: u32) -> Vec<u8> {
        // Machine 0's own pages must differ from those that all have.
        let equal = pages(self.equal_mib, 0);
        let own = pages(self.own_mib, u64::from(number) + 1);
        equal.chain(own).flatten().collect()
    }

    fn size(self) -> u64 {
        u64::from(self.equal_mib + self.own_mib) << 20
    }
}

/// Pages of which no two are equal, nor to those of another `kind`.
fn pages(mib: u32, kind: u64) -> impl Iterator<Item = [u8; 4096]> {
    (0..u64::from(mib) << 8).map(move |number| {
        let mut page = [b'.'; 4096];
        page[..8].copy_from_slice(&kind.to_le_bytes());
        page[8..16].copy_from_slice(&number.to_le_bytes());
        page
    })
}

/// Waits for the guest's line `lab: BYTES`.
fn wait_until_ready(machine: &mut Child, content: Content) -> Result<()> {
    let stdout = machine.stdout.as_mut().context("the machine's output is piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("cannot read what a guest prints")?;
    if line.trim_end() != format!("lab: {}", content.size()) {
        bail!("a guest was to have {} bytes and printed {line:?}", content.size());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pages_are_equal_across_machines_as_far_as_asked_and_no_further() {
        let content = Content { equal_mib: 1, own_mib: 2 };
        let (first, second) = (content.bytes(0), content.bytes(1));
        assert_eq!(first.len() as u64, content.size());

        let pages = |bytes: &[u8]| -> HashSet<Vec<u8>> { bytes.chunks(4096).map(<[u8]>::to_vec).collect() };
        let (first, second) = (pages(&first), pages(&second));
        assert_eq!((first.len(), second.len()), (768, 768), "no two of one machine are equal");
        assert_eq!(first.intersection(&second).count(), 256);
    }
}
