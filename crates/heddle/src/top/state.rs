//! What somebody at the keyboard has chosen in `heddle top`, and what each key changes. Pure: no terminal here.

use std::cmp::Ordering;

use heddle_wire::local::observe_api::ServiceSummary;

use super::{figures::name, layout::figures_of};
use crate::cli::live::{Side, Sort};

/// Longest filter, characters.
const FILTER_MAX: usize = 60;
/// Rows that Page Up and Page Down move by.
const PAGE: usize = 10;

/// What is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) sort: Sort,
    /// The other way round?
    pub(crate) reversed: bool,
    /// Only services whose name has this in it.
    pub(crate) filter: String,
    pub(crate) side: Side,
    /// A row for each version?
    pub(crate) versions: bool,
    /// First row that is shown.
    pub(crate) from: usize,
    pub(crate) mode: Mode,
}

/// What the screen is for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// Rows.
    #[default]
    Rows,
    /// The filter is being typed.
    Typing,
    /// The keys are shown.
    Help,
    /// It is over.
    Over,
}

/// What keys do.
pub(crate) const HELP: &str = "\
  q            end                     ?            these keys
  n r e l b    order by name, rate, errors, latency (P99), what is in flight;
               the same key again turns the order round
  /            filter by name: type, then Enter; Esc takes it away
  s            whose figures: as it fits, the callers' (client), the service's own (server)
  v            a row for each version
  up down      move by a row (k and j too); Page Up and Page Down by ten

  REQ/S        requests per second         SUCCESS  answered without 5xx; injected aborts left out
  P50 P99      half of the answers came within that time, 99 of 100
  BUSY         in flight now; connections where a service speaks TCP
  INJ/S        requests that a fault rule aborted or delayed
  SIDE         whose figures the row has: those of the two sides are never mixed";

/// A key, or what the terminal sends for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Character(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
}

/// Keys out of what a terminal sends.
fn keys(bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 6] = [
        (b"\x1b[A", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOA", Key::Up),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
    ];
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(known, _)| rest.starts_with(known)) {
            keys.push(*key);
            rest = &rest[sequence.len()..];
            continue;
        }
        rest = after;
        match first {
            b'\r' | b'\n' => keys.push(Key::Enter),
            0x7f | 0x08 => keys.push(Key::Backspace),
            // Another key's sequence: it says nothing here.
            0x1b if matches!(rest.first(), Some(b'[' | b'O')) => {
                let end = rest.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte));
                rest = &rest[end.map_or(rest.len(), |at| at + 2)..];
            }
            0x1b => keys.push(Key::Escape),
            byte if byte.is_ascii_graphic() || *byte == b' ' => {
                keys.push(Key::Character(char::from(*byte)));
            }
            _ => {}
        }
    }
    keys
}

impl State {
    /// Takes what a terminal sends.
    pub(crate) fn press(&mut self, bytes: &[u8]) {
        for key in keys(bytes) {
            if self.mode == Mode::Typing { self.type_filter(key) } else { self.command(key) }
        }
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Character(character) if self.filter.len() < FILTER_MAX => {
                self.filter.push(character)
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.mode = Mode::Rows,
            Key::Escape => {
                self.mode = Mode::Rows;
                self.filter.clear();
            }
            _ => {}
        }
        self.from = 0;
    }

    fn command(&mut self, key: Key) {
        match key {
            Key::Character('q' | 'Q') => self.mode = Mode::Over,
            Key::Character('?' | 'h') | Key::Escape if self.mode == Mode::Help => {
                self.mode = Mode::Rows;
            }
            Key::Character('?' | 'h') => self.mode = Mode::Help,
            Key::Escape => self.filter.clear(),
            Key::Character('/') => {
                self.mode = Mode::Typing;
                self.filter.clear();
            }
            Key::Character('v') => self.versions = !self.versions,
            Key::Character('s') => {
                self.side = match self.side {
                    Side::Auto => Side::Client,
                    Side::Client => Side::Server,
                    Side::Server => Side::Auto,
                };
            }
            Key::Character('n') => self.order_by(Sort::Name),
            Key::Character('r') => self.order_by(Sort::Rate),
            Key::Character('e') => self.order_by(Sort::Errors),
            Key::Character('l') => self.order_by(Sort::Latency),
            Key::Character('b') => self.order_by(Sort::Busy),
            Key::Up | Key::Character('k') => self.from = self.from.saturating_sub(1),
            Key::Down | Key::Character('j') => self.from = self.from.saturating_add(1),
            Key::PageUp => self.from = self.from.saturating_sub(PAGE),
            Key::PageDown => self.from = self.from.saturating_add(PAGE),
            _ => {}
        }
    }

    fn order_by(&mut self, sort: Sort) {
        self.reversed = self.sort == sort && !self.reversed;
        self.sort = sort;
    }

    /// The services that are shown, in their order.
    pub(crate) fn chosen<'s>(&self, services: &'s [ServiceSummary]) -> Vec<&'s ServiceSummary> {
        let has = |service: &&ServiceSummary| {
            self.filter.is_empty() || name(&service.service).contains(&self.filter)
        };
        let mut chosen: Vec<&ServiceSummary> = services.iter().filter(has).collect();
        // Stable: equal ones stay in the order of their names.
        chosen.sort_by(|a, b| {
            let order = self.order(a, b);
            if self.reversed { order.reverse() } else { order }
        });
        chosen
    }

    fn order(&self, a: &ServiceSummary, b: &ServiceSummary) -> Ordering {
        let figures = |service: &ServiceSummary| figures_of(service, self.side);
        let most_first = |of: &dyn Fn(&ServiceSummary) -> f64| of(b).total_cmp(&of(a));
        match self.sort {
            Sort::Name => a.service.cmp(&b.service),
            Sort::Rate => most_first(&|one| figures(one).per_second),
            Sort::Errors => most_first(&|one| {
                let rates = figures(one);
                rates.per_second * (1.0 - rates.success)
            }),
            Sort::Latency => most_first(&|one| figures(one).p99_ms.unwrap_or(0.0)),
            Sort::Busy => most_first(&|one| one.in_flight.unwrap_or(0.0)),
        }
    }

    /// The last line: what is chosen, and how it is changed.
    pub(crate) fn line(&self) -> String {
        if self.mode == Mode::Typing {
            return format!("filter: {}_   (Enter, or Esc to take it away)", self.filter);
        }
        let sort = match self.sort {
            Sort::Name => "name",
            Sort::Rate => "rate",
            Sort::Errors => "errors",
            Sort::Latency => "latency",
            Sort::Busy => "busy",
        };
        let reversed = if self.reversed { " (reversed)" } else { "" };
        let side = match self.side {
            Side::Auto => String::new(),
            Side::Client => "  side: client".to_owned(),
            Side::Server => "  side: server".to_owned(),
        };
        let filter = match &*self.filter {
            "" => String::new(),
            filter => format!("  filter: {filter}"),
        };
        format!("sort: {sort}{reversed}{side}{filter}  ? keys  q end")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::layout::tests::row, *};

    fn pressed(bytes: &[u8]) -> State {
        let mut state = State::default();
        state.press(bytes);
        state
    }

    #[test]
    fn keys_choose_order_side_versions_and_the_end() {
        let modes = [&b"q"[..], b"?", b"??", b"?\x1b", b"/"].map(|keys| pressed(keys).mode);
        assert_eq!(modes, [Mode::Over, Mode::Help, Mode::Rows, Mode::Rows, Mode::Typing]);
        assert_eq!(pressed(b"l").sort, Sort::Latency);
        assert!(pressed(b"ee").reversed && !pressed(b"er").reversed && !pressed(b"eee").reversed);
        assert_eq!((pressed(b"ss").side, pressed(b"v").versions), (Side::Server, true));
        assert_eq!(pressed(b"\x1b[B\x1b[6~k").from, 10);
        assert_eq!(pressed(b"\x1b[A").from, 0);
        // A key that means nothing here, in the terminal's own spelling, does nothing.
        assert_eq!(pressed(b"\x1b[1;5Cx\x1b[3~\xff\x01"), State::default());
    }

    #[test]
    fn a_filter_is_typed_and_taken_away() {
        let typed = pressed(b"/reqs\x7f\r");
        assert_eq!((typed.filter.as_str(), typed.mode), ("req", Mode::Rows));
        assert_eq!(pressed(b"/rev\r\x1b").filter, "");
        assert_eq!(pressed(b"/rev\x1b").filter, "");
        assert_eq!(pressed(&[b"/".to_vec(), vec![b'x'; 500]].concat()).filter.len(), FILTER_MAX);
    }

    #[test]
    fn rows_are_chosen_and_ordered_by_the_side_that_is_shown() {
        let services = [row("a", 0.0), row("b", 0.3), row("c", 0.1)];
        let names = |state: &State| -> Vec<String> {
            state.chosen(&services).iter().map(|one| one.service.name.clone()).collect()
        };
        assert_eq!(names(&pressed(b"e")), ["b", "c", "a"]);
        assert_eq!(names(&pressed(b"ee")), ["a", "c", "b"]);
        // On their own side none fails: the order of names stays.
        assert_eq!(names(&pressed(b"sse")), ["a", "b", "c"]);
        assert_eq!(names(&pressed(b"/b\r")), ["b"]);
    }
}
