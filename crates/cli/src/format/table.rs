//! Columns aligned as Go's tabwriter does: each as wide as its widest cell, three blanks between.

const PADDING: usize = 3;

/// Aligns rows of cells; no column but the last is narrower than `least`.
pub(crate) fn align(rows: &[Vec<String>], least: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        // The last cell of a row ends the row and takes no part in the width.
        let cells = rows.iter().filter(|row| column + 1 < row.len()).map(|row| row[column].chars().count());
        cells.max().map_or(0, |widest| (widest + PADDING).max(least))
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["A".to_owned(), "LONG HEADING".to_owned(), "C".to_owned()],
            vec!["a wide cell".to_owned(), String::new(), "c".to_owned()],
        ];
        assert_eq!(align(&rows, 10), "A             LONG HEADING   C\na wide cell                  c\n");
        assert_eq!(align(&[vec!["A".to_owned(), "B".to_owned()]], 10), "A         B\n");
        assert_eq!(align(&[], 10), "");
    }
}
