//! Rows as columns of text: as wide as what is in them, or as the terminal lets them be. It leaves out what is in
//! them.

/// Between columns.
const GAP: &str = "  ";

/// A column keeps so many letters, however narrow the terminal: fewer tell nothing.
const LEAST: usize = 8;

/// Lines, each with its end. Nothing, without rows. The last column is left out where it is the same in all rows. Where
/// `width` is less than the lines have, the widest cells are cut short, and end in `…`.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = Vec<String>>,
    width: Option<usize>,
) -> String {
    let mut rows: Vec<Vec<String>> = rows.collect();
    let Some(first) = rows.first().cloned() else { return String::new() };
    let mut header: Vec<String> = header.iter().map(|&word| word.to_owned()).collect();
    if rows.iter().all(|row| row.last() == first.last()) {
        header.pop();
        rows.iter_mut().for_each(|row| drop(row.pop()));
    }
    rows.insert(0, header);
    let widths = fit(widths(&rows), width);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", cut(cell, *width))).collect();
        text += cells.join(GAP).trim_end();
        text.push('\n');
    }
    text
}

/// How wide each column is.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let widest = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    (0..columns).map(widest).collect()
}

/// Takes letters from the widest column until all of them fit.
fn fit(mut widths: Vec<usize>, width: Option<usize>) -> Vec<usize> {
    let Some(width) = width else { return widths };
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        match widths.iter_mut().max() {
            Some(widest) if *widest > LEAST => *widest -= 1,
            _ => break,
        }
    }
    widths
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rows: &[[&str; 3]], width: Option<usize>) -> String {
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec());
        table(["VM", "GROUP", "SUBSCRIPTION"], rows, width)
    }

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [["web-01", "demo", "a"], ["db", "a-long-group-name", "a"]];
        assert_eq!(shown(&rows, None), "VM      GROUP\nweb-01  demo\ndb      a-long-group-name\n");
        let rows = [["web-01", "demo", "a"], ["db", "a-long-group-name", "b"]];
        assert_eq!(
            shown(&rows, Some(36)),
            "VM      GROUP           SUBSCRIPTION\nweb-01  demo            a\ndb      a-long-group-…  b\n"
        );
        // Not to nothing.
        let narrow = shown(&rows, Some(5));
        assert_eq!(narrow.lines().map(|line| line.chars().count()).max(), Some(26), "{narrow}");
        assert_eq!(shown(&[], None), "");
    }
}
