//! Logging to the standard error: one line a message, `relais[vip] WARN: ...`, or with systemd's
//! priority prefix (`sd-daemon(3)`) where the journal reads it.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

struct Line {
    process: String,
    systemd: bool,
    debug: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // What a library says of a client's frames, the client chooses how often; we say it our own way, and bounded.
        if !self.debug && event.metadata().target().starts_with("h2::") {
            return Ok(());
        }
        let level = *event.metadata().level();
        let (priority, word) = match level {
            Level::ERROR => (3, "ERROR: "),
            Level::WARN => (4, "WARN: "),
            Level::INFO => (6, ""),
            _ => (7, "DEBUG: "),
        };
        if self.systemd {
            write!(w, "<{priority}>[{}] ", self.process)?;
        } else {
            write!(w, "relais[{}] {word}", self.process)?;
        }
        ctx.field_format().format_fields(w.by_ref(), event)?;
        writeln!(w)
    }
}

/// Sends this process's messages of level info and above (all of them with `RELAIS_DEBUG` set) to the
/// standard error under the name `process`. Called once, at the start; a second call is ignored.
pub fn init(process: &str) {
    let debug = std::env::var_os("RELAIS_DEBUG").is_some();
    let level = if debug { Level::DEBUG } else { Level::INFO };
    let systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let line = Line { process: process.to_owned(), systemd, debug };
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .event_format(line)
        .try_init();
}
