//! How many vCPUs a machine has, and what each is called.

use std::fmt;
use std::str::FromStr;

use shared_abi::BootInfo;

/// The number of a vCPU, from 0. It is also its APIC id, which the guest reads by CPUID.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "u8")]
pub struct VcpuId(u8);

impl VcpuId {
    /// The vCPU that a machine starts with.
    pub const FIRST: Self = Self(0);

    /// The vCPU of this number; `None` where no machine has so many.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        u8::try_from(number).ok().filter(|_| number < BootInfo::MAX_VCPUS).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its place in a list of all.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<u8> for VcpuId {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::new(number.into()).ok_or_else(|| format!("no machine has a vCPU {number}"))
    }
}

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {}", self.0)
    }
}

/// How many vCPUs a machine has: 1 to [`BootInfo::MAX_VCPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuCount(u8);

impl VcpuCount {
    /// One.
    pub const ONE: Self = Self(1);

    /// Checks a number.
    ///
    /// # Errors
    /// When no machine has so many.
    pub fn new(number: u64) -> Result<Self, VcpuCountError> {
        match u8::try_from(number) {
            Ok(count) if (1..=BootInfo::MAX_VCPUS).contains(&number) => Ok(Self(count)),
            _ => Err(VcpuCountError(number.to_string())),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// All of them, in order.
    pub fn ids(self) -> impl Iterator<Item = VcpuId> {
        (0..self.0).map(VcpuId)
    }
}

impl FromStr for VcpuCount {
    type Err = VcpuCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse().map_err(|_| VcpuCountError(text.to_owned()))?;
        Self::new(number)
    }
}

impl fmt::Display for VcpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of vCPUs that no machine has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of vCPUs: write one from 1 to {max}", max = BootInfo::MAX_VCPUS)]
pub struct VcpuCountError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_to_64_vcpus() {
        for (text, count) in [("1", 1), ("64", 64)] {
            assert_eq!(text.parse::<VcpuCount>().map(VcpuCount::get), Ok(count), "{text}");
        }
        for wrong in ["0", "65", "256", "-1", "", "two", "99999999999999999999"] {
            let error = wrong.parse::<VcpuCount>().expect_err(wrong).to_string();
            assert!(error.contains(&format!("`{wrong}`")) && error.contains("1 to 64"), "{error}");
        }
        assert_eq!(VcpuId::new(63).map(VcpuId::index), Some(63));
        assert_eq!((VcpuId::new(64), VcpuId::new(256)), (None, None));
    }
}
