//! The terminal that stdout is, if it is one: its size, and colours for it. Floor 0.

use std::io::{self, IsTerminal as _};

/// What stdout can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Characters in a line, and lines; `None` where stdout is no terminal.
    pub(crate) size: Option<(usize, usize)>,
    pub(crate) colours: bool,
}

/// The four meanings that a colour has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// As it should be.
    Green,
    /// It works, and is not as it should be.
    Yellow,
    /// It does not work.
    Red,
    /// Less important than what is around it.
    Dim,
}

impl Terminal {
    /// `wants_colours`: whether the environment has nothing against them.
    #[must_use]
    pub(crate) fn of_stdout(wants_colours: bool) -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self { size: None, colours: false };
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let known = size.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let or = |known, default| if known == 0 { default } else { known };
        Self { size: Some((or(known.0, WIDTH), or(known.1, HEIGHT))), colours: wants_colours }
    }

    /// How wide a table may be that needs no more.
    #[must_use]
    pub(crate) fn width(&self) -> usize {
        self.size.map_or(WIDTH, |(width, _)| width)
    }

    /// The text in its colour, if there are colours.
    #[must_use]
    pub(crate) fn paint(&self, colour: Option<Colour>, text: &str) -> String {
        match colour {
            Some(colour) if self.colours && !text.is_empty() => {
                format!("\x1b[{}m{text}{RESET}", colour.code())
            }
            _ => text.to_owned(),
        }
    }

    /// What takes the place of all that the terminal shows: no more lines than it has, and none longer than it is wide.
    #[must_use]
    pub(crate) fn frame(&self, text: &str) -> String {
        let Some((width, height)) = self.size else { return text.to_owned() };
        let lines: Vec<&str> = text.lines().collect();
        // The cursor stays below.
        let room = height.saturating_sub(1).max(1);
        let mut frame = String::from(HOME);
        let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
        for line in lines.iter().take(shown) {
            frame.push_str(&cut(line, width));
            frame.push_str(END_OF_LINE);
        }
        if shown < lines.len() {
            let more = format!("… {} more lines", lines.len() - shown);
            frame.push_str(&cut(&more, width));
            frame.push_str(END_OF_LINE);
        }
        frame.push_str(CLEAR_BELOW);
        frame
    }
}

impl Colour {
    /// Source: <https://ecma-international.org/publications-and-standards/standards/ecma-48/>, SGR
    fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Dim => "2",
        }
    }
}

/// Words in lines of at most `width` characters; those after the first begin with `indent` spaces. A word that is longer than a
/// line is broken.
#[must_use]
pub(crate) fn wrapped(text: &str, width: usize, indent: usize) -> Vec<String> {
    let width = width.max(indent + 1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let long = word.chars().count();
        if length > 0 && length + 1 + long <= width {
            line.push(' ');
            length += 1;
        } else if length > 0 {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            length = indent;
        }
        for c in word.chars() {
            if length == width {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                length = indent;
            }
            line.push(c);
            length += 1;
        }
    }
    lines.push(line);
    lines
}

/// The first `width` characters of a line; what sets a colour is no character.
fn cut(line: &str, width: usize) -> String {
    let mut shown = String::new();
    let (mut length, mut in_escape) = (0, false);
    for c in line.chars() {
        let is_escape = c == ESCAPE || in_escape;
        in_escape = is_escape && c != 'm';
        if !is_escape {
            if length == width {
                continue;
            }
            length += 1;
        }
        shown.push(c);
    }
    shown
}

/// The size of a terminal whose own is not known; a table that goes elsewhere is as wide.
const WIDTH: usize = 100;
const HEIGHT: usize = 24;

const ESCAPE: char = '\x1b';
const RESET: &str = "\x1b[0m";
/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// What is left of an earlier line goes.
const END_OF_LINE: &str = "\x1b[K\n";
const CLEAR_BELOW: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Terminal = Terminal { size: Some((6, 4)), colours: true };
    const NONE: Terminal = Terminal { size: None, colours: false };

    #[test]
    fn a_frame_fits_the_terminal_in_both_directions() {
        let frame = SMALL.frame("one\nlonger line\n");
        assert_eq!(frame, "\x1b[Hone\x1b[K\nlonger\x1b[K\n\x1b[J");
        let frame = SMALL.frame("1\n2\n3\n4\n5\n");
        assert_eq!(frame, "\x1b[H1\x1b[K\n2\x1b[K\n… 3 mo\x1b[K\n\x1b[J");
        assert_eq!(SMALL.frame("1\n2\n3\n"), "\x1b[H1\x1b[K\n2\x1b[K\n3\x1b[K\n\x1b[J");
        assert_eq!(NONE.frame("as it is\n"), "as it is\n");
    }

    #[test]
    fn a_colour_takes_no_room_and_ends_with_what_it_is_for() {
        let red = SMALL.paint(Some(Colour::Red), "not ready");
        assert_eq!(red, "\x1b[31mnot ready\x1b[0m");
        assert_eq!(SMALL.frame(&red), "\x1b[H\x1b[31mnot re\x1b[0m\x1b[K\n\x1b[J");
        assert_eq!(NONE.paint(Some(Colour::Red), "not ready"), "not ready");
        assert_eq!(SMALL.paint(None, "x"), "x");
    }

    #[test]
    fn words_go_on_in_the_next_line_and_a_long_one_is_broken() {
        assert_eq!(wrapped("a bc def", 4, 1), ["a bc", " def"]);
        assert_eq!(wrapped("a bcdefgh i", 4, 1), ["a", " bcd", " efg", " h i"]);
        assert_eq!(wrapped("", 4, 1), [""]);
        for line in wrapped("words of the server, and then some more of them", 10, 4) {
            assert!(line.chars().count() <= 10, "{line:?}");
        }
    }
}
