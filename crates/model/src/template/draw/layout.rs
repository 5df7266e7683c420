//! Where steps and lines go: one row a level, and within a row an order in which few lines cross.
//!
//! After Sugiyama, Tagawa and Toda (1981): a line over several levels passes each row between at a place of its own, and
//! rows are ordered by the mean place of their neighbours, down and up in turn.

use crate::template::graph::Graph;

/// Most places for lines between rows. A graph that needs more has its long lines drawn straight: nobody reads a picture
/// of that size, but it must not take minutes or gigabytes.
const PASSED_MAX: usize = 20_000;

/// How often rows are ordered anew, down and up.
const SWEEPS: usize = 4;

/// A step, or the place at which a line passes a row.
#[derive(Debug, Clone)]
struct Slot {
    /// None for a line's.
    step: Option<usize>,
    up: Vec<usize>,
    down: Vec<usize>,
}

/// Where everything is: rows from above, places from the left.
#[derive(Debug)]
pub(crate) struct Layout {
    /// For each step its row and its place in it.
    pub(crate) steps: Vec<(usize, usize)>,
    /// All lines.
    pub(crate) lines: Vec<Line>,
    /// How many places each row has.
    pub(crate) widths: Vec<usize>,
}

/// From a step to one that waits for it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) parent: usize,
    pub(crate) child: usize,
    /// Row and place of what it passes, from above.
    pub(crate) through: Vec<(usize, usize)>,
}

/// Lays a graph out.
pub(crate) fn layout(graph: &Graph) -> Layout {
    let steps = graph.len();
    let mut slots: Vec<Slot> =
        (0..steps).map(|step| Slot { step: Some(step), up: Vec::new(), down: Vec::new() }).collect();
    let mut rows: Vec<Vec<usize>> = graph.levels().to_vec();
    let level = |step: usize| graph.level(step).unwrap_or(0);
    let lines: Vec<(usize, usize)> = (0..steps)
        .flat_map(|child| graph.dependencies(child).iter().map(move |parent| (*parent, child)))
        .collect();
    let passed: usize = lines
        .iter()
        .map(|(parent, child)| level(*child).saturating_sub(level(*parent) + 1))
        .fold(0, usize::saturating_add);
    let mut passing: Vec<Vec<usize>> = Vec::with_capacity(lines.len());
    for (parent, child) in &lines {
        let mut through = Vec::new();
        if passed <= PASSED_MAX {
            let mut above = *parent;
            let between = level(*child).saturating_sub(level(*parent) + 1);
            for row in rows.iter_mut().skip(level(*parent) + 1).take(between) {
                let slot = slots.len();
                slots.push(Slot { step: None, up: vec![above], down: Vec::new() });
                slots[above].down.push(slot);
                row.push(slot);
                through.push(slot);
                above = slot;
            }
            slots[above].down.push(*child);
            slots[*child].up.push(above);
        }
        passing.push(through);
    }
    let mut place = vec![0_usize; slots.len()];
    let number = |rows: &[Vec<usize>], place: &mut [usize]| {
        for row in rows {
            for (at, slot) in row.iter().enumerate() {
                place[*slot] = at;
            }
        }
    };
    number(&rows, &mut place);
    for _ in 0..SWEEPS {
        for row in rows.iter_mut().skip(1) {
            order(row, &slots, &mut place, |slot| &slot.up);
        }
        for row in rows.iter_mut().rev().skip(1) {
            order(row, &slots, &mut place, |slot| &slot.down);
        }
    }
    let mut row_of = vec![0_usize; slots.len()];
    for (row, slots) in rows.iter().enumerate() {
        for slot in slots {
            row_of[*slot] = row;
        }
    }
    let at = |slot: usize| (row_of[slot], place[slot]);
    debug_assert!(slots.iter().take(steps).all(|slot| slot.step.is_some()));
    Layout {
        steps: (0..steps).map(at).collect(),
        lines: lines
            .iter()
            .zip(passing)
            .map(|((parent, child), through)| Line {
                parent: *parent,
                child: *child,
                through: through.into_iter().map(at).collect(),
            })
            .collect(),
        widths: rows.iter().map(Vec::len).collect(),
    }
}

/// Orders a row by the mean place of each slot's neighbours; whoever has none stays about where it is.
fn order(row: &mut [usize], slots: &[Slot], place: &mut [usize], neighbours: impl Fn(&Slot) -> &Vec<usize>) {
    // Means are compared as fractions of a whole, so that no rounding decides.
    let mut means: Vec<(u64, usize)> = row
        .iter()
        .map(|slot| {
            let others = neighbours(&slots[*slot]);
            let sum: usize = others.iter().map(|other| place[*other]).sum();
            let (sum, count) = if others.is_empty() { (place[*slot], 1) } else { (sum, others.len()) };
            let scaled = u64::try_from(sum).unwrap_or(u64::MAX).saturating_mul(1 << 20);
            (scaled / u64::try_from(count).unwrap_or(1).max(1), *slot)
        })
        .collect();
    means.sort_by_key(|(mean, _)| *mean);
    for (at, (_, slot)) in means.into_iter().enumerate() {
        row[at] = slot;
        place[slot] = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_each_place_once() {
        let graph = Graph::new(vec![vec![], vec![0], vec![0], vec![1, 2], vec![0, 3]]).unwrap();
        let layout = layout(&graph);
        assert_eq!(layout.widths, [1, 3, 2, 1], "lines over several rows take a place in each");
        let mut places: Vec<(usize, usize)> = layout.steps.clone();
        places.extend(layout.lines.iter().flat_map(|line| line.through.clone()));
        places.sort_unstable();
        let all: Vec<(usize, usize)> = layout
            .widths
            .iter()
            .enumerate()
            .flat_map(|(row, width)| (0..*width).map(move |at| (row, at)))
            .collect();
        assert_eq!(places, all);
        let long = layout.lines.iter().find(|line| (line.parent, line.child) == (0, 4)).unwrap();
        assert_eq!(long.through.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn crossed_lines_are_uncrossed() {
        // Two chains, declared crosswise: 2 waits for 1 and 3 for 0.
        let graph = Graph::new(vec![vec![], vec![], vec![1], vec![0]]).unwrap();
        let layout = layout(&graph);
        let place = |step: usize| layout.steps[step].1;
        assert_eq!(place(0) < place(1), place(3) < place(2));
    }

    #[test]
    fn a_graph_beyond_all_reading_is_laid_out_soon() {
        // A chain of 5,000, and everybody waits for the first: 12 million places would be needed.
        let dependencies: Vec<Vec<usize>> = (0..5_000_usize)
            .map(|step| step.checked_sub(1).into_iter().chain([0]).filter(|one| *one < step).collect())
            .collect();
        let layout = layout(&Graph::new(dependencies).unwrap());
        assert_eq!(layout.widths.len(), 5_000);
        assert!(layout.lines.iter().all(|line| line.through.is_empty()));
    }
}
