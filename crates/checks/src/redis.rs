//! Redis (and Valkey): `PING` in its protocol, RESP, after `AUTH` where there is a password.

use alloc::format;
use alloc::vec::Vec;

use crate::{Step, line, quote};

#[derive(Debug)]
pub(crate) struct Redis<'a> {
    password: &'a [u8],
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    Authenticating,
    Asked,
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

impl<'a> Redis<'a> {
    pub(crate) fn new(password: &'a [u8]) -> Redis<'a> {
        Redis { password, state: State::Begin }
    }

    pub(crate) fn step(&mut self, inbox: &mut Vec<u8>) -> Step {
        if matches!(self.state, State::Begin) {
            if self.password.is_empty() {
                self.state = State::Asked;
                return Step::Say(PING.to_vec());
            }
            self.state = State::Authenticating;
            let mut auth = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n", self.password.len()).into_bytes();
            auth.extend_from_slice(self.password);
            auth.extend_from_slice(b"\r\n");
            return Step::Say(auth);
        }
        let Some(line) = line(inbox) else { return Step::Wait };
        match (&self.state, line.as_slice()) {
            (State::Authenticating, b"+OK") => {
                self.state = State::Asked;
                Step::Say(PING.to_vec())
            }
            (State::Asked, b"+PONG") => Step::well("PONG", b"*1\r\n$4\r\nQUIT\r\n"),
            (_, [b'-', why @ ..]) => Step::ill(quote(why)),
            _ => Step::ill(format!("not Redis: {}", quote(&line))),
        }
    }
}
