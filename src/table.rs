//! Tables for people. Floor 0.

/// A row of words that are known.
pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Columns as wide as their widest cell; nothing after the last one.
#[must_use]
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    fitted(rows, None)
}

/// Columns as wide as their widest cell. Where a row is then wider than `width` characters, the widest columns give way, down to
/// [`NARROWEST`] each, and long cells lose their middle.
#[must_use]
pub(crate) fn fitted(rows: &[Vec<String>], width: Option<usize>) -> String {
    painted(rows, width, |_, _, cell| cell.to_owned())
}

/// The same, where `paint` gives a cell, by its row and column, what takes no room: a colour.
#[must_use]
pub(crate) fn painted(
    rows: &[Vec<String>],
    width: Option<usize>,
    paint: impl Fn(usize, usize, &str) -> String,
) -> String {
    let mut widths = widths(rows);
    if let Some(width) = width {
        shrink(&mut widths, width);
    }
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = shortened(cell, *width);
            let room = " ".repeat(width - cell.chars().count() + GAP);
            line.push_str(&paint(at, column, &cell));
            line.push_str(&room);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Takes columns out of the rows, in this order, until each of the others has room for `each` characters of its own in `width`.
pub(crate) fn give_way(rows: &mut [Vec<String>], order: &[usize], each: usize, width: usize) {
    let widths = widths(rows);
    let mut gone: Vec<usize> = Vec::new();
    let needed = |gone: &[usize]| {
        let kept = widths.iter().enumerate().filter(|(column, _)| !gone.contains(column));
        kept.map(|(_, width)| GAP + width.min(&each)).sum::<usize>().saturating_sub(GAP)
    };
    for column in order {
        if needed(&gone) <= width {
            break;
        }
        gone.push(*column);
    }
    for row in rows {
        let mut columns = 0..;
        row.retain(|_| columns.next().is_some_and(|column| !gone.contains(&column)));
    }
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let of_column = |column| rows.iter().filter_map(move |row| row.get(column));
    (0..columns).map(|column| of_column(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect()
}

/// The text in at most so many characters: its begin and its end tell more than its middle.
#[must_use]
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let long = text.chars().count();
    if long <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let (front, back) = (kept.div_ceil(2), kept / 2);
    text.chars().take(front).chain(['…']).chain(text.chars().skip(long - back)).collect()
}

fn shrink(widths: &mut [usize], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

/// Between two columns.
const GAP: usize = 2;
/// A column is not made narrower than this.
const NARROWEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(["A", "LONG", "B"]), row(["wide", "c", "d"]), row(["", "e"])];
        assert_eq!(aligned(&rows), "A     LONG  B\nwide  c     d\n      e\n");
    }

    #[test]
    fn columns_give_way_in_their_order_until_the_others_have_room() {
        let after = |each, width| {
            let mut rows = [row(["A", "LONG", "B"]), row(["wide", "c", "d"]), row(["", "e"])];
            give_way(&mut rows, &[2, 0], each, width);
            aligned(&rows)
        };
        let all = "A     LONG  B\nwide  c     d\n      e\n";
        assert_eq!(after(usize::MAX, 13), all);
        assert_eq!(after(usize::MAX, 12), "A     LONG\nwide  c\n      e\n");
        assert_eq!(after(usize::MAX, 9), "LONG\nc\ne\n");
        assert_eq!(after(usize::MAX, 1), "LONG\nc\ne\n", "no other may go");
        assert_eq!(after(3, 11), all);
    }

    #[test]
    fn the_widest_columns_give_way_to_a_narrow_terminal() {
        let rows = [row(["ID", "ROLE", "STATE"]), row(["7", "v-approle-app-0123456789", "idle"])];
        assert_eq!(fitted(&rows, Some(28)), "ID  ROLE               STATE\n7   v-approl…23456789  idle\n");
        for line in fitted(&rows, Some(24)).lines() {
            assert!(line.chars().count() <= 24, "{line}");
        }
        assert_eq!(fitted(&rows, Some(100)), aligned(&rows));
        // There is an end to it.
        assert!(fitted(&rows, Some(3)).contains("v-ap…789"));
    }

    #[test]
    fn a_painted_cell_is_as_wide_as_a_plain_one() {
        let rows = [row(["A", "B"]), row(["wide", "c"])];
        let red = |at, _, cell: &str| if at == 1 { format!("<{cell}>") } else { cell.to_owned() };
        assert_eq!(painted(&rows, None, red), "A     B\n<wide>  <c>\n");
        let red = |_, column, cell: &str| if column == 0 { format!("<{cell}>") } else { cell.to_owned() };
        assert_eq!(painted(&rows, None, red), "<A>     B\n<wide>  c\n");
    }

    #[test]
    fn long_text_loses_its_middle() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abc…fg");
        assert_eq!(shortened("abc", 1), "…");
    }
}
