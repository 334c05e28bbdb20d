//! Which alert says what went wrong (RFC 8446 §6.2), where rustls has none or another than OpenSSL would send.
//! Called by [`super::stream`] when a client's connection cannot go on.

use rustls::{AlertDescription as A, Error, PeerIncompatible as I, PeerMisbehaved as M, ProtocolVersion};

use super::strict::Refused;

/// The alert for an error that rustls said nothing of; `None`: the other end is owed none.
pub(super) fn of(error: &Error) -> Option<A> {
    Some(match error {
        Error::Other(other) => match other.0.downcast_ref::<Refused>() {
            Some(Refused(alert)) => *alert,
            None => A::InternalError,
        },
        Error::AlertReceived(_) => return None,
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            A::UnexpectedMessage
        }
        Error::InvalidMessage(_) => A::DecodeError,
        Error::DecryptError => A::BadRecordMac,
        Error::PeerSentOversizedRecord => A::RecordOverflow,
        Error::PeerIncompatible(_) => A::HandshakeFailure,
        Error::PeerMisbehaved(why) => match why {
            // Messages within messages, and too many of what is harmless alone.
            M::MessageInterleavedWithHandshakeMessage
            | M::RejectedEarlyDataInterleavedWithHandshakeMessage
            | M::KeyEpochWithPendingFragment
            | M::IllegalTlsInnerPlaintext
            | M::IllegalMiddleboxChangeCipherSpec
            | M::TooMuchEarlyDataReceived
            | M::TooManyEmptyFragments
            | M::TooManyKeyUpdateRequests
            | M::TooManyRenegotiationRequests
            | M::TooManyWarningAlertsReceived => A::UnexpectedMessage,
            _ => A::IllegalParameter,
        },
        _ => A::InternalError,
    })
}

/// The alert that takes the place of what rustls would say, as long as the client has had nothing of it.
pub(super) fn rather(error: &Error, version: Option<ProtocolVersion>) -> Option<A> {
    let is_13 = version == Some(ProtocolVersion::TLSv1_3);
    match error {
        Error::Other(other) => match other.0.downcast_ref::<Refused>() {
            Some(Refused(A::ProtocolVersion)) => Some(A::ProtocolVersion),
            _ => None,
        },
        // "Missing" is not "of no use" (RFC 8446 §9.2).
        Error::PeerIncompatible(I::KeyShareExtensionRequired) => Some(A::MissingExtension),
        Error::PeerIncompatible(I::SignatureAlgorithmsExtensionRequired) if is_13 => {
            Some(A::MissingExtension)
        }
        // Noticed by rustls behind its ServerHello, which is still here.
        Error::PeerIncompatible(I::NoSignatureSchemesInCommon) => Some(A::HandshakeFailure),
        _ => None,
    }
}
