//! Makes a failing input smaller: takes parts out, then sets bytes to 0, as long as it fails the same way.

/// More tries are not worth the wait.
const MAX_TRIES: usize = 4000;

/// A smaller input of which `fails` is true, as it is of `input`.
pub fn smaller(input: &[u8], fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    within(input, MAX_TRIES, fails)
}

/// As [`smaller`], with at most so many tries.
pub fn within(input: &[u8], tries: usize, mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut left = tries;
    let mut fails = |input: &[u8]| {
        left = left.saturating_sub(1);
        left > 0 && fails(input)
    };
    let mut best = input.to_vec();
    let mut size = best.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < best.len() {
            let mut candidate = best.clone();
            candidate.drain(from..(from + size).min(best.len()));
            if fails(&candidate) {
                best = candidate;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    for byte in 0..best.len() {
        let mut candidate = best.clone();
        if std::mem::take(&mut candidate[byte]) != 0 && fails(&candidate) {
            best = candidate;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left() {
        let input: Vec<u8> = (0..200).collect();
        let fails = |input: &[u8]| input.contains(&7) && input.iter().any(|&byte| byte >= 150);
        assert_eq!(smaller(&input, fails), [7, 199]);
        let longer_than_three = |input: &[u8]| input.len() > 3;
        assert_eq!(smaller(&input, longer_than_three), [0; 4]);
    }
}
