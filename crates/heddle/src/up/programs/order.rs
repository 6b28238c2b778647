//! Which programs wait for which: circles among them.

/// A circle, by the programs on it in the order in which each waits for the next; `None` if there is none.
pub(super) fn circle(depends_on: &[&[usize]]) -> Option<Vec<usize>> {
    let mut done = vec![false; depends_on.len()];
    for start in 0..depends_on.len() {
        let mut path = Vec::new();
        if let Some(circle) = visit(start, depends_on, &mut done, &mut path) {
            return Some(circle);
        }
    }
    None
}

/// Follows dependencies from one program. A file has a hundred at most, which bounds the depth.
fn visit(
    at: usize,
    depends_on: &[&[usize]],
    done: &mut [bool],
    path: &mut Vec<usize>,
) -> Option<Vec<usize>> {
    if let Some(begin) = path.iter().position(|known| *known == at) {
        return Some(path[begin..].to_vec());
    }
    if done[at] {
        return None;
    }
    path.push(at);
    let found = depends_on[at].iter().find_map(|next| visit(*next, depends_on, done, path));
    path.pop();
    done[at] = true;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_wherever_it_is_and_a_diamond_is_none() {
        assert_eq!(circle(&[&[1, 2], &[3], &[3], &[]]), None);
        assert_eq!(circle(&[&[1], &[2], &[1]]), Some(vec![1, 2]));
        assert_eq!(circle(&[&[0]]), Some(vec![0]));
        assert_eq!(circle(&[]), None);
    }
}
