//! Names of hosts as Slurm writes them: `gpu[01-04,7],login`.

/// Hosts of one list: a file that names more is damaged, or meant for another program.
const HOSTS_MAX: usize = 100_000;

/// Bytes of a host's name (RFC 1035, 2.3.4), and brackets in one: racks, shelves and places are three.
const NAME_BYTES_MAX: usize = 255;
const BRACKETS_MAX: usize = 8;

/// Digits of a host's number, with zeros before it.
const DIGITS_MAX: usize = 20;

/// The names that a list stands for.
///
/// # Errors
/// Where it is no list, or names too many.
pub fn expand(list: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for part in parts(list).ok_or_else(|| format!("{list:?} has a bracket without the other"))? {
        let fits = part.matches('[').count() <= BRACKETS_MAX;
        fits.then(|| expand_one(part, &mut all)).flatten().ok_or_else(|| {
            let begin: String = part.chars().take(NAME_BYTES_MAX).collect();
            format!("{begin:?} is no list of hosts; gpu[01-04,7] is one, of at most {HOSTS_MAX}")
        })?;
    }
    Ok(all)
}

/// The parts between commas that stand in no bracket; nothing where brackets do not fit.
fn parts(list: &str) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut open) = (Vec::new(), 0, false);
    for (at, letter) in list.char_indices() {
        match letter {
            '[' if open => return None,
            ']' if !open => return None,
            '[' | ']' => open = !open,
            ',' if !open => {
                parts.push(&list[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[begin..]);
    (!open).then_some(parts)
}

/// Adds the names of one part, which may have several brackets.
fn expand_one(part: &str, all: &mut Vec<String>) -> Option<()> {
    let part = part.trim();
    let Some((before, rest)) = part.split_once('[') else {
        let printed = part.chars().all(|c| !c.is_control() && !c.is_whitespace());
        let fits = (1..=NAME_BYTES_MAX).contains(&part.len());
        if !fits || !printed || all.len() >= HOSTS_MAX {
            return None;
        }
        all.push(part.to_owned());
        return Some(());
    };
    let (ranges, after) = rest.split_once(']')?;
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let width = first.len();
        let (low, high): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if width > DIGITS_MAX || high < low || high - low >= HOSTS_MAX as u64 {
            return None;
        }
        for number in low..=high {
            expand_one(&format!("{before}{number:0width$}{after}"), all)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_hosts_as_slurm_writes_them() {
        for (list, hosts) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            ("n[08-10]", &["n08", "n09", "n10"]),
            ("n[1,3-4]x,b", &["n1x", "n3x", "n4x", "b"]),
            ("r[1-2]n[1-2]", &["r1n1", "r1n2", "r2n1", "r2n2"]),
        ] {
            assert_eq!(expand(list).unwrap(), hosts, "{list}");
        }
        for list in
            ["", "a[", "a]", "a[[1]]", "a[x]", "a[3-1]", "a[1-999999999]", "a,,b", "a\u{7}", "a b"]
        {
            assert!(expand(list).is_err(), "{list}");
        }
        // What a small file can make of itself: names of many kilobytes, by the hundred thousand.
        for list in ["n[01-03,7]".repeat(9), format!("n[1-9]{}", "x".repeat(NAME_BYTES_MAX))] {
            let said = expand(&list).unwrap_err();
            assert!(said.contains("no list of hosts") && said.len() < 400, "{said}");
        }
        assert_eq!(expand(&"n[1-2]".repeat(BRACKETS_MAX)).unwrap().len(), 1 << BRACKETS_MAX);
    }
}
