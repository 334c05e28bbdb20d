//! A second server is asked where the first takes long (`hedge`), and whoever answers first is heard.
//!
//! Both attempts are polled by the one task that has the client, in turn; so they share its timer, and the first one's time-out may come as
//! late as the second one's.

use std::task::Poll;

use relais_config::plan;
use relais_http::{Method, Response};

use super::{Exchange, Failure, question};
use crate::buffer::Buffer;
use crate::half::recycle;
use crate::session::{Account, Asked};
use crate::transaction;
use crate::upstream::Lease;

/// Whether a second server may be asked: reading changes nothing, and whoever stays with a server is known to that one alone.
pub(super) fn may(asked: &Asked<'_>, account: &Account) -> bool {
    matches!(asked.request.method, Method::Get | Method::Head)
        && asked.request.upgrade.is_none()
        && account.stuck.server().is_none()
}

impl<'a> Exchange<'a> {
    /// As [`Exchange::response`], with a second server asked where the first takes long. This exchange becomes that of the one whose
    /// answer begins first; the lease goes along.
    pub(super) async fn hedged(
        &mut self,
        asked: &Asked<'a>,
        account: &mut Account,
        received: &mut Buffer,
        lease: &mut Lease,
        hedge: plan::Hedge,
    ) -> Result<Response, Failure> {
        let (client, backend, question) = (self.client, self.backend, question(asked));
        let worker = &client.worker;
        let after = self.sent + hedge.after;
        let first = client.until(after, |cx| match self.poll_response(question, received, true, cx) {
            // What is there [`Exchange::response`] finds again.
            Poll::Ready(result) => Poll::Ready(result.map(drop)),
            Poll::Pending => Poll::Pending,
        });
        let first = first.await;
        let other = match first {
            Ok(Err(failure)) => return Err(failure),
            Err(_) if received.is_empty() => {
                let key = backend.chooser.key(client, asked.request, asked.buffer.bytes());
                backend.hedge(client, key, self.place)
            }
            _ => None,
        };
        let Some(other) = other else { return self.response(asked, account, received, true).await };
        let server = other.server().clone();
        server.counters().hedges.add(1);
        let mut connecting = Some(Box::pin(transaction::connect(client, backend, &server, true, true)));
        let mut second: Option<(Exchange<'a>, Buffer)> = None;
        // Why the first is not waited for any more.
        let mut failed = None;
        let ready = client.drive(|cx| {
            if failed.is_none() {
                match self.poll_response(question, received, true, cx) {
                    Poll::Ready(Ok(_)) => return Poll::Ready(Ok(false)),
                    Poll::Ready(Err(failure)) if failure.is_of_client() => return Poll::Ready(Err(failure)),
                    Poll::Ready(Err(failure)) => failed = Some(failure),
                    Poll::Pending => {}
                }
            }
            if let Some(connected) = &mut connecting
                && let Poll::Ready((io, _)) = connected.as_mut().poll(cx)
            {
                connecting = None;
                client.wait_for(self.server.shared.id);
                match io {
                    Ok(io) => {
                        server.counters().sessions.add(1);
                        server.shared.observed.connected();
                        let mut exchange = Exchange::new(asked, backend, &other, io);
                        // Where its connection was dead already it is the first alone.
                        second = exchange.send(asked).is_ok().then(|| (exchange, worker.take_buffer()));
                    }
                    Err(_) => {
                        server.counters().connect_errors.add(1);
                        server.shared.observed.unreachable();
                    }
                }
            }
            if let Some((exchange, buffer)) = &mut second {
                match exchange.poll_response(question, buffer, true, cx) {
                    Poll::Ready(Ok(_)) => return Poll::Ready(Ok(true)),
                    Poll::Ready(Err(failure)) => {
                        failure.count(&server);
                        second = None;
                    }
                    Poll::Pending => {}
                }
            }
            match failed.take_if(|_| connecting.is_none() && second.is_none()) {
                Some(failure) => Poll::Ready(Err(failure)),
                None => Poll::Pending,
            }
        });
        let is_second = ready.await;
        drop(connecting);
        if let (Ok(true), Some((exchange, buffer))) = (&is_second, second) {
            if let Some(failure) = failed {
                failure.count(&self.server);
            }
            server.counters().hedges_won.add(1);
            recycle(&mut std::mem::replace(self, exchange).up, worker);
            worker.give_buffer(std::mem::replace(received, buffer));
            account.server = Some(server.clone());
            *lease = other;
        }
        is_second?;
        self.response(asked, account, received, true).await
    }
}
