//! What the terminal can show, and what means what.

use crate::tables::names::printable;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};
use std::ffi::OsString;

/// Of names and heads.
pub(super) const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
/// Of what matters less.
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
/// Of the row that is selected.
pub(super) const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Colours are the terminal's own sixteen, and nothing is said by a colour alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    pub(super) colour: bool,
    pub(super) unicode: bool,
}

impl Theme {
    /// As the environment asks: `NO_COLOR`, and the character set of the locale.
    pub(super) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let locale = locale.unwrap_or_default().to_string_lossy().to_lowercase();
        Self {
            colour: set("NO_COLOR").is_none(),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    fn colour(self, colour: Color, instead: Modifier) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new().add_modifier(instead) }
    }

    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red, Modifier::BOLD).add_modifier(Modifier::BOLD)
    }

    pub(super) fn warning(self) -> Style {
        self.colour(Color::Yellow, Modifier::BOLD)
    }

    pub(super) fn good(self) -> Style {
        self.colour(Color::Green, Modifier::empty())
    }

    pub(super) fn accent(self) -> Style {
        self.colour(Color::Cyan, Modifier::BOLD)
    }

    /// Of a part of a limit that is used, percent.
    pub(super) fn used(self, percent: f64) -> Style {
        match percent {
            100.0.. => self.bad(),
            80.0.. => self.warning(),
            _ => self.good(),
        }
    }

    /// Replaces what the terminal cannot show.
    pub(super) fn apply(self, buffer: &mut Buffer) {
        if self.unicode {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                let symbol = ascii(cell.symbol());
                cell.set_symbol(symbol);
            }
        }
    }
}

fn ascii(symbol: &str) -> &'static str {
    match symbol {
        "│" => "|",
        "┌" | "┐" | "└" | "┘" => "+",
        "▁" | "▂" | "…" | "·" => ".",
        "▃" | "▄" => ":",
        "▅" | "▆" => "=",
        "▇" | "█" | "▉" | "▊" | "▋" => "#",
        "─" | "▌" | "▍" | "▎" | "▏" => "-",
        _ => "?",
    }
}

/// A name of the region's as it can be shown: without what moves the cursor or turns the line around.
pub(super) fn plain(text: &str) -> String {
    printable(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;

    #[test]
    fn the_environment_says_what_can_be_shown() {
        let theme = |variables: &'static [(&str, &str)]| {
            let theme = Theme::of(|name| {
                variables.iter().find(|variable| variable.0 == name).map(|found| found.1.into())
            });
            (theme.colour, theme.unicode)
        };
        assert_eq!(theme(&[]), (true, false));
        assert_eq!(theme(&[("LANG", "C.UTF-8"), ("NO_COLOR", "1")]), (false, true));
        assert_eq!(theme(&[("LANG", "de_DE.utf8"), ("NO_COLOR", "")]), (true, true));
        assert_eq!(theme(&[("LANG", "C.UTF-8"), ("LC_ALL", "C")]), (true, false));
        assert_eq!(theme(&[("LANG", "C"), ("LC_ALL", ""), ("LC_CTYPE", "UTF-8")]), (true, true));
    }

    #[test]
    fn without_unicode_all_is_ascii() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        buffer.set_string(0, 0, "─│█▁…ü😀", Style::new());
        Theme { colour: true, unicode: false }.apply(&mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["-|#..??     "]));
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2Jb\n\u{202e}ü"), "a?[2Jb??ü");
    }
}
