//! SMTP (RFC 5321 §3.1, §4.1.1.1): the greeting, `EHLO`, `QUIT`.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use crate::{Step, line, quote};

#[derive(Debug)]
pub(crate) struct Smtp<'a> {
    helo: &'a str,
    greeted: bool,
}

impl<'a> Smtp<'a> {
    pub(crate) fn new(helo: &'a str) -> Smtp<'a> {
        Smtp { helo, greeted: false }
    }

    pub(crate) fn step(&mut self, inbox: &mut Vec<u8>) -> Step {
        while let Some(line) = line(inbox) {
            let wanted: &[u8] = if self.greeted { b"250" } else { b"220" };
            let (code, rest) = line.split_at_checked(3).unwrap_or((&line, b""));
            match rest {
                _ if code != wanted && code.iter().all(u8::is_ascii_digit) => return Step::ill(quote(&line)),
                _ if code != wanted => return Step::ill(format!("not SMTP: {}", quote(&line))),
                [b'-', ..] => {} // more lines follow (RFC 5321 §4.2.1)
                _ if self.greeted => return Step::well("250".to_string(), b"QUIT\r\n"),
                _ => {
                    self.greeted = true;
                    return Step::Say(format!("EHLO {}\r\n", self.helo).into_bytes());
                }
            }
        }
        Step::Wait
    }
}
