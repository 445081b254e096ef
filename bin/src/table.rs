//! Columns for people: as wide as their widest cell, numbers to the right.

use crate::failure::for_terminal;

/// Rows under a heading.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<T: Into<String>>(heading: impl IntoIterator<Item = T>) -> Table {
        Table { rows: vec![heading.into_iter().map(Into::into).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| for_terminal(&cell)).collect());
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let numeric: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(i, cell)| match numeric[i] {
                true => format!("{cell:>width$}", width = widths[i]),
                false => format!("{cell:<width$}", width = widths[i]),
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        self.rows.iter().skip(1).all(|row| row[column].parse::<f64>().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NAME", "COUNT", "NOTE"]);
        table.row(["a".into(), "7".into(), "first".into()]);
        table.row(["longer".into(), "1234567".into(), String::new()]);
        let expected = "NAME      COUNT  NOTE\na             7  first\nlonger  1234567\n";
        assert_eq!(table.text(), expected);
    }
}
