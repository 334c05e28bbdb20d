//! The time of day in the machine's time zone, in the shapes that logs have, and as HTTP has it.

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Dates are made once a second and kept: two seconds, as a line has the date of its beginning and that of now.
pub(crate) struct Dates {
    zone: TimeZone,
    kept: [Second; 2],
    /// Which of them is older.
    older: usize,
    pub(crate) hostname: Box<[u8]>,
    pub(crate) pid: u32,
}

#[derive(Default)]
pub(crate) struct Second {
    second: u64,
    /// `22/Nov/2026:19:57:00`, local.
    pub(crate) local: Vec<u8>,
    /// `+0100`.
    pub(crate) offset: Vec<u8>,
    /// `22/Nov/2026:18:57:00 +0000`.
    pub(crate) gmt: Vec<u8>,
    /// `2026-11-22T19:57:00`, local.
    pub(crate) iso: Vec<u8>,
    /// `+01:00`, or `Z`.
    pub(crate) iso_offset: Vec<u8>,
    /// `Nov 22 19:57:00`, local.
    pub(crate) bsd: Vec<u8>,
    /// `Date: Sun, 22 Nov 2026 18:57:00 GMT` and the line's end (RFC 9110 §5.6.7).
    pub(crate) http: Vec<u8>,
}

impl Dates {
    /// In the machine's time zone (`TZ`, else `/etc/localtime`, else UTC).
    pub(crate) fn new() -> Dates {
        Dates::in_zone(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    pub(crate) fn in_zone(zone: TimeZone) -> Dates {
        let system = rustix::system::uname();
        let hostname = system.nodename().to_bytes();
        let good = hostname.iter().all(u8::is_ascii_graphic) && !hostname.is_empty();
        let hostname = if good { hostname.into() } else { (*b"-").into() };
        Dates { zone, kept: Default::default(), older: 0, hostname, pid: std::process::id() }
    }

    /// The second that `ms`, since 1970, is in.
    pub(crate) fn at(&mut self, ms: u64) -> &Second {
        let second = ms / 1000;
        let found = self.kept.iter().position(|kept| kept.second == second && !kept.gmt.is_empty());
        let index = found.unwrap_or_else(|| {
            let index = self.older;
            self.kept[index].fill(second, &self.zone);
            index
        });
        self.older = 1 - index;
        &self.kept[index]
    }
}

impl Second {
    fn fill(&mut self, second: u64, zone: &TimeZone) {
        self.second = second;
        for text in [
            &mut self.local,
            &mut self.offset,
            &mut self.gmt,
            &mut self.iso,
            &mut self.iso_offset,
            &mut self.bsd,
            &mut self.http,
        ] {
            text.clear();
        }
        let stamp = Timestamp::from_second(second as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        let offset = zone.to_offset(stamp);
        let (local, gmt) = (offset.to_datetime(stamp), jiff::tz::Offset::UTC.to_datetime(stamp));
        let month =
            |m: i8| MONTHS.get(usize::from(m.unsigned_abs()).wrapping_sub(1)).copied().unwrap_or("???");
        let (day, year) = (local.day(), local.year());
        let (h, m, s) = (local.hour(), local.minute(), local.second());
        let shift = offset.seconds().unsigned_abs() / 60;
        let sign = if offset.seconds() < 0 { '-' } else { '+' };
        // Writing to a vector cannot fail.
        let _ = write!(self.local, "{day:02}/{}/{year}:{h:02}:{m:02}:{s:02}", month(local.month()));
        let _ = write!(self.offset, "{sign}{:02}{:02}", shift / 60, shift % 60);
        let (gmt_day, gmt_month, gmt_year) = (gmt.day(), month(gmt.month()), gmt.year());
        let gmt_time = format_args!("{:02}:{:02}:{:02}", gmt.hour(), gmt.minute(), gmt.second());
        let _ = write!(self.gmt, "{gmt_day:02}/{gmt_month}/{gmt_year}:{gmt_time} +0000");
        let _ = write!(self.iso, "{year:04}-{:02}-{day:02}T{h:02}:{m:02}:{s:02}", local.month());
        let _ = match shift {
            0 => write!(self.iso_offset, "Z"),
            _ => write!(self.iso_offset, "{sign}{:02}:{:02}", shift / 60, shift % 60),
        };
        let weekday = usize::from(gmt.weekday().to_monday_zero_offset().unsigned_abs());
        let _ = write!(
            self.http,
            "Date: {}, {gmt_day:02} {gmt_month} {gmt_year:04} {gmt_time} GMT\r\n",
            DAYS.get(weekday).copied().unwrap_or("???"),
        );
        let _ = write!(self.bsd, "{} {day:2} {h:02}:{m:02}:{s:02}", month(local.month()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("a date")
    }

    #[test]
    fn dates_are_local_through_a_change_of_clocks() {
        // Central European time without a file: the rules as POSIX writes them.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let mut dates = Dates::in_zone(zone);
        let winter = dates.at(1_233_922_454_655);
        assert_eq!(text(&winter.local), "06/Feb/2009:13:14:14");
        assert_eq!(text(&winter.gmt), "06/Feb/2009:12:14:14 +0000");
        assert_eq!((text(&winter.offset), text(&winter.iso_offset)), ("+0100", "+01:00"));
        assert_eq!(text(&winter.iso), "2009-02-06T13:14:14");
        assert_eq!(text(&winter.bsd), "Feb  6 13:14:14");
        assert_eq!(text(&winter.http), "Date: Fri, 06 Feb 2009 12:14:14 GMT\r\n");
        // 2026-03-29 02:00 CET is 03:00 CEST.
        assert_eq!(text(&dates.at(1_774_745_999_000).local), "29/Mar/2026:01:59:59");
        let summer = dates.at(1_774_746_000_000);
        assert_eq!((text(&summer.local), text(&summer.offset)), ("29/Mar/2026:03:00:00", "+0200"));
        assert_eq!(text(&dates.at(1_774_745_999_000).local), "29/Mar/2026:01:59:59");
    }

    #[test]
    fn a_zone_west_of_greenwich_with_half_an_hour_is_written_so() {
        let mut dates = Dates::in_zone(TimeZone::posix("NST3:30").expect("a zone"));
        let second = dates.at(0);
        assert_eq!((text(&second.offset), text(&second.iso_offset)), ("-0330", "-03:30"));
        assert_eq!(text(&second.local), "31/Dec/1969:20:30:00");
    }
}
