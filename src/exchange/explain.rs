//! What would become of a request, without a request: routed, rewritten and decided about by the
//! functions that serve, on a core that serves. Nothing is sent, and nothing is taken.
//!
//! What depends on a connection (its certificate, a body that comes) is not known here, and counts
//! as being in order.

use std::{rc::Rc, sync::Arc};

use super::{Exchange, run, sticky};
use crate::http::{
    fault::{Cause, Fault},
    forward::Forward,
    framing,
    parse::{self, Parse},
};
use crate::proto::peer::{Peer, PeerAddress, Secure};
use crate::worker::{Answered, Explained, InForce, Question, Worker};

/// Answers it, for this core and this moment.
pub(crate) fn answer(worker: &Rc<Worker>, question: &Question) -> Answered {
    worker.clock.renew();
    now(worker, question)
}

/// The same as of the last reading of the clock.
fn now(worker: &Rc<Worker>, question: &Question) -> Answered {
    let in_force = worker.in_force();
    let mut answered = Answered {
        plan: Arc::clone(&in_force.plan),
        route: None,
        pool: None,
        client: None,
        pinned: None,
        decided: Err(Some(Cause::NoRoute.into())),
    };
    // The plan may have changed since it was asked.
    if in_force.plan.listeners.get(question.listener).is_some() {
        answered.decided = decide(worker, in_force, question, &mut answered);
    }
    answered
}

fn decide(
    worker: &Rc<Worker>,
    in_force: Rc<InForce>,
    question: &Question,
    answered: &mut Answered,
) -> Result<Explained, Option<Fault>> {
    let exchange = direct(worker, in_force, question, answered)?;
    let errand = exchange.errand(worker);
    let explained = errand.pool.explain(&errand.wanted);
    worker.recycle(exchange.scratch);
    Ok(explained)
}

/// An exchange that is about to ask a backend.
fn direct(
    worker: &Rc<Worker>,
    in_force: Rc<InForce>,
    question: &Question,
    answered: &mut Answered,
) -> Result<Exchange, Option<Fault>> {
    let trusted = &in_force.plan.listener(question.listener).trusted_proxies;
    let address = (PeerAddress::of(Some(question.from)), question.port);
    let secure = question.secure.then(Box::<Secure>::default);
    let peer = Peer::new(question.listener, address, trusted, secure);
    let mut scratch = worker.scratch();
    let parsed = parse::request(&question.head, &in_force.head_limits, &mut scratch.request)?;
    if parsed != (Parse::Done { used: question.head.len() }) {
        return Err(Some(Cause::BadRequest.into()));
    }
    let length = framing::request(&scratch.request)?;
    answered.client = peer.client(&scratch.request, trusted);
    let mut exchange = Exchange::new(worker, in_force, scratch, length, worker.clock.last());
    let directed =
        run::admit(&exchange, length).and_then(|()| run::direct(worker, &peer, &mut exchange));
    let record = &exchange.scratch.record;
    (answered.route, answered.pool) = (record.route, record.pool);
    match directed? {
        Forward::Send => {
            sticky::read(worker, &mut exchange);
            answered.pinned = exchange.scratch.reading.pinned();
            Ok(exchange)
        }
        Forward::AnswerOptions => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::base::{ids::ListenerId, rng::Rng};
    use crate::exchange::choose::choose;
    use crate::policy::balance::Sample;
    use crate::worker::{LeftOut, Pick, Standing};

    /// A pool for each algorithm, each with what narrows a choice.
    fn plan() -> crate::plan::Plan {
        let pools = [
            "balance = \"round-robin\"",
            "balance = \"least-connections\"",
            "balance = \"random\"",
            "balance = \"ip-hash\"",
            "balance = { hash = \"header:x-user\", bound = 1.25 }",
            "balance = \"least-response-time\"",
            "balance = \"round-robin\"\nsticky = {}",
            "balance = \"least-connections\"\nqueue = { size = 5 }\nslow-start = \"10s\"",
        ];
        let mut text = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"p0\"\n".to_owned();
        text += "trusted-proxies = [\"10.0.0.0/8\"]\n";
        for (number, keys) in pools.iter().enumerate() {
            let at = |last: usize| 1_000 + number * 10 + last;
            let (slots, weight) = (1 + number % 3, number % 4);
            text += &format!(
                "[[route]]\nname = \"r{number}\"\npath = \"/{number}\"\npool = \"p{number}\"\n\
                 [pool.p{number}]\n{keys}\nbackends = [\"127.0.0.1:{}\", \
                 {{ address = \"127.0.0.1:{}\", weight = 3 }}, \
                 {{ address = \"127.0.0.1:{}\", weight = {weight} }}, \
                 {{ address = \"127.0.0.1:{}\", max-in-flight = {slots} }}, \
                 {{ address = \"127.0.0.1:{}\", backup = true }}]\n",
                at(0),
                at(1),
                at(2),
                at(3),
                at(4),
            );
        }
        text += "[[route]]\nname = \"put\"\npath = \"/1\"\nmethod = \"PUT\"\npool = \"p3\"\n";
        crate::config::parse("explain.toml", &text).unwrap().plan.into_plan()
    }

    fn question(rng: &mut Rng) -> Question {
        let method = ["GET", "PUT", "POST", "TRACE", "OPTIONS"][rng.below(5) as usize];
        let path = ["/", "/0", "/1/x", "/2", "/3", "/4?q", "/5", "/6", "/7", "/%2e%2e/%2F", "*"];
        let path = path[rng.below(path.len() as u32) as usize];
        let user = rng.below(50);
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: a{user}\r\nX-User: {user}\r\n");
        match rng.below(6) {
            0 => head += &format!("X-Forwarded-For: 192.0.2.{user}\r\n"),
            1 => head += "Content-Length: 3\r\n",
            2 => head += "Max-Forwards: 0\r\n",
            3 => head += "Cookie: ringway=AAAA; a=b\r\n",
            _ => {}
        }
        head += "\r\n";
        let from = SocketAddr::from(([10, 0, (user % 3) as u8, user as u8], 0));
        let (listener, port) = (ListenerId(0), 80);
        Question { listener, from, port, secure: false, head: head.into_bytes() }
    }

    /// What serves the same request, to its pick.
    fn serve(worker: &Rc<Worker>, question: &Question) -> Result<Pick, Option<Fault>> {
        let mut unread = now(worker, question);
        let exchange = direct(worker, worker.in_force(), question, &mut unread)?;
        let picked = choose(&exchange.errand(worker)).map_err(|_| None);
        worker.recycle(exchange.scratch);
        picked
    }

    /// Backends refuse, are slow or fail, requests stay in flight: after ten thousand requests each
    /// would have been asked where it was.
    #[test]
    fn the_explained_pick_is_the_real_one() {
        let worker = Worker::crew_of(plan(), 1).remove(0);
        let (mut rng, mut open) = (Rng::seeded(13), Vec::<Pick>::new());
        let (mut picked, mut left_out) = ([0; 64], Vec::new());
        for number in 0..10_000 {
            let asked = question(&mut rng);
            worker.clock.renew();
            let said = now(&worker, &asked);
            assert_eq!(
                format!("{:?}", said.decided.as_ref().ok()),
                format!("{:?}", now(&worker, &asked).decided.ok()),
                "to be asked changes nothing"
            );
            let real = serve(&worker, &asked);
            let explained = said.decided.as_ref().map(|it| it.picked.ok());
            let text = String::from_utf8_lossy(&asked.head);
            match (real, explained) {
                (Ok(pick), Ok(Some(id))) => {
                    assert_eq!(pick.backend(), id, "{number}: {text}");
                    let pool = said.pool.unwrap();
                    picked[usize::from(pool.0) * 8 + id.index()] += 1;
                    let view = Rc::clone(worker.in_force().pool(pool));
                    let (tick, why) = (worker.clock.tick(), (id, Cause::ConnectFailed));
                    match rng.below(20) {
                        0 => view.not_reached(&worker.events, why, None, tick),
                        1 => view.observe(id, Sample::Failed(9), tick),
                        2 => view.observe(id, Sample::FirstByte(rng.below(90_000)), tick),
                        _ => {}
                    }
                    open.push(pick);
                }
                (Err(_), Ok(None) | Err(_)) => {}
                (real, said) => {
                    panic!("{number}: {:?} and {said:?}: {text}", real.map(|it| it.backend()))
                }
            }
            if let Ok(explained) = &said.decided {
                left_out.extend(explained.backends.iter().map(|(_, standing)| *standing));
            }
            while open.len() > 12 {
                open.swap_remove(rng.below(open.len() as u32) as usize);
            }
        }
        for pool in 0..8 {
            let asked = picked[pool * 8..][..8].iter().filter(|count| **count > 0).count();
            assert!(asked >= 3, "pool {pool}: {picked:?}");
        }
        for wanted in [LeftOut::Refuses, LeftOut::Full, LeftOut::NoWeight, LeftOut::Backup] {
            assert!(left_out.contains(&Standing::LeftOut(wanted)), "{wanted:?}");
        }
    }
}
