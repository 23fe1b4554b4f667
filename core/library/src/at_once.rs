//! Work that waits for storage, on several items at once: a disk answers several syncs in the time of
//! one, and a network storage many requests.

/// Does work on all items, on at most so many threads. Results are in the items' order; of several
/// errors the first in that order is given, once all have ended.
///
/// # Errors
/// What the work gives as one.
///
/// # Panics
/// Where the work does.
pub fn at_once<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads_max: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    let parts: Vec<Result<Vec<R>, E>> = std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(items.len().div_ceil(threads_max))
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect()))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_error_is_given() {
        for count in [0, 1, 2, 7, 8, 9, 100] {
            let items: Vec<u32> = (0..count).collect();
            let doubled: Result<Vec<u32>, ()> = at_once(&items, 8, |item| Ok(2 * item));
            assert_eq!(doubled.unwrap(), items.iter().map(|item| 2 * item).collect::<Vec<_>>());
            let odd = at_once(&items, 8, |item| if item % 2 == 0 { Ok(()) } else { Err(*item) });
            assert_eq!(odd.err(), items.get(1).copied());
        }
    }
}
