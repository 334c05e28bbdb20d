//! Why a message is refused.

use core::fmt;

/// A refused message: why, and the offset of the byte that decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The rule that it broke.
    pub why: Why,
    /// Offset from the first byte of the head, or of the body if that is where it is.
    pub at: usize,
}

impl Reject {
    pub(crate) const fn new(why: Why, at: usize) -> Reject {
        Reject { why, at }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {})", self.why.text(), self.at)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $status:literal $text:literal;)*) => {
        /// The rule that a message broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Why { $($(#[$doc])* $name,)* }

        impl Why {
            /// Every reason.
            pub const ALL: &[Why] = &[$(Why::$name,)*];

            /// The status code that says so to a client. A server's message that is refused is always a 502.
            pub const fn status(self) -> u16 {
                match self { $(Why::$name => $status,)* }
            }

            /// What is wrong, for a log line.
            pub const fn text(self) -> &'static str {
                match self { $(Why::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// RFC 9112 §3.
    StartLine 400 "the request or status line is malformed";
    /// RFC 9112 §2.3.
    Version 505 "the protocol version is not HTTP/1.0 or HTTP/1.1";
    /// RFC 9112 §2.2.
    BareLineEnd 400 "a line does not end with CRLF";
    /// RFC 9112 §2.2.
    EmptyLines 400 "too many empty lines stand before the request";
    /// RFC 9112 §3.2.
    Target 400 "the request target is malformed or does not fit the method";
    /// RFC 9110 §9.3.6: there is nothing behind a gateway to connect to.
    Connect 501 "CONNECT is not served by a gateway";
    /// RFC 9110 §5.1.
    FieldName 400 "a field name is not a token";
    /// RFC 9112 §5.1.
    SpaceBeforeColon 400 "there is whitespace between a field name and its colon";
    /// RFC 9112 §5.2.
    Fold 400 "a line begins with whitespace (obsolete line folding)";
    /// RFC 9110 §5.5.
    FieldValue 400 "a field value has a control character";
    /// RFC 6585 §5.
    TooManyFields 431 "the head has too many fields";
    /// RFC 6585 §5.
    HeadTooLong 431 "the head is too long";
    /// RFC 9110 §15.5.15.
    TargetTooLong 414 "the request line is too long";
    /// RFC 9112 §3.2.
    HostMissing 400 "an HTTP/1.1 request has no Host";
    /// RFC 9112 §3.2.
    HostTwice 400 "there is more than one Host";
    /// RFC 9110 §7.2.
    HostInvalid 400 "Host is not a host with an optional port";
    /// RFC 9110 §8.6.
    ContentLength 400 "Content-Length is not one decimal number";
    /// RFC 9112 §6.3 rule 5.
    ContentLengthTwice 400 "there is more than one Content-Length";
    /// RFC 9112 §6.1.
    LengthAndCoding 400 "there are both Content-Length and Transfer-Encoding";
    /// RFC 9112 §6.1.
    CodingInOld 400 "there is Transfer-Encoding in an HTTP/1.0 message";
    /// RFC 9112 §6.3 rule 4.
    Coding 400 "Transfer-Encoding does not end with chunked, or is malformed";
    /// RFC 9112 §6.1.
    CodingUnknown 501 "Transfer-Encoding names a coding other than chunked";
    /// RFC 9110 §7.6.1.
    Connection 400 "Connection is malformed or names a field that is not for one hop";
    /// RFC 9110 §10.1.1.
    Expectation 417 "Expect asks for something other than 100-continue";
    /// RFC 9110 §7.6.2.
    MaxForwards 400 "Max-Forwards is not one decimal number";
    /// RFC 9112 §7.1.
    ChunkSize 400 "a chunk size is malformed or too large";
    /// RFC 9112 §7.1.1.
    ChunkExtension 400 "a chunk extension is malformed";
    /// RFC 9112 §7.1.1.
    ChunkLineTooLong 400 "a chunk-size line is too long";
    /// RFC 9112 §7.1.
    ChunkEnd 400 "chunk data is not followed by CRLF";
    /// RFC 9112 §7.1.2.
    Trailer 400 "a trailer field is malformed";
    /// RFC 9110 §6.5.1.
    TrailerForbidden 400 "a trailer field frames or routes the message";
    /// RFC 6585 §5.
    TrailerTooLong 431 "the trailer section is too long";
    /// RFC 9110 §15.5.14.
    BodyTooLong 413 "the body is longer than max-body allows";
    /// RFC 9112 §8.
    Truncated 400 "the message ends before its end";
    /// RFC 9110 §15.2.2, §7.8.
    Switching 502 "the server switches protocols without being asked";
    /// RFC 9110 §15.
    StatusCode 502 "the status code is not one of 100 to 599";
}
