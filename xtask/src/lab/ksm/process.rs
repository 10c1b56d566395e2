//! One machine's RAM as the host's kernel shows it: in `/proc/PID/smaps`, `ksm_stat` and `pagemap`.
//!
//! A machine's RAM is the mappings of its process that carry the flag `mg`, "mergeable": nothing else in a VMM does.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Bytes of a page.
const PAGE_SIZE: u64 = 4096;

/// The mergeable memory of one process, in pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mergeable {
    /// Pages that the host has given to it.
    pub(super) present: u64,
    /// Its share of them: a page that n processes map counts for 1/n in each. Rounded.
    pub(super) share: u64,
    /// Those of `present` that KSM has merged; `None` when the kernel does not tell.
    pub(super) merged: Option<u64>,
    /// Addresses of the mappings: start and end.
    pub(super) ranges: Vec<(u64, u64)>,
}

impl Mergeable {
    /// What the process `pid` has.
    ///
    /// # Errors
    /// When it is gone, or not ours.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let smaps = folder.join("smaps");
        let text = fs::read_to_string(&smaps).with_context(|| format!("cannot read {}", smaps.display()))?;
        let mut mergeable = Self::from_smaps(&text);
        if mergeable.merged.is_none() {
            // Before Linux 6.6 `smaps` had no `KSM:`; the process's own count does not know of mappings.
            let stat = fs::read_to_string(folder.join("ksm_stat")).ok();
            mergeable.merged = stat.and_then(|text| field(&text, "ksm_merging_pages"));
        }
        Ok(mergeable)
    }

    /// Adds up the mappings with the flag `mg` (Linux Documentation/filesystems/proc.rst, `/proc/PID/smaps`).
    fn from_smaps(text: &str) -> Self {
        let mut sum = Self::default();
        let (mut share_kib, mut of_one) = (0, OneMapping::default());
        for line in text.lines() {
            if let Some(range) = range(line) {
                of_one = OneMapping { range, ..OneMapping::default() };
            } else if let Some(flags) = line.strip_prefix("VmFlags:") {
                if flags.split_whitespace().any(|flag| flag == "mg") {
                    sum.present += of_one.rss_kib * 1024 / PAGE_SIZE;
                    share_kib += of_one.pss_kib;
                    let ksm = of_one.ksm_kib.map(|kib| kib * 1024 / PAGE_SIZE);
                    sum.merged = ksm.map(|pages| sum.merged.unwrap_or_default() + pages).or(sum.merged);
                    sum.ranges.push(of_one.range);
                }
            } else {
                of_one.read(line);
            }
        }
        sum.share = share_kib * 1024 / PAGE_SIZE;
        sum
    }

    /// Adds the physical pages of process `pid` to `frames`.
    ///
    /// # Errors
    /// When this user may not see them: that takes CAP_SYS_ADMIN, and the kernel shows others zeros
    /// (Linux Documentation/admin-guide/mm/pagemap.rst).
    pub(super) fn frames(&self, pid: u32, frames: &mut HashSet<u64>) -> io::Result<()> {
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        for &(start, end) in &self.ranges {
            let mut entries = [0; 4096];
            let entry_end = end / PAGE_SIZE * ENTRY_SIZE;
            let mut offset = start / PAGE_SIZE * ENTRY_SIZE;
            while offset < entry_end {
                let size = usize::try_from(entry_end - offset).unwrap_or(usize::MAX).min(entries.len());
                pagemap.read_exact_at(&mut entries[..size], offset)?;
                for entry in entries[..size].chunks_exact(ENTRY_SIZE as usize) {
                    let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
                    match frame(entry) {
                        Some(0) => return Err(io::ErrorKind::PermissionDenied.into()),
                        Some(number) => drop(frames.insert(number)),
                        None => {}
                    }
                }
                offset += size as u64;
            }
        }
        Ok(())
    }
}

/// Bytes of an entry of `pagemap`.
const ENTRY_SIZE: u64 = 8;

/// The physical page of an entry of `pagemap`: bits 0 to 54 when bit 63, "present", is set.
fn frame(entry: u64) -> Option<u64> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    (entry & PRESENT != 0).then_some(entry & FRAME)
}

/// The lines of one mapping, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
struct OneMapping {
    range: (u64, u64),
    rss_kib: u64,
    pss_kib: u64,
    ksm_kib: Option<u64>,
}

impl OneMapping {
    fn read(&mut self, line: &str) {
        self.rss_kib = field(line, "Rss:").unwrap_or(self.rss_kib);
        self.pss_kib = field(line, "Pss:").unwrap_or(self.pss_kib);
        self.ksm_kib = field(line, "KSM:").or(self.ksm_kib);
    }
}

/// The addresses of a line such as `7f0a00000000-7f0a01000000 rw-p 00000000 00:00 0`.
fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000004000 rw-p 00000000 00:00 0
Size:                 16 kB
Rss:                  16 kB
Pss:                  10 kB
Pss_Dirty:             0 kB
KSM:                   8 kB
VmFlags: rd wr mr mw me ac nr mg
7f0000010000-7f0000020000 r-xp 00000000 fe:00 12 /usr/bin/mg
Rss:                  64 kB
Pss:                  64 kB
KSM:                   0 kB
VmFlags: rd ex mr mw me
7f0000100000-7f0000101000 rw-p 00000000 00:00 0
Rss:                   4 kB
Pss:                   2 kB
KSM:                   4 kB
VmFlags: rd wr mg
";

    #[test]
    fn only_mergeable_mappings_count() {
        let sum = Mergeable::from_smaps(SMAPS);
        assert_eq!((sum.present, sum.share, sum.merged), (5, 3, Some(3)));
        assert_eq!(sum.ranges, [(0x7f00_0000_0000, 0x7f00_0000_4000), (0x7f00_0010_0000, 0x7f00_0010_1000)]);
    }

    #[test]
    fn a_kernel_that_does_not_tell_of_merged_pages_is_not_taken_for_none() {
        let old: String =
            SMAPS.lines().filter(|line| !line.starts_with("KSM")).map(|line| format!("{line}\n")).collect();
        assert_eq!(Mergeable::from_smaps(&old).merged, None);
        assert_eq!(field("ksm_rmap_items 7\nksm_merging_pages 5\n", "ksm_merging_pages"), Some(5));
    }

    #[test]
    fn a_frame_is_known_only_of_a_present_page() {
        assert_eq!(frame(1 << 63 | 1 << 55 | 0x1234), Some(0x1234));
        assert_eq!(frame(0x1234), None, "a page that was swapped out has another meaning there");
    }

    #[test]
    fn this_process_has_nothing_mergeable() {
        let sum = Mergeable::of(std::process::id()).expect("we are there");
        assert_eq!((sum.present, sum.ranges.len()), (0, 0));
    }
}
