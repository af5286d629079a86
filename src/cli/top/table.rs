//! Rows and columns in a part of the screen.

use super::theme::{DIM, SELECTED};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

/// What is between two columns.
const GAP: u16 = 2;

/// A column's cells.
type Cells<'a, T> = Box<dyn Fn(&T) -> Line<'static> + 'a>;

/// One column. The first is as wide as its widest cell where there is room; the others have their width, so that
/// they stand still.
pub(super) struct Column<'a, T> {
    head: &'static str,
    width: u16,
    right: bool,
    /// Columns of the highest number go first where there is no room for all.
    rank: u8,
    cell: Cells<'a, T>,
}

impl<'a, T> Column<'a, T> {
    /// For words.
    pub(super) fn left(
        head: &'static str,
        width: u16,
        rank: u8,
        cell: impl Fn(&T) -> Line<'static> + 'a,
    ) -> Self {
        Self { head, width, right: false, rank, cell: Box::new(cell) }
    }

    /// For numbers.
    pub(super) fn right(
        head: &'static str,
        width: u16,
        rank: u8,
        cell: impl Fn(&T) -> Line<'static> + 'a,
    ) -> Self {
        Self { right: true, ..Self::left(head, width, rank, cell) }
    }
}

/// Rows, and which of them is selected if any is.
pub(super) struct Table<'a, T> {
    pub(super) columns: Vec<Column<'a, T>>,
    pub(super) rows: &'a [T],
    pub(super) row: usize,
    pub(super) focused: bool,
}

/// Rows that are to be seen, the selected one among them.
pub(super) fn shown(rows: usize, selected: usize, room: usize) -> std::ops::Range<usize> {
    let most = rows.saturating_sub(room);
    let first = selected.saturating_sub(room / 2).min(most);
    first..rows.min(first + room)
}

impl<T> Table<'_, T> {
    /// Draws as many columns and rows as there is room for.
    pub(super) fn draw(mut self, area: Rect, buffer: &mut Buffer) {
        let widths = self.fit(area.width);
        // What the columns are is less than what is in them.
        let heads = usize::from(area.height > 1);
        for place in area.rows().take(heads) {
            self.line(place, buffer, &widths, DIM, |column| Line::raw(column.head));
        }
        let room = usize::from(area.height) - heads.min(usize::from(area.height));
        let seen = shown(self.rows.len(), self.row, room);
        for (place, number) in area.rows().skip(heads).zip(seen) {
            let Some(row) = self.rows.get(number) else { break };
            self.line(place, buffer, &widths, Style::new(), |column| (column.cell)(row));
            if self.focused && number == self.row {
                buffer.set_style(place, SELECTED);
            }
        }
    }

    /// Drops the columns that there is no room for; the widths of the others.
    fn fit(&mut self, room: u16) -> Vec<u16> {
        let total = |columns: &[Column<'_, T>]| {
            let widths = columns.iter().map(|column| u32::from(column.width + GAP));
            widths.sum::<u32>().saturating_sub(u32::from(GAP))
        };
        while total(&self.columns) > u32::from(room) && self.columns.len() > 1 {
            let ranks = self.columns.iter().skip(1).enumerate();
            let Some((worst, _)) = ranks.max_by_key(|(_, column)| column.rank) else { break };
            self.columns.remove(worst + 1);
        }
        let spare = u32::from(room).saturating_sub(total(&self.columns));
        let mut widths: Vec<u16> = self.columns.iter().map(|column| column.width).collect();
        if let (Some(width), Some(column)) = (widths.first_mut(), self.columns.first()) {
            let wants = self.rows.iter().map(|row| (column.cell)(row).width()).max().unwrap_or(0);
            let more = u16::try_from(wants).unwrap_or(u16::MAX).saturating_sub(*width);
            let given = u32::from(more).min(spare);
            *width += u16::try_from(given).unwrap_or(0);
            // The last column has what is left, if it is of words.
            let rest = u16::try_from(spare - given).unwrap_or(0);
            if let Some((last, width)) = self.columns.last().zip(widths.last_mut()) {
                *width += if last.right { 0 } else { rest };
            }
        }
        widths
    }

    fn line(
        &self,
        place: Rect,
        buffer: &mut Buffer,
        widths: &[u16],
        style: Style,
        cell: impl Fn(&Column<'_, T>) -> Line<'static>,
    ) {
        let mut x = place.x;
        for (column, &width) in self.columns.iter().zip(widths) {
            let width = width.min(place.right().saturating_sub(x));
            let line = cell(column).patch_style(style);
            let wide = u16::try_from(line.width()).unwrap_or(u16::MAX);
            let indent = if column.right { width.saturating_sub(wide) } else { 0 };
            put(buffer, x + indent, place.y, &line, width);
            x = x.saturating_add(width + GAP).min(place.right());
        }
    }
}

/// Writes a line where there is room for so many cells, and says when it was longer.
pub(super) fn put(buffer: &mut Buffer, x: u16, y: u16, line: &Line<'_>, width: u16) {
    if width == 0 || !buffer.area.contains((x, y).into()) {
        return;
    }
    if line.width() <= usize::from(width) {
        buffer.set_line(x, y, line, width);
        return;
    }
    let (end, _) = buffer.set_line(x, y, line, width - 1);
    let style = line.spans.last().map(|span| span.style).unwrap_or_default();
    buffer.set_stringn(end, y, "…", 1, line.style.patch(style));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(width: u16, height: u16, row: usize) -> Buffer {
        let rows = ["a", "bb", "a very long name", "d"];
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        let columns = vec![
            Column::left("NAME", 6, 0, |row: &&str| Line::raw(*row)),
            Column::right("LENGTH", 6, 1, |row: &&str| Line::raw(row.len().to_string())),
            Column::left("KIND", 4, 2, |_: &&str| Line::raw("longer than 4")),
        ];
        Table { columns, rows: &rows, row, focused: false }.draw(area, &mut buffer);
        buffer.set_style(area, Style::reset());
        buffer
    }

    fn lines(buffer: &Buffer) -> Vec<String> {
        let cells: Vec<&str> = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        cells
            .chunks(usize::from(buffer.area.width))
            .map(|row| row.concat().trim_end().into())
            .collect()
    }

    #[test]
    fn columns_have_their_width_and_the_name_what_it_needs() {
        assert_eq!(
            lines(&drawn(45, 3, 0)),
            [
                "NAME              LENGTH  KIND",
                "a                      1  longer than 4",
                "bb                     2  longer than 4"
            ]
        );
        assert_eq!(
            lines(&drawn(24, 5, 0)),
            [
                "NAME        LENGTH  KIND",
                "a                1  lon…",
                "bb               2  lon…",
                "a very lo…      16  lon…",
                "d                1  lon…"
            ]
        );
    }

    #[test]
    fn columns_that_do_not_fit_are_dropped() {
        assert_eq!(lines(&drawn(14, 2, 0)), ["NAME    LENGTH", "a            1"]);
        assert_eq!(lines(&drawn(13, 2, 2)), ["NAME", "a very long …"]);
        assert_eq!(lines(&drawn(2, 2, 0)), ["N…", "a"]);
        assert_eq!(lines(&drawn(1, 2, 2)), ["…", "…"]);
    }

    #[test]
    fn the_selected_row_is_seen() {
        let rows = |room, selected| shown(10, selected, room);
        assert_eq!((rows(4, 0), rows(4, 5), rows(4, 9)), (0..4, 3..7, 6..10));
        assert_eq!((rows(20, 9), rows(0, 3), shown(0, 0, 5)), (0..10, 3..3, 0..0));
    }
}
